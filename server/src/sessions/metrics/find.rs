//! The pods and nodes that a question is about.

use std::{collections::BTreeMap, sync::Arc};

use barge_proto::{
    selector::Selector,
    v1::{Node, NodeMetricsRequest, PodMetricsRequest, PodRecord, Quantity},
};
use barge_state::{Kind as _, PackedPod, State};
use tokio::task::spawn_blocking;

use super::Warnings;
use crate::{calls::names, error::ApiError, storage::lock::By, store::Store};

/// Pods in one answer.
pub const MOST_PODS: usize = 5_000;
/// Nodes in one answer.
pub const MOST_NODES: usize = 5_000;
/// Pods that are looked at while nothing is applied: about a millisecond of work.
const SLICE: usize = 1_000;

/// A pod that a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node_uid: String,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundNode {
    pub name: String,
    pub uid: String,
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The pods that are meant, are bound to a node and have not finished; by namespace and name. No more than [`MOST_PODS`].
///
/// # Errors
/// NOT_FOUND for a name; INVALID for a selector that is none.
pub async fn pods(
    store: &Store,
    request: PodMetricsRequest,
    warnings: &mut Warnings,
) -> Result<Vec<FoundPod>, ApiError> {
    let selector = names::selector(&request.label_selector)?;
    if !request.name.is_empty() {
        return store.read(|state| one(state, &request, warnings));
    }
    let store = store.clone();
    let namespace = request.namespace;
    // It takes a while in a large cluster.
    let look = spawn_blocking(move || many(&store, &namespace, &selector));
    let mut found = look
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    if found.len() > MOST_PODS {
        found.truncate(MOST_PODS);
        warnings.say(format!(
            "only the first {MOST_PODS} pods are shown: choose a namespace or a selector"
        ));
    }
    Ok(found)
}

fn one(
    state: &State,
    request: &PodMetricsRequest,
    warnings: &mut Warnings,
) -> Result<Vec<FoundPod>, ApiError> {
    let (namespace, name) = (request.namespace.as_str(), request.name.as_str());
    if namespace.is_empty() {
        return Err(ApiError::invalid("namespace", "is required with a name"));
    }
    if !request.label_selector.is_empty() {
        return Err(ApiError::invalid(
            "label_selector",
            "goes not with a name: one of the two says which pods",
        ));
    }
    let pod = state
        .get::<PodRecord>(namespace, name)
        .ok_or_else(|| ApiError::NotFound(format!("pod {namespace}/{name} does not exist")))?;
    let found = found(pod);
    if found.is_none() {
        let why = match pod.is_bound() {
            true => "has finished: nothing of it runs",
            false => "is not bound to a node yet",
        };
        warnings.say(format!("pod {namespace}/{name} {why}"));
    }
    Ok(found.into_iter().collect())
}

fn many(store: &Store, namespace: &str, selector: &Selector) -> Vec<FoundPod> {
    let namespace = (!namespace.is_empty()).then_some(namespace);
    let mut all = Vec::new();
    let mut last = None::<Arc<PackedPod>>;
    loop {
        let looked = store.read_by(By::List, |state| {
            let after = last.as_ref().map(|it| (it.namespace(), it.name()));
            let slice = state.list_after::<PodRecord>(namespace, after).take(SLICE);
            let (mut looked, mut end) = (0, None);
            for pod in slice {
                (looked, end) = (looked + 1, Some(pod.clone()));
                let selected = selector.is_empty() || selector.matches(&state.labels(pod));
                all.extend(found(pod).filter(|_| selected));
            }
            last = end.or(last.take());
            looked
        });
        // One more than are shown tells that there are more.
        if looked < SLICE || all.len() > MOST_PODS {
            return all;
        }
        // A waiting `apply` gets the lock before the next slice.
        std::thread::yield_now();
    }
}

/// The pod, unless no node has it or it has finished.
fn found(pod: &PackedPod) -> Option<FoundPod> {
    let runs = pod.is_bound() && !matches!(pod.phase(), "Succeeded" | "Failed");
    runs.then(|| FoundPod {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        node_uid: pod.node_uid().to_owned(),
    })
}

/// The nodes that are meant, by name. No more than [`MOST_NODES`].
///
/// # Errors
/// NOT_FOUND for a name; INVALID for a selector that is none.
pub fn nodes(
    store: &Store,
    request: &NodeMetricsRequest,
    warnings: &mut Warnings,
) -> Result<Vec<FoundNode>, ApiError> {
    let selector = names::selector(&request.label_selector)?;
    let name = &request.name;
    if !name.is_empty() && !request.label_selector.is_empty() {
        return Err(ApiError::invalid(
            "label_selector",
            "goes not with a name: one of the two says which nodes",
        ));
    }
    let mut found: Vec<_> = store.read_by(By::List, |state| {
        let all: Box<dyn Iterator<Item = _>> = match name.is_empty() {
            true => Box::new(state.list::<Node>(None)),
            false => Box::new(state.get::<Node>("", name).into_iter()),
        };
        let selected = all.filter(|node| selector.matches(&node.meta().labels));
        selected.take(MOST_NODES + 1).map(|it| node(it)).collect()
    });
    if found.is_empty() && !name.is_empty() {
        return Err(ApiError::NotFound(format!("node {name} does not exist")));
    }
    if found.len() > MOST_NODES {
        found.truncate(MOST_NODES);
        warnings.say(format!(
            "only the first {MOST_NODES} nodes are shown: choose some with a selector"
        ));
    }
    Ok(found)
}

fn node(node: &Node) -> FoundNode {
    let status = node.status.as_ref();
    FoundNode {
        name: node.meta().name.clone(),
        uid: node.meta().uid.clone(),
        allocatable: status.map(|it| it.allocatable.clone()).unwrap_or_default(),
    }
}

/// The name of a node; its uid when it is not there any more.
pub fn node_name(state: &State, uid: &str) -> String {
    let node = state.by_uid::<Node>(uid);
    node.map_or_else(|| uid.to_owned(), |node| node.meta().name.clone())
}
