//! What the loops ask of a pod.

use super::{conditions, stamp};
use barge_proto::v1::{PodRecord, Time};
use std::time::Duration;

/// The pod's phase; one that nobody has reported on yet is Pending.
pub fn phase(pod: &PodRecord) -> &str {
    match &pod.status {
        Some(status) if !status.phase.is_empty() => &status.phase,
        _ => "Pending",
    }
}

/// Succeeded or Failed: its containers will never run again, and it needs no room on its node.
pub fn is_finished(pod: &PodRecord) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether somebody asked for its end.
pub fn is_terminating(pod: &PodRecord) -> bool {
    pod.metadata
        .as_ref()
        .is_some_and(|metadata| metadata.deletion_timestamp.is_some())
}

/// Neither finished nor terminating: it counts for its Deployment.
pub fn is_live(pod: &PodRecord) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Whether it runs and its Ready condition is True.
pub fn is_ready(pod: &PodRecord) -> bool {
    phase(pod) == "Running"
        && pod
            .status
            .as_ref()
            .is_some_and(|status| conditions::is_true(&status.conditions, "Ready"))
}

/// Since when the pod is ready; None when it is not.
pub fn ready_since(pod: &PodRecord) -> Option<Time> {
    if !is_ready(pod) {
        return None;
    }
    let status = pod.status.as_ref()?;
    let ready = conditions::find(&status.conditions, "Ready")?;
    // A condition without a time: as early as can be, as if it had always been so.
    Some(ready.last_transition_time.unwrap_or_default())
}

/// How long until a ready pod has been ready for that many seconds: zero when it is available, None
/// when it isn't ready.
pub fn available_in(pod: &PodRecord, min_ready_seconds: i32, now: &Time) -> Option<Duration> {
    let since = ready_since(pod)?;
    let needed = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
    Some(needed.saturating_sub(stamp::age(now, &since)))
}

/// The sum of its containers' restarts.
pub fn restarts(pod: &PodRecord) -> i64 {
    pod.status.as_ref().map_or(0, |status| {
        status
            .container_statuses
            .iter()
            .map(|container| i64::from(container.restart_count))
            .sum()
    })
}
