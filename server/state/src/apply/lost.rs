//! Marking pods as lost with their node: the leader no longer hears the agent, so the pods may run or not.

use barge_proto::v1::MarkPod;

use super::work::Work;

/// Marks a pod as lost since now, or takes the mark back. Nothing when the pod is gone, was never bound to that node, or is
/// marked so already: the mark keeps its time.
pub fn mark(work: &mut Work<'_>, mark: &MarkPod) {
    let Some(pod) = work.tables.pods.by_uid(&mark.uid).cloned() else {
        return;
    };
    if !pod.is_bound() || pod.node_uid() != mark.node_uid || pod.is_lost() == mark.lost {
        return;
    }
    let mut marked = pod.record();
    marked.lost = mark.lost.then_some(work.now);
    work.write(Some(pod), marked);
}
