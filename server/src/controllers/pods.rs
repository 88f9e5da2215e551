//! Questions about a pod that several loops ask.

use super::stamp;
use barge_proto::v1::Time;
use barge_state::PackedPod;
use std::time::Duration;

/// The pod's phase; Pending until an agent has reported one.
pub fn phase(pod: &PackedPod) -> &str {
    match pod.phase() {
        "" => "Pending",
        phase => phase,
    }
}

/// Succeeded or Failed: its containers will never run again, and it needs no room on its node.
pub fn is_finished(pod: &PackedPod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether somebody asked for its end.
pub fn is_terminating(pod: &PackedPod) -> bool {
    pod.is_terminating()
}

/// Neither finished nor terminating, nor lost with its node: it counts for its Deployment.
pub fn is_live(pod: &PackedPod) -> bool {
    !is_finished(pod) && !is_terminating(pod) && !pod.is_lost()
}

/// Whether it runs and its Ready condition is True; false for a pod that is lost with its node.
pub fn is_ready(pod: &PackedPod) -> bool {
    phase(pod) == "Running" && pod.has_condition("Ready") && !pod.is_lost()
}

/// Since when the pod is ready; None when it is not.
pub fn ready_since(pod: &PackedPod) -> Option<Time> {
    if !is_ready(pod) {
        return None;
    }
    // A condition without a time: as early as can be, as if it had always been so.
    Some(pod.ready_transition().unwrap_or_default())
}

/// How long until a ready pod has been ready for that many seconds: zero when it is available, None
/// when it isn't ready.
pub fn available_in(pod: &PackedPod, min_ready_seconds: i32, now: &Time) -> Option<Duration> {
    if min_ready_seconds <= 0 {
        // Nothing has to be unpacked.
        return is_ready(pod).then_some(Duration::ZERO);
    }
    let since = ready_since(pod)?;
    let needed = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
    Some(needed.saturating_sub(stamp::age(now, &since)))
}
