//! The streams that are meant: of which pods and containers.

use anyhow::{Result, bail, ensure};
use barge_client::{
    Client, Selection,
    v1::{Deployment, Kind, Pod},
};
use barge_proto::kinds;

use super::Logs;
use crate::{
    names::{self, Named},
    output::pod_status,
    pods, rollout,
};

/// A stream to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub pod: String,
    /// Empty where the pod has one only.
    pub container: String,
}

impl Source {
    pub fn prefix(&self) -> String {
        match self.container.as_str() {
            "" => format!("[pod/{}] ", self.pod),
            container => format!("[pod/{}/{container}] ", self.pod),
        }
    }
}

/// The streams to read, in order.
pub async fn of(client: &Client, logs: &Logs, namespace: &str) -> Result<Vec<Source>> {
    let pods = pods(client, logs, namespace).await?;
    sources(client, logs, namespace, pods).await
}

/// The pods whose output is read, by name; of a selector those that there are now.
async fn pods(client: &Client, logs: &Logs, namespace: &str) -> Result<Vec<String>> {
    let Some(selector) = &logs.selector else {
        return named_pods(client, logs, namespace).await;
    };
    let selection = Selection {
        labels: selector.clone(),
        ..Selection::of(Kind::Pod, namespace)
    };
    let found = client.list(&selection).await?.objects;
    ensure!(
        !found.is_empty(),
        "no pods with labels \"{selector}\" in namespace {namespace}: `barge get pods --show-labels` shows those there are"
    );
    Ok(found.iter().map(|pod| pod.name().to_owned()).collect())
}

async fn named_pods(client: &Client, logs: &Logs, namespace: &str) -> Result<Vec<String>> {
    let named = match &logs.what[..] {
        [pod] if !pod.contains('/') => return Ok(vec![pod.clone()]),
        words => names::one(words)?,
    };
    match named.kind.kind {
        Kind::Pod => Ok(vec![named.name.to_owned()]),
        Kind::Deployment => {
            let Some(object) = client.find(Kind::Deployment, namespace, named.name).await? else {
                return Err(names::not_found(client, named, namespace).await);
            };
            let deployment = Deployment::try_from(object)
                .map_err(|_| anyhow::anyhow!("the manager answered with another kind"))?;
            chosen(logs, named, rollout::pods(client, &deployment).await?)
        }
        Kind::ReplicaSet => {
            let Some(object) = client.find(Kind::ReplicaSet, namespace, named.name).await? else {
                return Err(names::not_found(client, named, namespace).await);
            };
            let pods = pods::of(client, namespace, object.uid()).await?;
            chosen(logs, named, pods)
        }
        _ => bail!(
            "a {} has no logs; pods, deployments and replicasets have",
            named.kind.singular
        ),
    }
}

/// One of an object's pods, or all if they are asked for.
fn chosen(logs: &Logs, named: Named<'_>, mut pods: Vec<Pod>) -> Result<Vec<String>> {
    // One that runs, for preference.
    pods.sort_by_key(|pod| pod_status(pod) != "Running");
    let mut names: Vec<_> = pods.iter().filter_map(name).collect();
    if names.is_empty() {
        bail!("{} \"{}\" has no pods", named.kind.singular, named.name);
    }
    if names.len() > 1 && !logs.all_pods {
        eprintln!(
            "{} pods, these are the logs of {}; --all-pods shows all",
            names.len(),
            names[0]
        );
        names.truncate(1);
    }
    Ok(names)
}

fn name(pod: &Pod) -> Option<String> {
    pod.metadata.as_ref().map(|metadata| metadata.name.clone())
}

/// The streams of the pods: one each, or one for each of their containers.
async fn sources(
    client: &Client,
    logs: &Logs,
    namespace: &str,
    pods: Vec<String>,
) -> Result<Vec<Source>> {
    if !logs.all_containers {
        let source = |pod| Source {
            pod,
            container: logs.container.clone(),
        };
        return Ok(pods.into_iter().map(source).collect());
    }
    let mut sources = Vec::new();
    for pod in pods {
        let Some(object) = client.find(Kind::Pod, namespace, &pod).await? else {
            return Err(missing(client, namespace, &pod).await);
        };
        let spec = Pod::try_from(object).ok().and_then(|it| it.spec);
        let spec = spec.unwrap_or_default();
        let containers = spec.init_containers.iter().chain(&spec.containers);
        sources.extend(containers.map(|container| Source {
            pod: pod.clone(),
            container: container.name.clone(),
        }));
    }
    Ok(sources)
}

pub async fn missing(client: &Client, namespace: &str, name: &str) -> anyhow::Error {
    match kinds::by_name("pod") {
        Ok(kind) => names::not_found(client, Named { kind, name }, namespace).await,
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_names_pod_and_container() {
        let source = |container: &str| Source {
            pod: "web-1".into(),
            container: container.into(),
        };
        assert_eq!(source("nginx").prefix(), "[pod/web-1/nginx] ");
        assert_eq!(source("").prefix(), "[pod/web-1] ");
    }
}
