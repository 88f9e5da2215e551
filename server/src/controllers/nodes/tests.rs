#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod loss;
mod property;

use super::{plan, *};
use crate::controllers::{
    Name, conditions, deployment,
    testing::{World, allocatable, nginx},
};
use barge_proto::v1::record::Record;
use barge_proto::v1::{Condition, NodeStatus, NodeSystemInfo, ObjectMeta, Time};
use barge_state::node_is_ready;
use std::{collections::BTreeMap, sync::Mutex};

const GRACE: Duration = Duration::from_secs(4);

fn look(world: &mut World, name: &str, heard: Heard) -> Plan {
    let node = node(world, name);
    let mut stamp = world.stamp();
    let plan = plan(&world.state, &node, heard, true, &mut stamp);
    world.follow(plan.clone());
    plan
}

fn node(world: &World, name: &str) -> Arc<Node> {
    world.state.get::<Node>("", name).unwrap().clone()
}

fn ready(world: &World, name: &str) -> Condition {
    let node = node(world, name);
    let status = node.status.as_ref().unwrap();
    conditions::find(&status.conditions, "Ready")
        .unwrap()
        .clone()
}

/// Two nodes with two pods each.
fn world() -> World {
    let mut world = World::default();
    let nodes = [
        world.node("a", 8000, 8000, 100),
        world.node("b", 8000, 8000, 100),
    ];
    let uid = world.uid();
    world.put(nginx(&uid, 4));
    roll(&mut world);
    for (index, pod) in world.live().iter().enumerate() {
        world.bind(pod, &nodes[index % 2]);
        world.report(pod.uid(), "Running", true);
    }
    world
}

fn roll(world: &mut World) {
    let key = Name {
        namespace: "default".into(),
        name: "nginx-deployment".into(),
    };
    for _ in 0..5 {
        let mut stamp = world.stamp();
        let plan = deployment::plan(&world.state, &key, &mut stamp);
        world.follow(plan);
    }
}

#[test]
fn silence_counts_only_under_this_leader() {
    let seconds = Duration::from_secs;
    assert_eq!(heard(Some(seconds(1)), seconds(1), GRACE), Heard::Lately);
    assert_eq!(heard(Some(seconds(4)), seconds(100), GRACE), Heard::Lately);
    assert_eq!(heard(Some(seconds(5)), seconds(100), GRACE), Heard::Silent);
    assert_eq!(heard(None, seconds(100), GRACE), Heard::Silent);
    // A new leader: heartbeats went elsewhere until now.
    assert_eq!(heard(None, seconds(4), GRACE), Heard::Unknown);
    assert_eq!(heard(Some(seconds(60)), seconds(3), GRACE), Heard::Unknown);
}

#[test]
fn a_new_leader_does_nothing_before_it_knows() {
    let mut world = world();
    assert_eq!(look(&mut world, "a", Heard::Unknown), Plan::default());
    look(&mut world, "a", Heard::Lately);
    assert_eq!(
        look(&mut world, "a", Heard::Lately).draft.changes(),
        [],
        "it is said once"
    );
}

#[test]
fn the_pods_of_a_silent_node_are_removed_and_replaced() {
    let mut world = world();
    let uid = node(&world, "a").uid().to_owned();
    look(&mut world, "a", Heard::Silent);
    let condition = ready(&world, "a");
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("Unknown", "NodeStatusUnknown")
    );
    assert_eq!(world.state.pods_on(&uid).count(), 0);
    assert_eq!(world.live().len(), 2);
    let events = world.events("NodeLost");
    assert_eq!(events.len(), 3, "one for each pod, and one for the node");
    assert_eq!(world.events("NodeNotReady").len(), 1);
    roll(&mut world);
    assert_eq!(world.live().len(), 4);
    assert_eq!(
        look(&mut world, "a", Heard::Silent).draft.changes(),
        [],
        "it is said once"
    );
}

#[test]
fn a_node_that_comes_back_is_ready_again() {
    let mut world = world();
    look(&mut world, "a", Heard::Silent);
    world.advance(60);
    look(&mut world, "a", Heard::Lately);
    let condition = ready(&world, "a");
    assert_eq!(condition.status, "True");
    assert_eq!(condition.last_transition_time, Some(world.now));
    assert_eq!(world.events("NodeReady").len(), 1);
    // What the agent said of the machine is still there.
    let status = node(&world, "a").status.clone().unwrap();
    assert_eq!(status.allocatable, allocatable(8000, 8000, 100));
}

/// The agent says something of its machine.
fn says(world: &mut World, name: &str, kind: &str, status: &str) {
    let old = node(world, name);
    let mut said = old.status.clone().unwrap();
    said.conditions.retain(|condition| condition.r#type != kind);
    said.conditions.push(Condition {
        r#type: kind.into(),
        status: status.into(),
        reason: "Because".into(),
        message: "it does not answer".into(),
        ..Condition::default()
    });
    world.put_status(Record::Node(Node {
        metadata: old.metadata.clone(),
        status: Some(said),
        ..Node::default()
    }));
}

#[test]
fn a_node_whose_runtime_does_not_answer_is_not_ready_and_loses_nothing() {
    let mut world = world();
    look(&mut world, "a", Heard::Lately);
    says(&mut world, "a", "RuntimeReady", "False");
    look(&mut world, "a", Heard::Lately);
    let condition = ready(&world, "a");
    assert_eq!(
        (condition.status.as_str(), condition.message.as_str()),
        ("False", "it does not answer")
    );
    assert_eq!(world.events("NodeNotReady").len(), 1);
    // However long: its pods run, and it is neither lost nor one of the silent nodes.
    world.advance(3600);
    let again = look(&mut world, "a", Heard::Lately);
    assert_eq!(again.draft.changes(), [], "it is said once");
    assert_eq!(world.live().len(), 4);
    let node = node(&world, "a");
    assert!(taints::of(&node).is_empty());
    let seen = brakes::Seen::of(&node, Duration::ZERO, &world.now);
    assert!(seen.counts && seen.heard && !node_is_ready(&node));
    says(&mut world, "a", "RuntimeReady", "True");
    look(&mut world, "a", Heard::Lately);
    assert_eq!(ready(&world, "a").status, "True");
    // One that falls silent while its runtime hangs is lost like any other.
    says(&mut world, "a", "RuntimeReady", "False");
    look(&mut world, "a", Heard::Lately);
    look(&mut world, "a", Heard::Silent);
    assert_eq!(ready(&world, "a").reason, "NodeStatusUnknown");
}

#[test]
fn a_short_disk_keeps_new_pods_away_and_those_that_are_there_stay() {
    let mut world = world();
    says(&mut world, "a", "DiskPressure", "True");
    // Older managers know no such taint; the node is ready nevertheless.
    look(&mut world, "a", Heard::Lately);
    assert_eq!(ready(&world, "a").status, "True");
    assert!(taints::of(&node(&world, "a")).is_empty());
    world.raise(LOSS);
    for _ in 0..2 {
        look(&mut world, "a", Heard::Lately);
    }
    let tainted = node(&world, "a");
    let keys = taints::of(&tainted).iter().map(|t| (&*t.key, &*t.effect));
    let pressure = ("node.kubernetes.io/disk-pressure", "NoSchedule");
    assert_eq!(keys.collect::<Vec<_>>(), [pressure]);
    assert_eq!(ready(&world, "a").status, "True");
    assert_eq!(world.live().len(), 4);
    says(&mut world, "a", "DiskPressure", "False");
    look(&mut world, "a", Heard::Lately);
    assert!(taints::of(&node(&world, "a")).is_empty());
}

#[test]
fn a_node_that_never_connected_is_not_ready_and_says_why() {
    let mut world = World::default();
    let uid = world.uid();
    world.put(Record::Node(Node {
        metadata: Some(ObjectMeta {
            name: "new".into(),
            uid,
            ..ObjectMeta::default()
        }),
        ..Node::default()
    }));
    look(&mut world, "new", Heard::Silent);
    assert_eq!(ready(&world, "new").reason, "NodeStatusNeverUpdated");
    // Heard, but nobody knows what it has: not yet.
    assert_eq!(look(&mut world, "new", Heard::Lately), Plan::default());
    let mut status = node(&world, "new").status.clone().unwrap();
    status.allocatable = allocatable(1, 1, 1);
    let metadata = node(&world, "new").metadata.clone();
    world.put_status(Record::Node(Node {
        metadata,
        status: Some(status),
        ..Node::default()
    }));
    look(&mut world, "new", Heard::Lately);
    assert_eq!(ready(&world, "new").status, "True");
}

#[test]
fn a_report_of_the_agent_in_between_is_not_undone() {
    let mut world = world();
    let old = node(&world, "a");
    let mut stamp = world.stamp();
    let late = plan(&world.state, &old, Heard::Silent, true, &mut stamp);
    world.put_status(Record::Node(Node {
        metadata: old.metadata.clone(),
        status: Some(NodeStatus {
            allocatable: allocatable(1, 2, 3),
            ..old.status.clone().unwrap()
        }),
        ..Node::default()
    }));
    let outcome = world.propose(late.draft);
    assert!(outcome.refusal.is_some());
    assert_eq!(world.live().len(), 4);
}

#[test]
fn a_node_with_many_pods_is_emptied_in_batches() {
    let mut world = World::default();
    let node = world.node("a", 1_000_000, 1_000_000, 10_000);
    let uid = world.uid();
    world.put(nginx(&uid, 1100));
    roll(&mut world);
    for pod in world.live() {
        world.bind(&pod, &node);
    }
    for left in [600, 100, 0] {
        look(&mut world, "a", Heard::Silent);
        assert_eq!(world.live().len(), left);
    }
    assert_eq!(look(&mut world, "a", Heard::Silent).draft.changes(), []);
}

/// A leader's clock and ears.
#[derive(Debug)]
struct Leading {
    now: Mutex<Instant>,
    attentive: Mutex<Instant>,
    heard: Mutex<BTreeMap<String, Instant>>,
    confirmed: Mutex<BTreeMap<String, Instant>>,
}

impl Default for Leading {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            now: Mutex::new(now),
            attentive: Mutex::new(now),
            heard: Mutex::default(),
            confirmed: Mutex::default(),
        }
    }
}

impl Leading {
    fn advance(&self, by: Duration) {
        *self.now.lock().unwrap() += by;
    }

    /// A sign of the node comes in, with the echo of an answer, or without because it waited somewhere.
    fn hear(&self, uid: &str, fresh: bool) {
        let now = self.monotonic();
        self.heard.lock().unwrap().insert(uid.to_owned(), now);
        if fresh {
            self.confirmed.lock().unwrap().insert(uid.to_owned(), now);
        }
    }

    /// The leader stood still for that long.
    fn pause(&self, by: Duration) {
        self.advance(by);
        *self.attentive.lock().unwrap() = self.monotonic();
    }
}

fn times() -> NodeTimes {
    NodeTimes {
        patience: Duration::ZERO,
        grace: GRACE,
        loss_interval: Duration::from_secs(1),
    }
}

fn lifecycle(leading: &Arc<Leading>) -> Lifecycle {
    Lifecycle::new(leading.clone(), leading.clone(), times())
}

impl Stamps for Leading {
    fn now(&self) -> Time {
        Time::default()
    }
    fn monotonic(&self) -> Instant {
        *self.now.lock().unwrap()
    }
    fn seed(&self) -> [u8; 32] {
        [0; 32]
    }
}

impl NodeHeartbeats for Leading {
    fn last_heard(&self, uid: &str) -> Option<Instant> {
        self.heard.lock().unwrap().get(uid).copied()
    }

    fn confirmed(&self, uid: &str) -> Option<Instant> {
        self.confirmed.lock().unwrap().get(uid).copied()
    }

    fn attentive_since(&self) -> Instant {
        *self.attentive.lock().unwrap()
    }
}

#[test]
fn a_new_leader_waits_one_grace_period_and_not_more() {
    let mut world = world();
    look(&mut world, "a", Heard::Lately);
    let uid = node(&world, "a").uid().to_owned();
    let leading = Arc::new(Leading::default());
    // It takes over from another one, which heard the node until now.
    let controller = lifecycle(&leading);
    let begun = leading.monotonic();
    loop {
        let mut stamp = world.stamp();
        let plan = controller.plan(&world.state, &Key::Node(uid.clone()), &mut stamp);
        let led = leading.monotonic() - begun;
        if !plan.draft.is_empty() {
            assert!(led > GRACE, "{led:?} is too early");
            assert!(led <= GRACE + POLL, "{led:?} is too late");
            world.follow(plan);
            break;
        }
        // It looks again by itself, whatever happens elsewhere.
        leading.advance(plan.again.expect("it looks again"));
    }
    assert_eq!(ready(&world, "a").reason, "NodeStatusUnknown");

    // One that is heard in time stays.
    let controller = lifecycle(&leading);
    let uid = node(&world, "b").uid().to_owned();
    look(&mut world, "b", Heard::Lately);
    for _ in 0..100 {
        leading.advance(GRACE / 2);
        leading.hear(&uid, true);
        let mut stamp = world.stamp();
        let plan = controller.plan(&world.state, &Key::Node(uid.clone()), &mut stamp);
        assert_eq!(plan.draft.changes(), []);
    }
}

#[test]
fn a_node_has_the_labels_that_say_what_its_machine_is() {
    let mut world = world();
    let mut node = Node::clone(&node(&world, "a"));
    // Somebody took one away, wrote another one, and has one of their own.
    node.metadata.as_mut().unwrap().labels = BTreeMap::from(
        [("kubernetes.io/os", "plan9"), ("tier", "one")]
            .map(|(key, value)| (key.into(), value.into())),
    );
    world.put(Record::Node(node.clone()));
    node.status.as_mut().unwrap().node_info = Some(NodeSystemInfo {
        operating_system: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        ..NodeSystemInfo::default()
    });
    world.put_status(Record::Node(node));
    look(&mut world, "a", Heard::Lately);
    let labels = self::node(&world, "a").meta().labels.clone();
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    let expected = [
        ("kubernetes.io/arch", "amd64"),
        ("kubernetes.io/hostname", "a"),
        ("kubernetes.io/os", "linux"),
        ("tier", "one"),
    ];
    assert_eq!(labels, expected);
    let again = look(&mut world, "a", Heard::Lately);
    assert_eq!(again.draft.changes(), [], "it is said once");
}
