//! The life of nodes: Ready as long as their agent is heard, and what becomes of their pods when it
//! is not.
//!
//! Heartbeats are not in the state; the shell passes in how long each node has been silent, by the
//! leader's clock.

#[cfg(test)]
mod tests;

use super::{
    Controller, NodeHeartbeats, conditions,
    plan::{self, MAX_BATCH, Plan, Severity, object_reference, pod_reference},
    stamp::{Stamp, Stamps},
};
use barge_proto::v1::{Node, ObjectReference, TerminatePod, change::Change, record::Record};
use barge_state::{Changed, Kind, PackedPod, RecordKind, State};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often a silent node is asked about.
const POLL: Duration = Duration::from_millis(250);

/// The controller of nodes.
pub struct Lifecycle {
    heartbeats: Arc<dyn NodeHeartbeats>,
    stamps: Arc<dyn Stamps>,
    leading_since: Instant,
    grace: Duration,
}

impl Lifecycle {
    /// Begins now: no node is lost before `patience` and one grace period are over.
    pub fn new(
        heartbeats: Arc<dyn NodeHeartbeats>,
        stamps: Arc<dyn Stamps>,
        patience: Duration,
        grace: Duration,
    ) -> Self {
        Self {
            heartbeats,
            leading_since: stamps.monotonic() + patience,
            stamps,
            grace,
        }
    }
}

impl Controller for Lifecycle {
    /// The uid of a node.
    type Key = String;
    const NAME: &'static str = "node";
    const KINDS: &'static [RecordKind] = &[RecordKind::Node];

    fn all(&self, state: &State) -> Vec<String> {
        state
            .list::<Node>(None)
            .map(|node| node.uid().to_owned())
            .collect()
    }

    fn dirtied(&self, _state: &State, changed: &Changed, dirty: &mut dyn FnMut(String)) {
        dirty(changed.uid().to_owned());
    }

    fn plan(&self, state: &State, key: &String, stamp: &mut Stamp) -> Plan {
        let Some(node) = state.by_uid::<Node>(key) else {
            return Plan::default();
        };
        let now = self.stamps.monotonic();
        let silence = self
            .heartbeats
            .last_heard(key)
            .map(|heard| now.saturating_duration_since(heard));
        let leading = now.saturating_duration_since(self.leading_since);
        let heard = heard(silence, leading, self.grace);
        let mut plan = plan(state, node, heard, stamp);
        plan.look_again(match heard {
            // Just after it could be lost at the earliest.
            Heard::Lately if is_ready(node) => {
                self.grace.saturating_sub(silence.unwrap_or_default()) + Duration::from_millis(1)
            }
            // Being heard would change nothing.
            Heard::Unknown if is_ready(node) => {
                self.grace.saturating_sub(leading) + Duration::from_millis(1)
            }
            _ => POLL,
        });
        plan
    }

    fn concerned(&self, state: &State, key: &String) -> Option<ObjectReference> {
        let node = state.by_uid::<Node>(key)?;
        Some(object_reference("v1", "Node", node.meta()))
    }
}

/// What is known of a node's heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Its agent spoke within the grace period.
    Lately,
    /// Not within the grace period.
    Silent,
    /// Not yet, and this leader hasn't led for a whole grace period: nothing follows from it.
    Unknown,
}

/// What to make of the last heartbeat. `silence` is the time since it, None when this manager has
/// heard of none; `leading` is how long this manager has led.
pub fn heard(silence: Option<Duration>, leading: Duration, grace: Duration) -> Heard {
    match silence {
        Some(silence) if silence <= grace => Heard::Lately,
        // What was heard before this manager led counts for nothing: heartbeats went elsewhere in
        // between.
        _ if leading <= grace => Heard::Unknown,
        _ => Heard::Silent,
    }
}

/// What should be done for a node now.
pub fn plan(state: &State, node: &Arc<Node>, heard: Heard, stamp: &mut Stamp) -> Plan {
    let mut plan = Plan::default();
    match heard {
        Heard::Unknown => {}
        Heard::Lately => ready(node, stamp, &mut plan),
        Heard::Silent => {
            not_ready(node, stamp, &mut plan);
            evict(state, node, stamp, &mut plan);
        }
    }
    plan
}

fn ready(node: &Arc<Node>, stamp: &mut Stamp, plan: &mut Plan) {
    let described = node
        .status
        .as_ref()
        .is_some_and(|status| !status.allocatable.is_empty());
    if !described {
        // The agent is there but hasn't said what the machine has: no pod could be placed on it.
        return;
    }
    let was = is_ready(node);
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

fn not_ready(node: &Arc<Node>, stamp: &mut Stamp, plan: &mut Plan) {
    let described = node
        .status
        .as_ref()
        .is_some_and(|status| !status.allocatable.is_empty());
    // As in Kubernetes: nobody knows how it is, which is not to say that it is bad.
    let (reason, message) = if described {
        ("NodeStatusUnknown", "The agent stopped sending heartbeats.")
    } else {
        ("NodeStatusNeverUpdated", "The agent never connected.")
    };
    let was = is_ready(node);
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

/// Whether the state calls the node ready.
pub fn is_ready(node: &Node) -> bool {
    node.status
        .as_ref()
        .is_some_and(|status| conditions::is_true(&status.conditions, "Ready"))
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
    // The rest of the status is the agent's: a report of its that comes in between must not be
    // undone.
    plan.require_unchanged(&**node);
    plan.put_status(Record::Node(Node {
        metadata: node.metadata.clone(),
        status: Some(status),
        ..Node::default()
    }));
    true
}

/// Removes the pods of a node that is lost. Nobody is there to end them gracefully; should the
/// machine come back, its agent stops what it is no longer assigned.
fn evict(state: &State, node: &Arc<Node>, stamp: &mut Stamp, plan: &mut Plan) {
    let name = &node.meta().name;
    let mut lost = 0;
    for pod in state.pods_on(node.uid()) {
        if lost == MAX_BATCH {
            plan.look_again(Duration::ZERO);
            break;
        }
        lost += 1;
        let message = format!("Node {name} was lost; the pod does not run there any more");
        let about = pod_reference(pod);
        let severity = Severity::Warning;
        plan.event(plan::event(
            stamp,
            "node-controller",
            about,
            severity,
            "NodeLost",
            message,
        ));
        remove_lost(pod, "NodeLost", plan);
    }
    if lost > 0 {
        // It may have been heard, and pods bound to it again, since the plan was made.
        if plan.preconditions.is_empty() {
            plan.require_unchanged(&**node);
        }
        let message = format!("{lost} pods were removed from the lost node {name}");
        report(node, Severity::Warning, "NodeLost", message, stamp, plan);
    }
}

/// Ends a pod that nobody runs any more, and removes its record. Those who watch see the reason
/// before it goes.
pub fn remove_lost(pod: &Arc<PackedPod>, reason: &str, plan: &mut Plan) {
    plan.push(Change::TerminatePod(TerminatePod {
        uid: pod.uid().to_owned(),
        grace_period_seconds: Some(0),
        reason: reason.to_owned(),
    }));
    plan.remove(&**pod);
}

fn report(
    node: &Arc<Node>,
    severity: Severity,
    reason: &str,
    message: String,
    stamp: &mut Stamp,
    plan: &mut Plan,
) {
    let about = object_reference("v1", "Node", node.meta());
    let event = plan::event(stamp, "node-controller", about, severity, reason, message);
    plan.event(event);
}
