//! Ending pods gracefully.

use std::sync::Arc;

use barge_proto::v1::{PodRecord, TerminatePod, Time};

use super::{remove, work::Work};
use crate::{
    capacity::is_finished,
    kind::{Kind, Stored},
    limits::GRACE_PERIOD_SECONDS,
    packed::PackedPod,
    tables::Tables,
};

/// Ends a pod: one that is on a node gets a deletion timestamp, and goes when the node reports its end. Others
/// go at once. A pod that is gone is no error.
pub fn terminate(work: &mut Work<'_>, terminate: &TerminatePod) {
    let Some(pod) = work.tables.pods.by_uid(&terminate.uid).cloned() else {
        return;
    };
    if is_on_node(work, &pod) {
        mark(
            work,
            &pod,
            terminate.grace_period_seconds,
            &terminate.reason,
        );
    } else {
        remove::take(work, Stored::Pod(pod));
    }
}

/// Whether a node has to end this pod before its record may go.
pub fn is_running(tables: &Tables, pod: &PackedPod) -> bool {
    tables.nodes.by_uid(pod.node_uid()).is_some() && !is_finished(pod)
}

fn is_on_node(work: &Work<'_>, pod: &PackedPod) -> bool {
    work.tables.nodes.by_uid(pod.node_uid()).is_some()
}

/// Sets the time by which a pod has to end: now and its grace. Asked again it may become earlier, never later.
pub fn mark(work: &mut Work<'_>, pod: &Arc<PackedPod>, grace: Option<i64>, reason: &str) {
    let (old, marked) = (pod.record(), marked(work, pod, grace, reason));
    if marked != old {
        work.write(Some(pod.clone()), marked);
    }
}

/// A pod as [`mark`] makes it.
pub fn marked(work: &Work<'_>, pod: &PackedPod, grace: Option<i64>, reason: &str) -> PodRecord {
    let grace = grace.unwrap_or_else(|| own_grace(work, pod)).max(0);
    let deadline = Time {
        seconds: work.now.seconds.saturating_add(grace),
        ..work.now
    };
    let mut marked = pod.record();
    let meta = marked.meta_mut();
    let earlier = |old: Time| (deadline.seconds, deadline.nanos) < (old.seconds, old.nanos);
    if meta.deletion_timestamp.is_none_or(earlier) {
        meta.deletion_timestamp = Some(deadline);
        meta.deletion_grace_period_seconds = Some(grace);
    }
    if !reason.is_empty() {
        let status = marked.status.get_or_insert_default();
        if status.reason.is_empty() {
            reason.clone_into(&mut status.reason);
        }
    }
    marked
}

/// The grace period of the pod's template, in seconds.
fn own_grace(work: &Work<'_>, pod: &PackedPod) -> i64 {
    let revision = work.tables.revisions.by_uid(pod.template_uid());
    let template = revision.and_then(|revision| revision.template.as_ref());
    let spec = template.and_then(|template| template.spec.as_ref());
    spec.and_then(|spec| spec.termination_grace_period_seconds)
        .unwrap_or(GRACE_PERIOD_SECONDS)
}
