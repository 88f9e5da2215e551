//! The container that a stream is about.

use std::sync::Arc;

use barge_proto::v1::Pod;

use crate::{
    desired::Desired,
    pods::spec,
    runtime::{Container, ContainerState, Runtime},
};

/// The pod with this uid. The error is a sentence.
pub fn pod(desired: &Desired, uid: &str) -> Result<Arc<Pod>, String> {
    let pod = desired.pods.get(uid).cloned();
    pod.ok_or_else(|| "the pod is not on this node".to_owned())
}

/// "shop/web"
pub fn name_of(pod: &Pod) -> String {
    let meta = pod.metadata.as_ref();
    meta.map_or_else(String::new, |it| format!("{}/{}", it.namespace, it.name))
}

/// The name of the container that is meant: without a name, the only one of those that the pod is for.
pub fn container_name(pod: &Pod, wanted: &str) -> Result<String, String> {
    let names: Vec<_> = spec::all_containers(pod).map(|c| &c.name).collect();
    match (wanted, spec::containers(pod)) {
        ("", [only]) => Ok(only.name.clone()),
        ("", _) => Err(format!(
            "the pod has several containers, choose one of {names:?}"
        )),
        (wanted, _) if names.iter().any(|name| *name == wanted) => Ok(wanted.to_owned()),
        (wanted, _) => Err(format!(
            "the pod has no container \"{wanted}\", only {names:?}"
        )),
    }
}

/// The container that is meant, which runs: one of the pod's or of its init containers. The error is a sentence.
pub async fn container(
    runtime: &dyn Runtime,
    pod: &Pod,
    pod_uid: &str,
    wanted: &str,
) -> Result<Container, String> {
    let name = container_name(pod, wanted)?;
    let inventory = runtime.list().await.map_err(|error| error.message)?;
    let all = inventory.containers.into_iter();
    let newest = all
        .filter(|it| it.pod_uid == pod_uid && it.name == name)
        .max_by_key(|it| it.attempt);
    let why = match newest.as_ref().map(|it| &it.state) {
        Some(ContainerState::Running { .. }) => String::new(),
        None | Some(ContainerState::Created) => "it has not been started yet".to_owned(),
        Some(ContainerState::Exited { code, .. }) => format!("it ended with exit code {code}"),
        Some(ContainerState::Lost) => "it ended, with an exit code that nobody saw".to_owned(),
    };
    match newest.filter(|_| why.is_empty()) {
        Some(container) => Ok(container),
        None => Err(format!(
            "container {name} of pod {} is not running: {why}",
            name_of(pod)
        )),
    }
}
