//! Which pods go first when a Deployment has too many.

use crate::controllers::{pods, stamp::nanos};
use barge_proto::v1::Time;
use barge_state::PackedPod;
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// Sorts pods of one revision so that those come first that are missed least, by Kubernetes' rules:
/// not bound, pending, of unknown phase, not ready, not yet available, sharing a node with most
/// others of this revision, ready for the shortest time, restarted most often, newest.
pub fn least_missed_first(pods: &mut [&Arc<PackedPod>], min_ready_seconds: i32, now: &Time) {
    let mut neighbours = BTreeMap::<&str, usize>::new();
    for pod in pods.iter() {
        *neighbours.entry(pod.node_uid()).or_default() += 1;
    }
    let neighbours: BTreeMap<String, usize> = neighbours
        .into_iter()
        .map(|(node, count)| (node.to_owned(), count))
        .collect();
    pods.sort_by_cached_key(|pod| {
        let available = pods::available_in(pod, min_ready_seconds, now);
        (
            pod.is_bound(),
            match pods::phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            available.is_some(),
            available.is_some_and(|wait| wait.is_zero()),
            Reverse(neighbours.get(pod.node_uid()).copied().unwrap_or(0)),
            Reverse(pods::ready_since(pod).map_or(i128::MAX, |since| nanos(&since))),
            Reverse(pod.restarts()),
            Reverse(pod.created().as_ref().map_or(0, nanos)),
            // So that every manager would choose the same.
            pod.uid().to_owned(),
        )
    });
}
