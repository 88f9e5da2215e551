//! The placement loop: the oldest pod that can be placed goes to its best node, again and again.

use super::{
    aside::Aside,
    cluster::{Cluster, Placement},
};
use crate::{
    controllers::{
        conditions,
        plan::{self, Severity, pod_reference},
        stamp::Stamp,
    },
    store::transaction::Draft,
};
use barge_proto::v1::PodRecord;
use barge_state::State;
use std::{collections::BTreeSet, sync::Arc, time::Instant};

/// Places up to `limit` pods. Each counts on its node for those after it, as if it was bound.
/// Classes that no node can take are noted with the reason, and do not delay other classes.
///
/// Classes that are set aside wait. When this panics, [`Cluster::being_placed`] says whose pods were to blame.
pub fn place(
    cluster: &mut Cluster,
    aside: &mut Aside,
    limit: usize,
    now: Instant,
) -> Vec<Placement> {
    let mut heads: BTreeSet<_> = cluster
        .queue
        .classes()
        .filter_map(|class| Some((cluster.queue.first(class)?.clone(), class)))
        .collect();
    let mut placements = Vec::new();
    while placements.len() < limit
        && let Some(((_, pod), class)) = heads.pop_first()
    {
        cluster.set_placing(Some(class));
        if let Some(why) = aside.why(cluster.template_of(class), now) {
            cluster.queue.explain(class, &why, now);
            continue;
        }
        if let Some(node) = cluster.best(class) {
            placements.extend(cluster.assume(&pod, node));
            if let Some(next) = cluster.queue.first(class) {
                heads.insert((next.clone(), class));
            }
        } else if let Some(message) = cluster.explain(class) {
            cluster.queue.explain(class, &message, now);
        }
        aside.forget(cluster.template_of(class));
    }
    cluster.set_placing(None);
    cluster.trim_views();
    placements
}

/// Tells why a pod waits: its condition, and an event. Nothing when it says so already, or no longer waits.
pub fn tell(state: &State, pod_uid: &str, why: &Arc<str>, stamp: &mut Stamp, draft: &mut Draft) {
    let Some(pod) = state.by_uid::<PodRecord>(pod_uid) else {
        return;
    };
    let PodRecord {
        metadata, status, ..
    } = pod.record();
    let mut status = status.unwrap_or_default();
    let news = !pod.is_bound()
        && conditions::set(
            &mut status.conditions,
            "PodScheduled",
            "False",
            "Unschedulable",
            why,
            stamp.now,
        );
    if !news {
        return;
    }
    draft.put_status(PodRecord {
        metadata,
        status: Some(status),
        ..PodRecord::default()
    });
    draft.event(plan::event(
        stamp,
        "scheduler",
        pod_reference(pod),
        Severity::Warning,
        "FailedScheduling",
        why.to_string(),
    ));
}
