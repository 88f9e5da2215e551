//! Pods that are lost with their node, and until when their records are kept.

use crate::controllers::{nodes::remove_lost, plan::Plan, stamp::nanos};
use barge_state::PackedPod;
use std::{sync::Arc, time::Duration};

/// Removes lost pods whose place is taken: as many are kept as ready ones are missing, the newest. Should the node come back
/// before that, what is kept goes on, and those that were to replace it are too many. At most `room` are removed now.
pub fn remove_replaced(
    owned: &[&Arc<PackedPod>],
    replicas: usize,
    ready: usize,
    room: usize,
    plan: &mut Plan,
) {
    let mut lost: Vec<_> = owned.iter().filter(|pod| pod.is_lost()).collect();
    let replaced = lost.len().saturating_sub(replicas.saturating_sub(ready));
    if replaced == 0 {
        return;
    }
    lost.sort_by_key(|pod| {
        (
            pod.created().as_ref().map_or(0, nanos),
            pod.uid().to_owned(),
        )
    });
    for pod in lost.into_iter().take(replaced.min(room)) {
        // Its node may be back by now.
        plan.draft.unchanged(&pod.record());
        remove_lost(pod, "NodeLost", plan);
    }
    if replaced > room {
        plan.look_again(Duration::ZERO);
    }
}
