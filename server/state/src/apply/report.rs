//! Statuses of pods, as their nodes report them.

use barge_proto::v1::{PodRecord, ReportPod, StatusVersion};

use super::work::Work;
use crate::pods;

/// Replaces the status of a pod by what its node reported. Nothing when the pod is gone, is bound to another node, or has a status that its agent
/// made later: reports travel through any manager, so one may overtake another.
///
/// The version is kept even if the status is the same: otherwise a report between the two could still overwrite it.
pub fn report(work: &mut Work<'_>, report: ReportPod) {
    let Some(pod) = work.tables.pods.by_uid(&report.uid).cloned() else {
        return;
    };
    if !pod.is_bound() || pod.node_uid() != report.node_uid {
        return;
    }
    let before = pod.record();
    if !is_newer(report.version, before.reported) {
        return;
    }
    let after = PodRecord {
        status: Some(pods::report(&before, report.status.unwrap_or_default())),
        reported: report.version.or(before.reported),
        ..before.clone()
    };
    if after != before {
        work.write(Some(pod), after);
    }
}

/// Whether a report tells of a later moment than the one before. One without a version comes from an agent that does not number its statuses:
/// then the order in which they arrive counts.
fn is_newer(report: Option<StatusVersion>, known: Option<StatusVersion>) -> bool {
    let order = |version: StatusVersion| (version.incarnation, version.counter);
    match (report, known) {
        (Some(report), Some(known)) => order(report) > order(known),
        _ => true,
    }
}
