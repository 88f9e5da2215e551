//! What an agent is told: everything at first, then what changed.

use std::collections::{BTreeMap, BTreeSet};

use barge_proto::v1::{
    Assignment, DeletedPod, Endpoints, Node, Peer, Pod, PodRecord, PodTombstone, Service,
};
use barge_state::{Changed, Kind, PackedPod, State, Stored};

/// The full set of what a node should run and know.
#[must_use]
pub fn full(state: &State, node_uid: &str) -> Assignment {
    Assignment {
        revision: state.revision(),
        full: true,
        pods: state.pods_on(node_uid).map(|pod| state.pod(pod)).collect(),
        services: state
            .list::<Service>(None)
            .map(|s| Service::clone(s))
            .collect(),
        endpoints: state
            .list::<Endpoints>(None)
            .map(|e| Endpoints::clone(e))
            .collect(),
        peers: state
            .list::<Node>(None)
            .filter(|node| node.uid() != node_uid)
            .map(|node| peer(node))
            .collect(),
        tombstones: state.tombstones_on(node_uid).map(|t| deleted(t)).collect(),
        ..Assignment::default()
    }
}

/// What changed for a node. Pods are sent as they are in `state`, which may be newer than the change: then they are sent
/// again with the later one, and nothing is lost.
#[derive(Debug, Default)]
pub struct Difference {
    /// What to send; absent when nothing concerns the node.
    pub assignment: Option<Assignment>,
    /// The node itself was deleted: the session ends.
    pub node_gone: bool,
}

/// Puts together what some changes mean to a node.
#[must_use]
pub fn difference(state: &State, changes: &[Changed], node_uid: &str) -> Difference {
    let mut sets = Sets::default();
    let mut node_gone = false;
    let mut revision = 0;
    for change in changes {
        revision = revision.max(change.revision);
        match change.record() {
            Some(Stored::Pod(_)) => pod(state, change, node_uid, &mut sets),
            Some(Stored::Service(_)) => service(change, &mut sets),
            Some(Stored::Endpoints(_)) => endpoints(change, &mut sets),
            Some(Stored::Node(node)) if node.uid() == node_uid => {
                node_gone |= change.after.is_none();
            }
            Some(Stored::Node(_)) => other_node(change, &mut sets),
            _ => {}
        }
    }
    Difference {
        assignment: sets.into_assignment(revision),
        node_gone,
    }
}

/// The last word on each object, by uid; absent when it is not (any more) for the node.
#[derive(Default)]
struct Sets {
    pods: BTreeMap<String, Option<Pod>>,
    services: BTreeMap<String, Option<Service>>,
    endpoints: BTreeMap<String, Option<Endpoints>>,
    peers: BTreeMap<String, Option<Peer>>,
}

impl Sets {
    fn into_assignment(self, revision: u64) -> Option<Assignment> {
        let empty = self.pods.is_empty()
            && self.services.is_empty()
            && self.endpoints.is_empty()
            && self.peers.is_empty();
        if empty {
            return None;
        }
        let (pods, removed_pod_uids) = split(self.pods);
        let (services, removed_service_uids) = split(self.services);
        let (endpoints, removed_endpoints_uids) = split(self.endpoints);
        let (peers, removed_peer_uids) = split(self.peers);
        Some(Assignment {
            revision,
            full: false,
            pods,
            removed_pod_uids,
            services,
            removed_service_uids,
            endpoints,
            removed_endpoints_uids,
            peers,
            removed_peer_uids,
            // A pod that is removed here was removed from the state: a difference has its deletions in `removed_pod_uids`.
            tombstones: Vec::new(),
        })
    }
}

fn split<T>(all: BTreeMap<String, Option<T>>) -> (Vec<T>, Vec<String>) {
    let mut there = Vec::new();
    let mut gone = BTreeSet::new();
    for (uid, value) in all {
        match value {
            Some(value) => there.push(value),
            None => {
                gone.insert(uid);
            }
        }
    }
    (there, gone.into_iter().collect())
}

fn pod(state: &State, change: &Changed, node_uid: &str, sets: &mut Sets) {
    let (before, after) = change.of::<PodRecord>();
    let here = |pod: &PackedPod| pod.node_uid() == node_uid;
    let before = before.filter(|pod| here(pod));
    let after = after.filter(|pod| here(pod));
    if before.is_none() && after.is_none() {
        return;
    }
    // What the agent itself reported is no news to it.
    if let (Some(before), Some(after)) = (before, after)
        && same_orders(before, after)
    {
        return;
    }
    let now = after
        .and_then(|pod| state.by_uid::<PodRecord>(pod.uid()))
        .filter(|pod| here(pod))
        .map(|pod| state.pod(pod));
    sets.pods.insert(change.uid().to_owned(), now);
}

fn deleted(tombstone: &PodTombstone) -> DeletedPod {
    DeletedPod {
        uid: tombstone.uid().to_owned(),
        namespace: tombstone.pod_namespace.clone(),
        name: tombstone.pod_name.clone(),
        revision: tombstone.revision(),
    }
}

fn same_orders(before: &PackedPod, after: &PackedPod) -> bool {
    before.template_uid() == after.template_uid() && before.deletion() == after.deletion()
}

fn service(change: &Changed, sets: &mut Sets) {
    let (before, after) = change.of::<Service>();
    if let (Some(before), Some(after)) = (before, after)
        && before.spec == after.spec
        && before.status == after.status
    {
        return;
    }
    sets.services.insert(
        change.uid().to_owned(),
        after.map(|service| Service::clone(service)),
    );
}

fn endpoints(change: &Changed, sets: &mut Sets) {
    let (_, after) = change.of::<Endpoints>();
    sets.endpoints.insert(
        change.uid().to_owned(),
        after.map(|endpoints| Endpoints::clone(endpoints)),
    );
}

fn other_node(change: &Changed, sets: &mut Sets) {
    let (before, after) = change.of::<Node>();
    let (before, after) = (before.map(|n| peer(n)), after.map(|n| peer(n)));
    if before != after {
        sets.peers.insert(change.uid().to_owned(), after);
    }
}

fn peer(node: &Node) -> Peer {
    let address = node
        .status
        .iter()
        .flat_map(|status| &status.addresses)
        .find(|address| address.r#type == "InternalIP");
    Peer {
        node_uid: node.uid().to_owned(),
        name: node.meta().name.clone(),
        address: address.map(|a| a.address.clone()).unwrap_or_default(),
        pod_cidr: node
            .spec
            .as_ref()
            .map(|spec| spec.pod_cidr.clone())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
