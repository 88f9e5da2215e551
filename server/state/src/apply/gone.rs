//! Deletions of pods, from their record to the node's confirmation.
//!
//! The record of a bound pod may be removed before its node has ended the pod: the node was lost, or a client forces the deletion. Then
//! `apply` writes a tombstone, and the agent ends the pod when it hears of the tombstone, however late. A pod without record and
//! tombstone was not deleted: the state may be older than the pod.

use std::sync::Arc;

use barge_proto::v1::{Node, ObjectMeta, PodGone, PodTombstone};

use super::{
    remove, slices,
    walk::{Step, walk},
    work::Work,
};
use crate::{
    deletions::Cascade,
    kind::{Kind, Stored},
    packed::PackedPod,
};

/// A node confirms that nothing of a pod is left on it.
pub fn gone(work: &mut Work<'_>, gone: &PodGone) {
    let tombstone = work.tables.pod_tombstones.by_uid(&gone.uid).cloned();
    let is_its =
        |found: &Arc<PodTombstone>| !found.node_uid.is_empty() && found.node_uid == gone.node_uid;
    if let Some(tombstone) = tombstone.filter(is_its) {
        work.delete(Stored::PodTombstone(tombstone));
    }
    let pod = work.tables.pods.by_uid(&gone.uid).cloned();
    if let Some(pod) = pod.filter(|pod| pod.is_bound() && pod.node_uid() == gone.node_uid) {
        let pod = Stored::Pod(pod);
        if work.sliced && slices::is_large(work, &pod) {
            // Its record goes with the last slice, and leaves a tombstone: the node confirms that, too, when it hears of it.
            slices::begin(work, pod, Cascade::Background);
            return;
        }
        work.delete_confirmed(pod);
        let left = remove::orphans(work, &gone.uid);
        walk(work, Step::Reach(left));
    }
}

/// What stays of a pod whose record was just removed: a tombstone, as long as there is a node to confirm the end.
pub fn bury(work: &mut Work<'_>, pod: &PackedPod) {
    let node_uid = pod.node_uid();
    if work.tables.nodes.by_uid(node_uid).is_none() {
        return;
    }
    make_room(work, node_uid, work.limits.tombstones_per_node);
    let tombstone = PodTombstone {
        metadata: Some(ObjectMeta {
            uid: pod.uid().to_owned(),
            name: pod.uid().to_owned(),
            creation_timestamp: Some(work.now),
            ..ObjectMeta::default()
        }),
        node_uid: node_uid.to_owned(),
        pod_namespace: pod.namespace().to_owned(),
        pod_name: pod.name().to_owned(),
        deleted: Some(work.now),
    };
    let before = work.tables.pod_tombstones.by_uid(pod.uid()).cloned();
    work.write(before, tombstone);
}

/// What stays of a node whose record was just removed: the record of that. Its agent ends all pods that were bound to the node when it hears of it,
/// however late. Nobody confirms it: the agent belongs to the cluster no longer.
pub fn bury_node(work: &mut Work<'_>, node: &Node) {
    make_room(work, "", work.limits.node_tombstones);
    let uid = Kind::uid(node).to_owned();
    let tombstone = PodTombstone {
        metadata: Some(ObjectMeta {
            uid: uid.clone(),
            name: uid.clone(),
            creation_timestamp: Some(work.now),
            ..ObjectMeta::default()
        }),
        node_uid: String::new(),
        pod_namespace: String::new(),
        pod_name: node.meta().name.clone(),
        deleted: Some(work.now),
    };
    let before = work.tables.pod_tombstones.by_uid(&uid).cloned();
    work.write(before, tombstone);
}

/// Evicts the oldest tombstones of a node, or those of nodes, so that there is room for one of `most`.
fn make_room(work: &mut Work<'_>, node_uid: &str, most: usize) {
    while work.tables.tombstones_by_node.count(node_uid) >= most.max(1) {
        let all = work.tables.tombstones_by_node.get(node_uid);
        let oldest = all.min_by_key(|tombstone| tombstone.revision()).cloned();
        let Some(oldest) = oldest else {
            break;
        };
        work.delete(Stored::PodTombstone(oldest));
    }
}

/// Removes the tombstones of a node that was just removed: no agent is left to confirm them.
pub fn forget(work: &mut Work<'_>, node_uid: &str) {
    let tombstones = work.tables.tombstones_by_node.get(node_uid);
    let tombstones: Vec<_> = tombstones.cloned().collect();
    for tombstone in tombstones {
        work.delete(Stored::PodTombstone(tombstone));
    }
}
