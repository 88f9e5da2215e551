//! Which pods go first when a Deployment has too many.

use crate::controllers::{pods, stamp::nanos};
use barge_proto::v1::Time;
use barge_state::PackedPod;
use std::{cmp::Reverse, collections::HashMap, sync::Arc};

/// How many pods to end.
#[derive(Debug, Clone, Copy)]
pub struct Number {
    /// Of those that are not available.
    pub unavailable: usize,
    /// Of those that are.
    pub available: usize,
}

/// Picks pods of one revision that are missed least, in this order, by Kubernetes' rules:
/// not bound, pending, of unknown phase, not ready, not yet available, sharing a node with most
/// others of this revision, ready for the shortest time, restarted most often, newest.
///
/// Only as many are sorted as are picked: a Deployment may have 100,000 pods and ends them in batches.
pub fn least_missed<'a>(
    group: &[&'a Arc<PackedPod>],
    number: Number,
    min_ready_seconds: i32,
    now: &Time,
) -> Vec<&'a Arc<PackedPod>> {
    let mut neighbours = HashMap::<&str, usize>::new();
    for pod in group {
        *neighbours.entry(pod.node_uid()).or_default() += 1;
    }
    let is_available = |pod: &&Arc<PackedPod>| {
        pods::available_in(pod, min_ready_seconds, now).is_some_and(|wait| wait.is_zero())
    };
    let (available, unavailable) = group.iter().copied().partition(is_available);
    let coarse = |pod: &Arc<PackedPod>| {
        let phase = match pods::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let alike = neighbours.get(pod.node_uid()).copied().unwrap_or(0);
        (pod.is_bound(), phase, pods::is_ready(pod), Reverse(alike))
    };
    let mut picked = pick(unavailable, number.unavailable, coarse);
    picked.extend(pick(available, number.available, coarse));
    picked
}

/// The first `number` by `coarse`, and among equals by what has to be unpacked to be known.
fn pick<K: Ord + Copy>(
    pods: Vec<&Arc<PackedPod>>,
    number: usize,
    coarse: impl Fn(&Arc<PackedPod>) -> K,
) -> Vec<&Arc<PackedPod>> {
    let Some(last) = number.checked_sub(1) else {
        return Vec::new();
    };
    let mut pods: Vec<_> = pods.into_iter().map(|pod| (coarse(pod), pod)).collect();
    if number < pods.len() {
        let bound = pods.select_nth_unstable_by_key(last, |(key, _)| *key).1.0;
        pods.retain(|(key, _)| *key <= bound);
    }
    let exact = pods.into_iter().map(|(key, pod)| ((key, fine(pod)), pod));
    let mut exact: Vec<_> = exact.collect();
    if number < exact.len() {
        exact.select_nth_unstable_by_key(last, |(key, _)| *key);
        exact.truncate(number);
    }
    exact.sort_unstable_by_key(|(key, _)| *key);
    exact.into_iter().map(|(_, pod)| pod).collect()
}

type Fine<'a> = (Reverse<i128>, Reverse<i64>, Reverse<i128>, &'a str);

fn fine(pod: &Arc<PackedPod>) -> Fine<'_> {
    let since = pods::ready_since(pod).map_or(i128::MAX, |since| nanos(&since));
    let created = pod.created().as_ref().map_or(0, nanos);
    // The uid last, so that every manager would choose the same.
    (
        Reverse(since),
        Reverse(pod.restarts()),
        Reverse(created),
        pod.uid(),
    )
}
