//! Deletions of pods, from their record to the node's confirmation.
//!
//! The record of a bound pod may be removed before its node has ended the pod: the node was lost, or a client forces the deletion. Then
//! `apply` writes a tombstone, and the agent ends the pod when it hears of the tombstone, however late. A pod without record and
//! tombstone was not deleted: the state may be older than the pod.

use barge_proto::v1::{ObjectMeta, PodGone, PodTombstone};

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
    if let Some(tombstone) = tombstone.filter(|found| found.node_uid == gone.node_uid) {
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
    while work.tables.tombstones_by_node.count(node_uid) >= work.limits.tombstones_per_node.max(1) {
        let on_node = work.tables.tombstones_by_node.get(node_uid);
        let Some(oldest) = on_node
            .min_by_key(|tombstone| tombstone.revision())
            .cloned()
        else {
            break;
        };
        work.delete(Stored::PodTombstone(oldest));
    }
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

/// Removes the tombstones of a node that was just removed: no agent is left to confirm them.
pub fn forget(work: &mut Work<'_>, node_uid: &str) {
    let tombstones = work.tables.tombstones_by_node.get(node_uid);
    let tombstones: Vec<_> = tombstones.cloned().collect();
    for tombstone in tombstones {
        work.delete(Stored::PodTombstone(tombstone));
    }
}
