//! The pod that a person means: by its name, or one that runs for a Deployment, a ReplicaSet or a Service.

use anyhow::{Context, Result, anyhow, bail};
use barge_client::{
    Client, ClientError, Selection,
    v1::{Deployment, Kind, LabelSelector, Pod, ReplicaSet, Service},
};
use barge_proto::kinds;

use crate::{
    names::{self, Named},
    output,
};

/// The name of the pod that `POD` or `KIND/NAME` means. A pod that is named by itself is not looked up.
pub async fn named(client: &Client, namespace: &str, what: &str) -> Result<String> {
    if !what.contains('/') {
        return Ok(what.to_owned());
    }
    let words = [what.to_owned()];
    let named = names::one(&words)?;
    if named.kind.kind == Kind::Pod {
        return Ok(named.name.to_owned());
    }
    let labels = labels(client, namespace, named).await?;
    let pod = running(client, namespace, &labels).await?;
    pod.and_then(|pod| pod.metadata)
        .map(|metadata| metadata.name)
        .with_context(|| none_runs(named, namespace, &labels))
}

pub fn none_runs(named: Named<'_>, namespace: &str, labels: &str) -> String {
    format!(
        "no pod of {} \"{}\" runs: `barge get pods -n {namespace} -l \"{labels}\"` shows those there are",
        named.kind.singular, named.name
    )
}

/// The pods that belong to the object with this uid.
pub async fn of(client: &Client, namespace: &str, owner_uid: &str) -> Result<Vec<Pod>> {
    let selection = Selection {
        owner_uid: owner_uid.to_owned(),
        ..Selection::of(Kind::Pod, namespace)
    };
    let found = client.list(&selection).await?.objects.into_iter();
    Ok(found.filter_map(|it| Pod::try_from(it).ok()).collect())
}

/// The labels of the pods of a Deployment, a ReplicaSet or a Service.
async fn labels(client: &Client, namespace: &str, named: Named<'_>) -> Result<String> {
    let kind = named.kind.kind;
    if !matches!(kind, Kind::Deployment | Kind::ReplicaSet | Kind::Service) {
        bail!(
            "a {} has no pods; deployments, replicasets and services have, such as deployment/web",
            named.kind.singular
        );
    }
    let Some(object) = client.find(kind, namespace, named.name).await? else {
        return Err(names::not_found(client, named, namespace).await);
    };
    let other = |_| anyhow!("the manager answered with another kind");
    let selector = |it: Option<LabelSelector>| it.map(|it| output::selector(Some(&it)));
    let labels = match kind {
        Kind::Service => of_service(&Service::try_from(object).map_err(other)?),
        Kind::ReplicaSet => {
            let spec = ReplicaSet::try_from(object).map_err(other)?.spec;
            selector(spec.and_then(|spec| spec.selector))
        }
        _ => {
            let spec = Deployment::try_from(object).map_err(other)?.spec;
            selector(spec.and_then(|spec| spec.selector))
        }
    };
    labels.with_context(|| {
        format!(
            "{} \"{}\" has no selector, and so no pods",
            named.kind.singular, named.name
        )
    })
}

/// As a selector; nothing when the Service has none.
pub fn of_service(service: &Service) -> Option<String> {
    let selector = &service.spec.as_ref()?.selector;
    let parts: Vec<_> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// A pod with these labels that runs: one that is ready, for preference, the first by name.
pub async fn running(client: &Client, namespace: &str, labels: &str) -> Result<Option<Pod>> {
    let selection = Selection {
        labels: labels.to_owned(),
        ..Selection::of(Kind::Pod, namespace)
    };
    let listing = client.list(&selection).await?;
    let pods = listing.objects.into_iter();
    Ok(chosen(pods.filter_map(|pod| Pod::try_from(pod).ok())))
}

fn chosen(pods: impl Iterator<Item = Pod>) -> Option<Pod> {
    let name = |pod: &Pod| pod.metadata.as_ref().map(|it| it.name.clone());
    pods.filter(runs)
        .min_by_key(|pod| (!is_ready(pod), name(pod)))
}

fn runs(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let ending = pod
        .metadata
        .as_ref()
        .is_none_or(|it| it.deletion_timestamp.is_some());
    !ending && status.is_some_and(|it| it.phase == "Running" && it.reason != "NodeLost")
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_some_and(|status| {
        let mut conditions = status.conditions.iter();
        conditions.any(|it| it.r#type == "Ready" && it.status == "True")
    })
}

/// What an error about a pod means to a person: a pod that is not there, with names like it, or the error itself.
pub async fn explained(
    client: &Client,
    namespace: &str,
    pod: &str,
    error: ClientError,
) -> anyhow::Error {
    if error.is_not_found()
        && matches!(client.find(Kind::Pod, namespace, pod).await, Ok(None))
        && let Ok(kind) = kinds::by_name("pod")
    {
        return names::not_found(client, Named { kind, name: pod }, namespace).await;
    }
    anyhow::Error::new(error).context(format!("pod {pod}"))
}

#[cfg(test)]
mod tests {
    use barge_client::v1::{Condition, ObjectMeta, PodStatus, ServiceSpec, Time};

    use super::*;

    fn pod(name: &str, phase: &str, ready: bool) -> Pod {
        let condition = Condition {
            r#type: "Ready".into(),
            status: if ready { "True" } else { "False" }.into(),
            ..Condition::default()
        };
        Pod {
            metadata: Some(ObjectMeta {
                name: name.into(),
                ..ObjectMeta::default()
            }),
            status: Some(PodStatus {
                phase: phase.into(),
                conditions: vec![condition],
                ..PodStatus::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn a_ready_pod_is_chosen_and_none_that_ends() {
        let name = |pods: Vec<Pod>| chosen(pods.into_iter()).map(|pod| pod.metadata.unwrap().name);
        let mut ending = pod("a", "Running", true);
        ending.metadata.as_mut().unwrap().deletion_timestamp = Some(Time::default());
        let mut lost = pod("b", "Running", true);
        lost.status.as_mut().unwrap().reason = "NodeLost".into();
        let pods = vec![
            ending,
            lost,
            pod("c", "Pending", false),
            pod("d", "Running", false),
            pod("f", "Running", true),
            pod("e", "Running", true),
        ];
        assert_eq!(name(pods[..4].to_vec()).as_deref(), Some("d"));
        assert_eq!(name(pods.clone()).as_deref(), Some("e"));
        assert_eq!(name(pods[..3].to_vec()), None);
    }

    #[test]
    fn a_service_without_a_selector_has_no_pods() {
        let mut service = Service {
            spec: Some(ServiceSpec::default()),
            ..Service::default()
        };
        assert_eq!(of_service(&service), None);
        let spec = service.spec.as_mut().unwrap();
        spec.selector = [("app", "web"), ("tier", "x")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        assert_eq!(of_service(&service).as_deref(), Some("app=web,tier=x"));
    }
}
