//! The controller of nodes: a node is Ready while the leader hears its agent, and is lost, with its pods, some time after it falls silent.
//!
//! Heartbeats are not in the state; the shell passes in how long each node has been silent, by the leader's clock. Losing a
//! node is a decision about all nodes at once ([`brakes`]), so it has a key of its own; everything else is decided for each node.

pub mod brakes;
mod evict;
mod labels;
mod pace;
mod pods;
mod readiness;
#[cfg(test)]
mod tests;

use super::{
    Controller, NodeHeartbeats,
    plan::{self, Plan, Severity, object_reference},
    stamp::{Stamp, Stamps},
    taints,
};
use barge_proto::v1::{Node, NodeSpec, ObjectMeta, ObjectReference, PodRecord};
use barge_state::{Changed, Kind, LOSS, RecordKind, State};
use pace::Pace;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

pub use evict::remove_lost;
pub use readiness::is_heard;

/// How often a silent node is asked about, and all nodes together.
const POLL: Duration = Duration::from_millis(250);
/// How often a lost node is asked about: each time all its pods are looked at.
const POLL_LOST: Duration = Duration::from_secs(1);

/// How long the leader waits for nodes.
#[derive(Debug, Clone, Copy)]
pub struct NodeTimes {
    /// A new leader finds no node silent before this and one grace period are over.
    pub patience: Duration,
    /// How long a node may be silent.
    pub grace: Duration,
    /// The shortest time between two nodes that are lost.
    pub loss_interval: Duration,
}

/// What this controller looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// All nodes together: whether one of them is lost.
    Cluster,
    /// The node with this uid.
    Node(String),
}

/// The controller of nodes.
pub struct Lifecycle {
    heartbeats: Arc<dyn NodeHeartbeats>,
    stamps: Arc<dyn Stamps>,
    /// Silence does not count before.
    watching_from: Instant,
    times: NodeTimes,
    pace: Mutex<Pace>,
}

impl Lifecycle {
    /// Begins now.
    pub fn new(
        heartbeats: Arc<dyn NodeHeartbeats>,
        stamps: Arc<dyn Stamps>,
        times: NodeTimes,
    ) -> Self {
        Self {
            heartbeats,
            watching_from: stamps.monotonic() + times.patience,
            stamps,
            times,
            pace: Mutex::default(),
        }
    }

    /// How long this leader has listened without a pause.
    fn watching(&self, now: Instant) -> Duration {
        let since = self.watching_from.max(self.heartbeats.attentive_since());
        now.saturating_duration_since(since)
    }

    /// How long ago the node was heard.
    fn age(&self, uid: &str, now: Instant) -> Option<Duration> {
        let heard = self.heartbeats.last_heard(uid)?;
        Some(now.saturating_duration_since(heard))
    }

    fn node(&self, state: &State, uid: &str, stamp: &mut Stamp) -> Plan {
        let Some(node) = state.by_uid::<Node>(uid) else {
            return Plan::default();
        };
        let now = self.stamps.monotonic();
        let (age, watching) = (self.age(uid, now), self.watching(now));
        let heard = heard(age, watching, self.times.grace);
        let lives = self.pace().lives(uid, self.heartbeats.confirmed(uid));
        let mut plan = plan(state, node, heard, lives, stamp);
        plan.look_again(match heard {
            // Just after it could be silent at the earliest.
            Heard::Lately if readiness::is_heard(node) => {
                self.times.grace.saturating_sub(age.unwrap_or_default()) + Duration::from_millis(1)
            }
            // Being heard would change nothing.
            Heard::Unknown if readiness::is_heard(node) => {
                self.times.grace.saturating_sub(watching) + Duration::from_millis(1)
            }
            _ if is_lost(node) => POLL_LOST,
            _ => POLL,
        });
        plan
    }

    /// Loses one node, if the brakes let it.
    fn cluster(&self, state: &State, stamp: &mut Stamp) -> Plan {
        let mut plan = Plan::default();
        plan.look_again(POLL.min(self.times.loss_interval.max(Duration::from_millis(1))));
        if state.feature_level() < LOSS {
            return plan;
        }
        let now = self.stamps.monotonic();
        let watching = self.watching(now);
        let seen: Vec<_> = state
            .list::<Node>(None)
            .map(|node| {
                let age = self.age(node.uid(), now);
                brakes::Seen::of(
                    node,
                    age.map_or(watching, |age| age.min(watching)),
                    &stamp.now,
                )
            })
            .collect();
        let verdict = brakes::decide(&seen, self.times.grace);
        let mut pace = self.pace();
        if pace.begins_pause(verdict.held.is_some(), now)
            && let Some(held) = verdict.held
            && let Some(node) = state.by_uid::<Node>(held.longest)
        {
            let message = held.to_string();
            report(
                node,
                Severity::Warning,
                "TaintingPaused",
                message,
                stamp,
                &mut plan,
            );
        }
        let may_go = |uid: &str| {
            pace.is_settled(now, self.times.grace)
                && pace.is_due(uid, now, self.times.loss_interval)
        };
        let next = verdict
            .next
            .filter(|next| next.confirmed || may_go(next.uid));
        if let Some(next) = next
            && let Some(node) = state.by_uid::<Node>(next.uid)
        {
            pace.lost(next.uid, now);
            lose(node, stamp, &mut plan);
        }
        pace.retain(|uid| state.by_uid::<Node>(uid).is_some());
        plan
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Controller for Lifecycle {
    type Key = Key;
    const NAME: &'static str = "node";
    const KINDS: &'static [RecordKind] = &[RecordKind::Node, RecordKind::Pod];

    fn all(&self, state: &State) -> Vec<Key> {
        let nodes = state.list::<Node>(None);
        let nodes = nodes.map(|node| Key::Node(node.uid().to_owned()));
        std::iter::once(Key::Cluster).chain(nodes).collect()
    }

    fn dirtied(&self, state: &State, changed: &Changed, dirty: &mut dyn FnMut(Key)) {
        match changed.of::<PodRecord>() {
            (None, None) => dirty(Key::Node(changed.uid().to_owned())),
            // Other pods are no concern of their node's.
            (_, Some(pod)) => {
                let node = state.by_uid::<Node>(pod.node_uid());
                if node.is_some_and(|node| !taints::of(node).is_empty()) {
                    dirty(Key::Node(pod.node_uid().to_owned()));
                }
            }
            (Some(_), None) => {}
        }
    }

    fn plan(&self, state: &State, key: &Key, stamp: &mut Stamp) -> Plan {
        match key {
            Key::Cluster => self.cluster(state, stamp),
            Key::Node(uid) => self.node(state, uid, stamp),
        }
    }

    fn concerned(&self, state: &State, key: &Key) -> Option<ObjectReference> {
        let Key::Node(uid) = key else { return None };
        let node = state.by_uid::<Node>(uid)?;
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
    /// Not yet, and this leader hasn't listened for a whole grace period: nothing follows from it.
    Unknown,
}

/// What to make of the last heartbeat. `age` is the time since it, None when this manager has heard of none; `watching` is how
/// long this manager has led without a pause of its own.
pub fn heard(age: Option<Duration>, watching: Duration, grace: Duration) -> Heard {
    match age {
        Some(age) if age <= grace => Heard::Lately,
        // What was heard before counts for nothing: heartbeats went elsewhere, or nowhere, in between.
        _ if watching <= grace => Heard::Unknown,
        _ => Heard::Silent,
    }
}

/// What should be done for a node now. `lives` says whether a lost node is certain to have lived after it was lost.
pub fn plan(state: &State, node: &Arc<Node>, heard: Heard, lives: bool, stamp: &mut Stamp) -> Plan {
    let mut plan = Plan::default();
    match heard {
        Heard::Unknown => {}
        // A sign that waited in some buffer while the node was lost.
        Heard::Lately if is_lost(node) && !lives => {}
        Heard::Lately => {
            let taints = state.feature_level() >= LOSS;
            readiness::ready(node, taints, stamp, &mut plan);
        }
        Heard::Silent => readiness::not_ready(node, stamp, &mut plan),
    }
    if state.feature_level() < LOSS {
        if heard == Heard::Silent {
            evict::evict(state, node, stamp, &mut plan);
        }
    } else if plan.draft.is_empty() {
        // Otherwise when these changes are seen.
        pods::settle(state, node, stamp, &mut plan);
    }
    plan
}

/// Whether the leader has given the node up.
pub fn is_lost(node: &Node) -> bool {
    taints::has(node, taints::UNREACHABLE)
}

/// Taints a node as lost.
fn lose(node: &Arc<Node>, stamp: &mut Stamp, plan: &mut Plan) {
    let mut spec = node.spec.clone().unwrap_or_default();
    spec.taints.push(taints::unreachable(stamp.now));
    put_spec(node, spec, plan);
    let message = format!(
        "Node {} is lost: its agent was not heard for too long; pods that do not tolerate that are replaced",
        node.meta().name
    );
    report(node, Severity::Warning, "NodeLost", message, stamp, plan);
}

fn put_spec(node: &Arc<Node>, spec: NodeSpec, plan: &mut Plan) {
    let labels = node.meta().labels.clone();
    put(node, spec, labels, plan);
}

fn put(node: &Arc<Node>, spec: NodeSpec, labels: BTreeMap<String, String>, plan: &mut Plan) {
    plan.draft.unchanged(&**node);
    plan.draft.put(Node {
        metadata: Some(ObjectMeta {
            labels,
            ..node.meta().clone()
        }),
        spec: Some(spec),
        ..Node::clone(node)
    });
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
    plan.draft.event(event);
}
