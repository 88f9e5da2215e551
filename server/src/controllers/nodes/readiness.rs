//! The condition Ready of nodes.

use super::{is_lost, labels, put, report};
use crate::controllers::{
    conditions,
    plan::{Plan, Severity},
    stamp::Stamp,
    taints,
};
use barge_proto::v1::{Condition, Node};
use barge_state::{Kind, node_is_ready};
use std::sync::Arc;

/// The node is heard. One that was lost is back. Managers below feature level LOSS know no taints with an effect (`taints`).
pub fn ready(node: &Arc<Node>, taints: bool, stamp: &mut Stamp, plan: &mut Plan) {
    if !is_described(node) {
        // The agent is there but hasn't said what the machine has: no pod could be placed on it.
        return;
    }
    let spec = node.spec.clone().unwrap_or_default();
    let disk = taints && says(node, "DiskPressure", "True").is_some();
    let next = taints::with_pressure(taints::without_managed(&spec), disk, stamp.now);
    let labels = labels::with_machine(node);
    if next != spec || labels != node.meta().labels {
        put(node, next, labels, plan);
        if is_lost(node) {
            let message = format!(
                "Node {} is back: pods that were not replaced go on",
                node.meta().name
            );
            report(node, Severity::Normal, "NodeBack", message, stamp, plan);
        }
    }
    let was = node_is_ready(node);
    if let Some(runtime) = says(node, "RuntimeReady", "False") {
        // The agent lives and its containers run, so nothing is lost: only nothing new is placed here.
        let (reason, message) = (runtime.reason.clone(), runtime.message.clone());
        if condition(node, "False", &reason, &message, stamp, plan) && was {
            let message = format!("Node {} is not ready: {message}", node.meta().name);
            report(
                node,
                Severity::Warning,
                "NodeNotReady",
                message,
                stamp,
                plan,
            );
        }
        return;
    }
    if condition(
        node,
        "True",
        "AgentReady",
        "The agent sends heartbeats.",
        stamp,
        plan,
    ) && !was
    {
        let message = format!("Node {} is ready", node.meta().name);
        report(node, Severity::Normal, "NodeReady", message, stamp, plan);
    }
}

/// The condition of that type, if its agent says so.
fn says<'a>(node: &'a Node, kind: &str, status: &str) -> Option<&'a Condition> {
    let conditions = &node.status.as_ref()?.conditions;
    conditions::find(conditions, kind).filter(|condition| condition.status == status)
}

/// The node is silent.
pub fn not_ready(node: &Arc<Node>, stamp: &mut Stamp, plan: &mut Plan) {
    // As in Kubernetes: `Unknown` means that the leader does not hear the agent, not that the node is bad.
    let (reason, message) = if is_described(node) {
        (NOT_HEARD, "The agent stopped sending heartbeats.")
    } else {
        ("NodeStatusNeverUpdated", "The agent never connected.")
    };
    let was = is_heard(node);
    if condition(node, "Unknown", reason, message, stamp, plan) && was {
        let message = format!(
            "Node {} is not ready: its agent stopped sending heartbeats",
            node.meta().name
        );
        report(
            node,
            Severity::Warning,
            "NodeNotReady",
            message,
            stamp,
            plan,
        );
    }
}

/// Why Ready is Unknown when the node was heard once.
const NOT_HEARD: &str = "NodeStatusUnknown";

/// Whether the agent is heard, or was until it fell silent.
pub fn was_heard(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.r#type == "Ready");
    ready.any(|condition| condition.status != "Unknown" || condition.reason == NOT_HEARD)
}

/// Whether the state says that the agent is heard: its node is ready, or the agent says that it is not.
pub fn is_heard(node: &Node) -> bool {
    node_is_ready(node) || says(node, "Ready", "False").is_some()
}

fn is_described(node: &Node) -> bool {
    node.status
        .as_ref()
        .is_some_and(|status| !status.allocatable.is_empty())
}

/// Sets Ready, if it isn't so already.
fn condition(
    node: &Arc<Node>,
    value: &str,
    reason: &str,
    message: &str,
    stamp: &Stamp,
    plan: &mut Plan,
) -> bool {
    let mut status = node.status.clone().unwrap_or_default();
    let conditions = &mut status.conditions;
    if !conditions::set(conditions, "Ready", value, reason, message, stamp.now) {
        return false;
    }
    // The rest of the status is the agent's: a report of its that comes in between must not be undone.
    if plan.draft.is_unconditional() {
        plan.draft.unchanged(&**node);
    }
    plan.draft.put_status(Node {
        metadata: node.metadata.clone(),
        status: Some(status),
        ..Node::default()
    });
    true
}
