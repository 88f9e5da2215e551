//! The status in a pod's record, and the rules by which a report replaces it.

use barge_proto::v1::{PodRecord, PodStatus};

/// The condition that says whether a pod is bound.
pub const POD_SCHEDULED: &str = "PodScheduled";

/// Drops what can be told from elsewhere: the record of a pod is kept a million times.
pub fn compact(mut status: PodStatus, bound: bool) -> PodStatus {
    status.host_ip.clear();
    if let [only] = status.pod_ips.as_slice()
        && only.ip == status.pod_ip
    {
        status.pod_ips = Vec::new();
    }
    if bound {
        status
            .conditions
            .retain(|condition| condition.r#type != POD_SCHEDULED);
    }
    status.conditions.shrink_to_fit();
    status.container_statuses.shrink_to_fit();
    status.init_container_statuses.shrink_to_fit();
    status
}

/// The status of a pod after a report. Its phase never moves back: a report that arrives late, or comes from a
/// machine that started again, changes the rest only, and nothing once the pod has finished.
pub fn report(pod: &PodRecord, report: PodStatus) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let finished = matches!(old.phase.as_str(), "Succeeded" | "Failed");
    if finished && report.phase != old.phase {
        return old;
    }
    let mut status = compact(report, !pod.node_uid.is_empty());
    if progress(&status.phase) < progress(&old.phase) {
        status.phase = old.phase;
    }
    let terminating = pod
        .metadata
        .as_ref()
        .is_some_and(|metadata| metadata.deletion_timestamp.is_some());
    if terminating && status.reason.is_empty() {
        // Why it was terminated; the node does not know it.
        status.reason = old.reason;
    }
    status
}

/// How far a phase is from the beginning.
fn progress(phase: &str) -> u8 {
    match phase {
        "" => 0,
        "Pending" => 1,
        "Succeeded" | "Failed" => 3,
        _ => 2,
    }
}
