//! Whether an object is as it should be: what `apply --wait` waits for.

use std::collections::BTreeMap;

use anyhow::anyhow;
use barge_client::{
    Client,
    v1::{Object, Pod, PodDisruptionBudget, ReplicaSet, Service, object},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    follow::{self, Group},
    output::pod_status,
    progress::Progress,
    rollout::{self, Rollout},
};

/// Judges an object of any kind by its status. Kinds that run nothing are as they should be once they are applied.
pub fn judge(object: &Object) -> Rollout {
    match &object.kind {
        Some(object::Kind::Deployment(it)) => rollout::judge(it),
        Some(object::Kind::ReplicaSet(it)) => replica_set(it),
        Some(object::Kind::Pod(it)) => pod(it),
        Some(object::Kind::Service(it)) => service(it),
        Some(object::Kind::PodDisruptionBudget(it)) => budget(it),
        _ => Rollout::Complete,
    }
}

/// As many pods as are wanted, all available.
fn replica_set(set: &ReplicaSet) -> Rollout {
    let metadata = set.metadata.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let wanted = set.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1);
    let name = &metadata.name;
    if status.observed_generation < metadata.generation {
        let text = format!("replicaset {name}: the change has not been seen yet");
        return Rollout::Underway(text);
    }
    match (status.replicas, status.available_replicas) == (wanted, wanted) {
        true => Rollout::Complete,
        false => Rollout::Underway(format!(
            "replicaset {name}: {} of {wanted} replicas are available",
            status.available_replicas
        )),
    }
}

/// Ready, or ended well.
fn pod(pod: &Pod) -> Rollout {
    let name = pod.metadata.as_ref().map_or("", |it| &it.name);
    let status = pod.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|it| it.r#type == "Ready");
    match status.phase.as_str() {
        "Succeeded" => Rollout::Complete,
        "Failed" => Rollout::Failed(format!("pod {name} failed: {}", pod_status(pod))),
        _ if ready.is_some_and(|it| it.status == "True") => Rollout::Complete,
        _ => Rollout::Underway(format!("pod {name} is not ready: {}", pod_status(pod))),
    }
}

/// Reachable as its type says.
fn service(service: &Service) -> Rollout {
    let name = service.metadata.as_ref().map_or("", |it| &it.name);
    let spec = service.spec.as_ref();
    let balanced = spec.is_some_and(|spec| spec.r#type == "LoadBalancer");
    let balancer = service
        .status
        .as_ref()
        .and_then(|it| it.load_balancer.as_ref());
    match balanced && balancer.is_none_or(|it| it.ingress.is_empty()) {
        true => Rollout::Underway(format!("service {name} has no external address yet")),
        false => Rollout::Complete,
    }
}

/// Counted by the leader.
fn budget(budget: &PodDisruptionBudget) -> Rollout {
    let metadata = budget.metadata.clone().unwrap_or_default();
    let observed = budget
        .status
        .as_ref()
        .map_or(0, |it| it.observed_generation);
    match observed < metadata.generation {
        true => Rollout::Underway(format!(
            "poddisruptionbudget {}: the change has not been seen yet",
            metadata.name
        )),
        false => Rollout::Complete,
    }
}

/// Waits until all objects are as they should be; answers with an error for each that is not.
pub async fn wait(client: &Client, objects: &[Object], deadline: Instant) -> Vec<anyhow::Error> {
    let mut failures = Vec::new();
    let open = objects
        .iter()
        .filter(|it| judge(it) != Rollout::Complete || is_deployment(it));
    let (deployments, others): (Vec<_>, Vec<_>) = open.partition(|it| is_deployment(it));
    // Rollouts tell of their pods, too.
    for object in deployments {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(error) = rollout::wait(client, object.namespace(), object.name(), left).await {
            failures.push(error);
        }
    }
    let named = others
        .iter()
        .map(|it| (it.kind(), it.namespace(), it.name()));
    let begun = Instant::now();
    for mut group in follow::groups(named) {
        failures.extend(settle(client, &mut group, (begun, deadline)).await);
    }
    failures
}

fn is_deployment(object: &Object) -> bool {
    matches!(object.kind, Some(object::Kind::Deployment(_)))
}

async fn settle(
    client: &Client,
    group: &mut Group,
    (begun, deadline): (Instant, Instant),
) -> Vec<anyhow::Error> {
    let mut progress = Progress::new();
    let mut failures = Vec::new();
    let mut underway: BTreeMap<String, String> = BTreeMap::new();
    let singular = group.kind.info().map_or("object", |kind| &*kind.singular);
    let judged = group.follow(client, false, |name, object| {
        underway.remove(name);
        match object.map(judge) {
            Some(Rollout::Complete) => return Ok(true),
            Some(Rollout::Underway(text)) => {
                progress.say(&text);
                underway.insert(name.to_owned(), text);
                return Ok(false);
            }
            Some(Rollout::Failed(text)) => failures.push(anyhow!(text)),
            None => failures.push(anyhow!("{singular} \"{name}\" was deleted meanwhile")),
        }
        Ok(true)
    });
    let waited = timeout_at(deadline, judged).await;
    progress.finish(None);
    match waited {
        Ok(Ok(())) => {}
        Ok(Err(error)) => failures.push(error),
        Err(_) => {
            let seconds = deadline.saturating_duration_since(begun).as_secs_f64();
            failures.extend(late(group, &underway, seconds));
        }
    }
    failures
}

fn late(group: &Group, underway: &BTreeMap<String, String>, seconds: f64) -> Vec<anyhow::Error> {
    let singular = group.kind.info().map_or("object", |kind| &*kind.singular);
    let late = |name: &String| {
        let state = underway.get(name).map(|text| format!(": {text}"));
        anyhow!(
            "{singular} \"{name}\" is not as it should be after {seconds:.0} s{}; `barge describe {singular} {name}` says more",
            state.unwrap_or_default()
        )
    };
    group.names.iter().map(late).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::{
        Condition, ConfigMap, LoadBalancerIngress, LoadBalancerStatus, ObjectMeta, PodStatus,
        ReplicaSetSpec, ReplicaSetStatus, ServiceSpec, ServiceStatus,
    };

    fn pod_with(phase: &str, ready: &str) -> Object {
        Pod {
            status: Some(PodStatus {
                phase: phase.into(),
                conditions: vec![Condition {
                    r#type: "Ready".into(),
                    status: ready.into(),
                    ..Condition::default()
                }],
                ..PodStatus::default()
            }),
            ..Pod::default()
        }
        .into()
    }

    #[test]
    fn pods_are_ready_or_have_ended_well() {
        assert_eq!(judge(&pod_with("Running", "True")), Rollout::Complete);
        assert_eq!(judge(&pod_with("Succeeded", "False")), Rollout::Complete);
        assert!(matches!(
            judge(&pod_with("Running", "False")),
            Rollout::Underway(_)
        ));
        assert!(matches!(
            judge(&pod_with("Failed", "False")),
            Rollout::Failed(_)
        ));
    }

    #[test]
    fn a_replica_set_has_all_its_pods() {
        let set = |observed, replicas, available| {
            Object::from(ReplicaSet {
                metadata: Some(ObjectMeta {
                    generation: 2,
                    ..ObjectMeta::default()
                }),
                spec: Some(ReplicaSetSpec {
                    replicas: Some(2),
                    ..ReplicaSetSpec::default()
                }),
                status: Some(ReplicaSetStatus {
                    observed_generation: observed,
                    replicas,
                    available_replicas: available,
                    ..ReplicaSetStatus::default()
                }),
                ..ReplicaSet::default()
            })
        };
        assert_eq!(judge(&set(2, 2, 2)), Rollout::Complete);
        for other in [set(1, 2, 2), set(2, 2, 1), set(2, 3, 2)] {
            assert!(matches!(judge(&other), Rollout::Underway(_)));
        }
    }

    #[test]
    fn a_load_balancer_has_an_address() {
        let mut service = Service {
            spec: Some(ServiceSpec {
                r#type: "LoadBalancer".into(),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        assert!(matches!(
            judge(&service.clone().into()),
            Rollout::Underway(_)
        ));
        service.status = Some(ServiceStatus {
            load_balancer: Some(LoadBalancerStatus {
                ingress: vec![LoadBalancerIngress::default()],
            }),
        });
        assert_eq!(judge(&service.into()), Rollout::Complete);
        assert_eq!(judge(&Service::default().into()), Rollout::Complete);
        assert_eq!(judge(&ConfigMap::default().into()), Rollout::Complete);
    }
}
