//! Below the feature level of lost pods: the pods of a silent node are removed at once.

use super::report;
use crate::controllers::{
    plan::{self, MAX_BATCH, Plan, Severity, pod_reference},
    stamp::Stamp,
};
use barge_proto::v1::{Node, PodRecord, TerminatePod, change::Change};
use barge_state::{Kind, PackedPod, State};
use std::{sync::Arc, time::Duration};

/// Removes the pods of a silent node. No agent is heard that could end them gracefully. At this level no tombstone stays: should the machine come
/// back with an agent of this version, they run on there as unknown pods.
pub fn evict(state: &State, node: &Arc<Node>, stamp: &mut Stamp, plan: &mut Plan) {
    let name = &node.meta().name;
    let mut lost = 0;
    for pod in state.pods_on(node.uid()) {
        if lost == MAX_BATCH {
            plan.look_again(Duration::ZERO);
            break;
        }
        lost += 1;
        tell_lost(pod, name, stamp, plan);
        remove_lost(pod, "NodeLost", plan);
    }
    if lost > 0 {
        // It may have been heard, and pods bound to it again, since the plan was made.
        if plan.draft.is_unconditional() {
            plan.draft.unchanged(&**node);
        }
        let message = format!("{lost} pods were removed from the lost node {name}");
        report(node, Severity::Warning, "NodeLost", message, stamp, plan);
    }
}

/// Records the event of a pod that is lost.
pub fn tell_lost(pod: &PackedPod, node: &str, stamp: &mut Stamp, plan: &mut Plan) {
    let message = format!("Node {node} was lost; nobody knows whether the pod still runs there");
    let about = pod_reference(pod);
    let severity = Severity::Warning;
    plan.draft.event(plan::event(
        stamp,
        "node-controller",
        about,
        severity,
        "NodeLost",
        message,
    ));
}

/// Ends a pod that no agent runs any more, and removes its record. Watchers see the reason
/// before it goes.
pub fn remove_lost(pod: &Arc<PackedPod>, reason: &str, plan: &mut Plan) {
    plan.draft.change(Change::TerminatePod(TerminatePod {
        uid: pod.uid().to_owned(),
        grace_period_seconds: Some(0),
        reason: reason.to_owned(),
    }));
    plan.draft.remove::<PodRecord>(pod.uid());
}
