//! Binding pods to nodes. `apply` checks each binding once more against the current state, because the scheduler decided by an older one.

use barge_proto::v1::{Bind, Node};

use super::work::Work;
use crate::{
    capacity::{Usage, is_finished},
    kind::Kind,
    pods,
    ports::NO_FREE_PORTS,
};

/// Binds a pod, or answers why not.
pub fn bind(work: &mut Work<'_>, bind: &Bind) {
    let answer = match check(work, bind) {
        Err(why) => why,
        Ok(()) => {
            if let Some(pod) = work.tables.pods.by_uid(&bind.pod_uid).cloned() {
                let mut bound = pod.record();
                bound.node_uid.clone_from(&bind.node_uid);
                bound.bound = Some(work.now);
                bound.status = bound
                    .status
                    .take()
                    .map(|status| pods::compact(status, true));
                work.write(Some(pod), bound);
            }
            String::new()
        }
    };
    work.binds.push(answer);
}

fn check(work: &Work<'_>, bind: &Bind) -> Result<(), String> {
    let Some(pod) = work.tables.pods.by_uid(&bind.pod_uid) else {
        return Err("the pod is gone".to_owned());
    };
    if pod.is_bound() {
        return Err("the pod is bound already".to_owned());
    }
    if pod.is_terminating() || is_finished(pod) {
        return Err("the pod has ended".to_owned());
    }
    let Some(node) = work.tables.nodes.by_uid(&bind.node_uid) else {
        return Err("the node is gone".to_owned());
    };
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable) {
        return Err("the node is unschedulable".to_owned());
    }
    if work.ordered && node.meta().deletion_timestamp.is_some() {
        return Err("the node is being deleted".to_owned());
    }
    if !node_is_ready(node) {
        return Err("the node is not ready".to_owned());
    }
    if work.tables.revisions.by_uid(pod.template_uid()).is_none() {
        return Err("the pod's template is gone".to_owned());
    }
    let capacity = &work.tables.capacity;
    // Below the level that brought host ports no template claims any.
    if !capacity.has_free_ports(pod.template_uid(), node.uid()) {
        return Err(NO_FREE_PORTS.to_owned());
    }
    let free = Usage::allocatable(node).minus(capacity.node(node.uid()));
    match capacity.template(pod.template_uid()).lacking_in(free) {
        None => Ok(()),
        Some(why) => Err(why.to_owned()),
    }
}

/// Whether pods may be bound to a node: its condition Ready is True, so its agent is heard and its runtime answers.
pub fn node_is_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.r#type == "Ready" && condition.status == "True")
}
