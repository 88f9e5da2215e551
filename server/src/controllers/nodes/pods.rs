//! Applies a node's taints to its pods: marks them as lost, ends them, or takes the marks back.

use super::{
    evict::{remove_lost, tell_lost},
    is_lost,
};
use crate::controllers::{
    plan::{self, MAX_BATCH, Plan, Severity, pod_reference},
    pods,
    stamp::Stamp,
    taints::{self, OUT_OF_SERVICE},
};
use barge_proto::v1::{MarkPod, Node, Taint, Time, Toleration, change::Change};
use barge_state::{Kind, PackedPod, State};
use std::{sync::Arc, time::Duration};

/// Brings the pods of a node in line with its taints, a slice at a time.
pub fn settle(state: &State, node: &Arc<Node>, stamp: &mut Stamp, plan: &mut Plan) {
    let mut slice = Slice {
        state,
        node,
        stamp,
        plan,
        room: MAX_BATCH,
    };
    if is_lost(node) {
        slice.lose();
    } else {
        slice.forgive();
        slice.expel();
    }
    if !plan.draft.is_empty() {
        // The taints are the same; what the agent reports meanwhile does not matter.
        plan.draft.same_generation(&**node);
    }
}

struct Slice<'a> {
    state: &'a State,
    node: &'a Arc<Node>,
    stamp: &'a mut Stamp,
    plan: &'a mut Plan,
    /// Pods that may still be changed by this transaction.
    room: usize,
}

impl Slice<'_> {
    /// The node is lost, and so are its pods, as soon as they do not tolerate that any more. Those whose end was asked for go at
    /// once, because no agent will report it; if the machine is certainly off, all go.
    fn lose(&mut self) {
        let is_off = taints::has(self.node, OUT_OF_SERVICE);
        let state = self.state;
        for pod in state.pods_on(self.node.uid()) {
            let removed = pods::is_terminating(pod) || is_off && pod.is_lost();
            if !removed && (pods::is_finished(pod) || pod.is_lost()) {
                continue;
            }
            if !removed && !self.has_to_go(pod, |_| true) {
                continue;
            }
            if !self.has_room() {
                return;
            }
            if !pod.is_lost() && !pods::is_terminating(pod) {
                tell_lost(pod, &self.node.meta().name, self.stamp, self.plan);
            }
            match removed {
                true => remove_lost(pod, "NodeLost", self.plan),
                false => self.mark(pod, true),
            }
        }
    }

    /// The node is not lost any more.
    fn forgive(&mut self) {
        let state = self.state;
        for pod in state.lost_on(self.node.uid()) {
            if !self.has_room() {
                return;
            }
            self.mark(pod, false);
        }
    }

    /// Ends pods that do not tolerate a taint that a user set.
    fn expel(&mut self) {
        let is_theirs = |taint: &Taint| !taints::is_managed(taint);
        let mut taints = taints::of(self.node).iter();
        if !taints.any(|taint| taint.effect == taints::NO_EXECUTE && is_theirs(taint)) {
            return;
        }
        let state = self.state;
        for pod in state.pods_on(self.node.uid()) {
            if !pods::is_live(pod) || !self.has_to_go(pod, is_theirs) {
                continue;
            }
            if !self.has_room() {
                return;
            }
            let message = format!(
                "Ended because node {} has a taint that the pod does not tolerate",
                self.node.meta().name
            );
            let about = pod_reference(pod);
            let severity = Severity::Normal;
            let event = plan::event(
                self.stamp,
                "node-controller",
                about,
                severity,
                "TaintManagerEviction",
                message,
            );
            self.plan.draft.event(event);
            self.plan.draft.terminate(pod.uid(), "TaintManagerEviction");
        }
    }

    /// Whether the pod may not stay any longer because of these taints. If it may for a time, the plan is asked for again then.
    fn has_to_go(&mut self, pod: &PackedPod, counts: impl Fn(&Taint) -> bool) -> bool {
        let taints = taints::of(self.node).iter().filter(|taint| counts(taint));
        match taints::stays(tolerations(self.state, pod), taints, &self.now()) {
            None => false,
            Some(Duration::ZERO) => true,
            Some(wait) => {
                self.plan.look_again(wait);
                false
            }
        }
    }

    fn now(&self) -> Time {
        self.stamp.now
    }

    /// Takes room for one pod; when there is none, the plan is asked for again.
    fn has_room(&mut self) -> bool {
        if self.room == 0 {
            self.plan.look_again(Duration::ZERO);
            return false;
        }
        self.room -= 1;
        true
    }

    fn mark(&mut self, pod: &PackedPod, lost: bool) {
        self.plan.draft.change(Change::MarkPod(MarkPod {
            uid: pod.uid().to_owned(),
            lost,
            node_uid: self.node.uid().to_owned(),
        }));
    }
}

fn tolerations<'a>(state: &'a State, pod: &PackedPod) -> &'a [Toleration] {
    let template = state
        .template(pod)
        .and_then(|revision| revision.template.as_ref());
    let spec = template.and_then(|template| template.spec.as_ref());
    spec.map_or(&[], |spec| &spec.tolerations)
}
