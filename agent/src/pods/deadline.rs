//! `activeDeadlineSeconds`: how long a pod may be on its node.

use barge_proto::v1::Pod;

use super::memory::{Memory, PodFailure};

/// Why a pod failed whose time was over, in Kubernetes' word.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// When the pod's time is over, in milliseconds since the epoch; `None` when it has all the time, or has not begun.
pub fn at_ms(pod: &Pod, memory: &Memory) -> Option<i64> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let begun = Some(memory.started_ms).filter(|ms| *ms > 0)?;
    Some(begun.saturating_add(seconds.saturating_mul(1000)))
}

/// The failure of a pod whose time is over.
pub fn exceeded(pod: &Pod, memory: &Memory, now_ms: i64) -> Option<PodFailure> {
    let over = at_ms(pod, memory).is_some_and(|at| at <= now_ms);
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    over.then(|| PodFailure {
        reason: DEADLINE_EXCEEDED.to_owned(),
        message: format!(
            "Pod was active on the node longer than the specified deadline (activeDeadlineSeconds: {seconds})"
        ),
    })
}
