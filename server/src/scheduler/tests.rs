#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

//! The scheduler against a naive one, which computes every filter and score anew from the state for
//! each pod.

mod explanations;
mod naive;
mod property;

use super::{
    aside::Aside,
    batch::{place, tell},
    cluster::{Cluster, Placement, Snapshot},
};
use crate::controllers::{guard::catch, plan::controller_reference, testing::World};
use barge_proto::v1::{
    Bind, Container, ContainerPort, Namespace, Node, ObjectMeta, PodRecord, PodSpec,
    PodTemplateSpec, Quantity, ResourceRequirements, Revision, Taint, Toleration, change::Change,
    record::Record,
};
use barge_state::Kind;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A label; placing pods of a class that asks for it panics.
pub(super) const POISON: &str = "test/poison";
/// A label; saying why pods of a class that asks for it fit nowhere panics.
pub(super) const POISONS_EXPLAIN: &str = "test/poisons-explain";

/// A world, and a scheduler that follows it.
struct Scheduled {
    world: World,
    cluster: Cluster,
    aside: Aside,
    now: Instant,
}

impl Scheduled {
    fn new(world: World) -> Self {
        let cluster = Cluster::new(&Snapshot::of(&world.state));
        Self {
            world,
            cluster,
            aside: Aside::default(),
            now: Instant::now(),
        }
    }

    /// Sees what has changed.
    fn follow(&mut self) {
        for change in std::mem::take(&mut self.world.changes) {
            self.cluster.apply(&change);
        }
    }

    fn place(&mut self, limit: usize) -> Vec<Placement> {
        self.follow();
        place(&mut self.cluster, &mut self.aside, limit, self.now)
    }

    /// Proposes a batch; returns the answers.
    fn bind(&mut self, batch: &[Placement]) -> Vec<String> {
        let changes = batch.iter().map(|placement| barge_proto::v1::Change {
            change: Some(Change::Bind(Bind {
                pod_uid: placement.pod_uid.clone(),
                node_uid: placement.node_uid.clone(),
            })),
        });
        let outcome = self.world.submit(changes.collect());
        assert_eq!(outcome.refusal, None);
        outcome.binds
    }

    /// Places and binds until nothing more can be placed; returns node names by pod name.
    fn run(&mut self) -> BTreeMap<String, String> {
        loop {
            let batch = self.place(3);
            if batch.is_empty() {
                break;
            }
            assert!(self.bind(&batch).iter().all(String::is_empty));
        }
        let pods = self.world.pods();
        let bound = pods.iter().filter(|pod| pod.is_bound());
        bound
            .map(|pod| {
                let node = self.world.by_uid::<Node>(pod.node_uid());
                (pod.meta().name.clone(), node.meta().name.clone())
            })
            .collect()
    }
}

/// A template that requests so many millicores and MiB, 0 for none, of nodes with these labels.
fn revision(
    world: &mut World,
    name: &str,
    request: (i64, i64),
    selector: &[(&str, &str)],
) -> String {
    let uid = world.uid();
    let (cpu, memory) = request;
    // Something that keeps the template when its last pod goes.
    let owner = ObjectMeta {
        name: "owner".to_owned(),
        uid: "owner".to_owned(),
        ..ObjectMeta::default()
    };
    world.put(Record::Namespace(Namespace {
        metadata: Some(owner.clone()),
        ..Namespace::default()
    }));
    let mut requests = BTreeMap::new();
    for (key, amount, unit) in [("cpu", cpu, "m"), ("memory", memory, "Mi")] {
        if amount > 0 {
            let value = format!("{amount}{unit}");
            requests.insert(key.to_owned(), Quantity { value });
        }
    }
    world.put(Record::Revision(Revision {
        metadata: Some(ObjectMeta {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            uid: uid.clone(),
            owner_references: vec![controller_reference("v1", "Namespace", &owner)],
            ..ObjectMeta::default()
        }),
        number: 1,
        status: None,
        template: Some(PodTemplateSpec {
            metadata: None,
            spec: Some(PodSpec {
                containers: vec![Container {
                    name: "main".to_owned(),
                    resources: Some(ResourceRequirements {
                        requests,
                        ..ResourceRequirements::default()
                    }),
                    ..Container::default()
                }],
                node_selector: selector
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
                ..PodSpec::default()
            }),
        }),
    }));
    uid
}

/// A template whose pods tolerate the taint of [`taint`].
fn tolerant_revision(world: &mut World, name: &str) -> String {
    let template = revision(world, &format!("{name}-template"), (1, 1), &[]);
    let mut tolerant = Revision::clone(&world.by_uid::<Revision>(&template));
    let uid = world.uid();
    let meta = tolerant.meta_mut();
    meta.uid.clone_from(&uid);
    name.clone_into(&mut meta.name);
    let spec = tolerant.template.as_mut().unwrap().spec.as_mut().unwrap();
    spec.tolerations = vec![Toleration {
        key: "dedicated".to_owned(),
        operator: "Exists".to_owned(),
        ..Toleration::default()
    }];
    world.put(Record::Revision(tolerant));
    uid
}

/// A template whose pods claim port 80 of an address of their node; "" is all of them.
fn claiming_revision(world: &mut World, name: &str, host_ip: &str) -> String {
    let template = revision(world, &format!("{name}-template"), (1, 1), &[]);
    let mut claiming = Revision::clone(&world.by_uid::<Revision>(&template));
    let uid = world.uid();
    let meta = claiming.meta_mut();
    meta.uid.clone_from(&uid);
    name.clone_into(&mut meta.name);
    let spec = claiming.template.as_mut().unwrap().spec.as_mut().unwrap();
    spec.containers[0].ports = vec![ContainerPort {
        container_port: 80,
        host_port: 80,
        host_ip: host_ip.to_owned(),
        ..ContainerPort::default()
    }];
    world.put(Record::Revision(claiming));
    uid
}

fn taint(node: &mut Node, tainted: bool) {
    let taint = Taint {
        key: "dedicated".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    node.spec.get_or_insert_default().taints = tainted.then_some(taint).into_iter().collect();
}

fn pod(world: &mut World, name: &str, template_uid: &str) -> String {
    let uid = world.uid();
    world.put(Record::Pod(PodRecord {
        metadata: Some(ObjectMeta {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            uid: uid.clone(),
            ..ObjectMeta::default()
        }),
        template_uid: template_uid.to_owned(),
        ..PodRecord::default()
    }));
    uid
}

fn edit_node(world: &mut World, node: &Arc<Node>, edit: impl FnOnce(&mut Node)) {
    let mut node = Node::clone(&world.by_uid::<Node>(node.uid()));
    edit(&mut node);
    world.put(Record::Node(node.clone()));
    world.put_status(Record::Node(node));
}

#[test]
fn the_least_required_over_available_wins() {
    let mut world = World::default();
    world.node("small", 1000, 4000, 10);
    world.node("wide", 4000, 500, 10);
    world.node("even", 2000, 2000, 10);
    // 100m of 1000, 2000 or 4000 and 100Mi of 4000, 2000 or 500: 0.1, 0.05 and 0.2 by the scarcer
    // one. Each has room for 10 pods: 0.1, which is the maximum on the even one.
    let class = revision(&mut world, "web", (250, 250), &[]);
    pod(&mut world, "web-1", &class);
    let placed = Scheduled::new(world).run();
    assert_eq!(placed["web-1"], "even");
}

#[test]
fn ties_go_to_fewer_of_the_revision_then_fewer_pods_then_by_name() {
    let mut world = World::default();
    for name in ["c", "a", "b"] {
        world.node(name, 4000, 4000, 1000);
    }
    let web = revision(&mut world, "web", (1, 1), &[]);
    for number in 0..3 {
        world.advance(1);
        pod(&mut world, &format!("web-{number}"), &web);
    }
    let placed = Scheduled::new(world).run();
    let nodes: Vec<_> = placed.values().map(String::as_str).collect();
    assert_eq!(nodes, ["a", "b", "c"]);
}

#[test]
fn pods_without_requests_spread_by_what_nodes_have() {
    let mut world = World::default();
    world.node("big", 3000, 6000, 1000);
    world.node("little", 1000, 2000, 1000);
    let web = revision(&mut world, "web", (0, 0), &[]);
    for number in 0..24 {
        pod(&mut world, &format!("web-{number}"), &web);
    }
    let placed = Scheduled::new(world).run();
    // The big one alone until it has as little left as the other, then both in turn.
    let big = placed.values().filter(|node| *node == "big").count();
    assert_eq!((big, placed.len()), (22, 24));
}

#[test]
fn a_class_that_fits_nowhere_holds_up_nobody() {
    let mut world = World::default();
    world.node("a", 1000, 1000, 100);
    let huge = revision(&mut world, "huge", (5000, 1), &[]);
    let web = revision(&mut world, "web", (10, 10), &[]);
    pod(&mut world, "huge-1", &huge);
    world.advance(1);
    pod(&mut world, "web-1", &web);
    let mut scheduled = Scheduled::new(world);
    assert_eq!(scheduled.run().into_keys().collect::<Vec<_>>(), ["web-1"]);
    // It is placed as soon as there is a place.
    scheduled.world.node("b", 8000, 1000, 100);
    assert_eq!(scheduled.run()["huge-1"], "b");
}

#[test]
fn a_refused_binding_is_undone_and_tried_again() {
    let mut world = World::default();
    let node = world.node("a", 1000, 1000, 100);
    let web = revision(&mut world, "web", (600, 1), &[]);
    pod(&mut world, "web-1", &web);
    let mut scheduled = Scheduled::new(world);
    let batch = scheduled.place(10);
    assert_eq!(batch.len(), 1);
    // Before the batch is applied the node is taken out.
    edit_node(&mut scheduled.world, &node, |node| {
        node.spec.as_mut().unwrap().unschedulable = true;
    });
    let answers = scheduled.bind(&batch);
    assert_eq!(answers, ["the node is unschedulable"]);
    scheduled.cluster.refused(&batch[0].pod_uid, scheduled.now);
    assert_eq!(scheduled.place(10), []);
    edit_node(&mut scheduled.world, &node, |node| {
        node.spec.as_mut().unwrap().unschedulable = false;
    });
    assert_eq!(scheduled.place(10), [], "its time has not come");
    let release = scheduled.cluster.next_release().unwrap();
    scheduled.cluster.release(release);
    assert_eq!(scheduled.place(10), batch);
    assert_eq!(scheduled.bind(&batch), [""]);
}

#[test]
fn a_binding_of_unknown_outcome_that_was_applied_counts_once() {
    let mut world = World::default();
    world.node("a", 1000, 1000, 100);
    let web = revision(&mut world, "web", (600, 1), &[]);
    pod(&mut world, "web-1", &web);
    let mut scheduled = Scheduled::new(world);
    let batch = scheduled.place(10);
    scheduled.cluster.refused(&batch[0].pod_uid, scheduled.now);
    scheduled.bind(&batch);
    scheduled.follow();
    assert_eq!(scheduled.cluster.next_release(), None);
    // 400m are left: one of 400m fits, a second one doesn't.
    let other = revision(&mut scheduled.world, "other", (400, 1), &[]);
    pod(&mut scheduled.world, "other-1", &other);
    pod(&mut scheduled.world, "other-2", &other);
    assert_eq!(scheduled.run().len(), 2);
}

#[test]
fn a_binding_without_an_answer_is_tried_again_within_a_second_however_often() {
    let mut world = World::default();
    world.node("a", 1000, 1000, 100);
    let web = revision(&mut world, "web", (600, 1), &[]);
    pod(&mut world, "web-1", &web);
    let mut scheduled = Scheduled::new(world);
    for _ in 0..20 {
        let batch = scheduled.place(10);
        assert_eq!(batch.len(), 1);
        scheduled
            .cluster
            .unanswered(&batch[0].pod_uid, scheduled.now);
        assert_eq!(scheduled.place(10), []);
        let release = scheduled.cluster.next_release().unwrap();
        assert!(release - scheduled.now <= Duration::from_secs(1));
        scheduled.now = release;
        scheduled.cluster.release(release);
    }
}

#[test]
fn a_panic_is_charged_to_the_class_that_is_being_placed() {
    for poison in [POISON, POISONS_EXPLAIN] {
        let mut world = World::default();
        world.node("a", 1000, 1000, 100);
        let web = revision(&mut world, "web", (1, 1), &[]);
        pod(&mut world, "web-1", &web);
        let bad = revision(&mut world, "bad", (1, 1), &[(poison, "")]);
        let mut scheduled = Scheduled::new(world);
        assert_eq!(scheduled.place(10).len(), 1);
        assert_eq!(scheduled.cluster.being_placed(), None);
        pod(&mut scheduled.world, "bad-1", &bad);
        assert!(catch(|| scheduled.place(10)).is_err());
        assert_eq!(scheduled.cluster.being_placed(), Some(&*bad), "{poison}");
    }
}
