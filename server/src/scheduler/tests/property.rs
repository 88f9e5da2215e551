//! Any cluster, any sequence of changes: every placement is the one by the definition.

use super::{
    naive::{self, Assumed},
    *,
};
use crate::controllers::testing::{allocatable, condition};
use barge_state::{Usage, is_finished};
use proptest::{prelude::*, sample::Index};

#[derive(Debug, Clone)]
enum Step {
    AddNode(i64, i64, i64, bool),
    RemoveNode(Index),
    Ready(Index, bool),
    Cordon(Index, bool),
    Taint(Index, bool),
    Label(Index, bool),
    Resize(Index, i64, i64, i64),
    Deploy(Index, usize),
    RemovePod(Index),
    Finish(Index),
    /// Decides on so many pods; the batch is applied now or after some more steps.
    Place(usize, bool),
    Apply,
    /// A new leader reads everything anew, so many records at a time, while others remove and create pods and edit nodes.
    Reload(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let size = || (1..9_i64, 1..9_i64, 0..7_i64);
    prop_oneof![
        4 => (size(), any::<bool>()).prop_map(|((cpu, memory, pods), fast)| Step::AddNode(cpu, memory, pods, fast)),
        1 => index().prop_map(Step::RemoveNode),
        2 => (index(), any::<bool>()).prop_map(|(node, ready)| Step::Ready(node, ready)),
        1 => (index(), any::<bool>()).prop_map(|(node, cordon)| Step::Cordon(node, cordon)),
        1 => (index(), any::<bool>()).prop_map(|(node, tainted)| Step::Taint(node, tainted)),
        1 => (index(), any::<bool>()).prop_map(|(node, fast)| Step::Label(node, fast)),
        1 => (index(), size()).prop_map(|(node, (cpu, memory, pods))| Step::Resize(node, cpu, memory, pods)),
        6 => (index(), 1..6_usize).prop_map(|(class, pods)| Step::Deploy(class, pods)),
        3 => index().prop_map(Step::RemovePod),
        2 => index().prop_map(Step::Finish),
        8 => (1..8_usize, any::<bool>()).prop_map(|(limit, now)| Step::Place(limit, now)),
        3 => Just(Step::Apply),
        1 => (1..9_usize).prop_map(Step::Reload),
    ]
}

/// The cluster, the scheduler, and batches that are under way.
struct Run {
    scheduled: Scheduled,
    classes: Vec<String>,
    batches: Vec<Vec<Placement>>,
    assumed: Assumed,
    names: usize,
}

impl Run {
    fn new() -> Self {
        let mut world = World::default();
        let classes = [
            ("none", (0, 0), &[][..]),
            ("cpu", (500, 0), &[]),
            ("both", (700, 300), &[]),
            ("fast", (100, 900), &[("disk", "fast")]),
        ];
        let mut classes: Vec<_> = classes
            .into_iter()
            .map(|(name, request, selector)| revision(&mut world, name, request, selector))
            .collect();
        classes.push(tolerant_revision(&mut world, "tolerant"));
        for (name, host_ip) in [("all", ""), ("first", "192.0.2.1"), ("second", "192.0.2.2")] {
            classes.push(claiming_revision(&mut world, name, host_ip));
        }
        Self {
            scheduled: Scheduled::new(world),
            classes,
            batches: Vec::new(),
            assumed: Assumed::new(),
            names: 0,
        }
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.scheduled
            .world
            .state
            .list::<Node>(None)
            .cloned()
            .collect()
    }

    fn edit(&mut self, index: &Index, edit: impl FnOnce(&mut Node)) {
        let nodes = self.nodes();
        if !nodes.is_empty() {
            edit_node(&mut self.scheduled.world, index.get(&nodes), edit);
        }
    }

    fn perform(&mut self, step: &Step) {
        self.scheduled.world.advance(1);
        match step {
            Step::AddNode(cpu, memory, pods, fast) => {
                self.names += 1;
                // Names in no order of their own.
                let name = format!("node-{}", self.names * 7 % 10);
                let world = &mut self.scheduled.world;
                if self.names <= 10 {
                    let node = world.node(&name, cpu * 500, memory * 500, *pods);
                    if *fast {
                        edit_node(world, &node, |node| label(node, true));
                    }
                }
            }
            Step::RemoveNode(index) => {
                let nodes = self.nodes();
                if !nodes.is_empty() {
                    self.scheduled.world.remove(&**index.get(&nodes));
                }
            }
            Step::Ready(index, ready) => {
                let now = self.scheduled.world.now;
                self.edit(index, |node| {
                    let status = node.status.get_or_insert_default();
                    status.conditions = vec![condition("Ready", *ready, now)];
                });
            }
            Step::Cordon(index, cordon) => self.edit(index, |node| {
                node.spec.get_or_insert_default().unschedulable = *cordon;
            }),
            Step::Taint(index, tainted) => self.edit(index, |node| taint(node, *tainted)),
            Step::Label(index, fast) => self.edit(index, |node| label(node, *fast)),
            Step::Resize(index, cpu, memory, pods) => self.edit(index, |node| {
                let status = node.status.get_or_insert_default();
                status.allocatable = allocatable(cpu * 500, memory * 500, *pods);
            }),
            Step::Deploy(class, pods) => {
                let class = class.get(&self.classes).clone();
                for _ in 0..*pods {
                    self.names += 1;
                    let name = format!("pod-{}", self.names);
                    pod(&mut self.scheduled.world, &name, &class);
                }
            }
            Step::RemovePod(index) => {
                let pods = self.scheduled.world.pods();
                if !pods.is_empty() {
                    self.scheduled.world.remove(&**index.get(&pods));
                }
            }
            Step::Finish(index) => {
                let mut pods = self.scheduled.world.pods();
                pods.retain(|pod| pod.is_bound());
                if !pods.is_empty() {
                    let uid = index.get(&pods).uid().to_owned();
                    self.scheduled.world.report(&uid, "Succeeded", false);
                }
            }
            Step::Place(limit, now) => {
                self.place(*limit);
                if *now {
                    self.apply_all();
                }
            }
            Step::Apply => self.apply_all(),
            Step::Reload(slice) => self.reload(*slice),
        }
    }

    fn reload(&mut self, slice: usize) {
        self.apply_all();
        self.scheduled.world.changes.clear();
        let mut snapshot = Snapshot::default();
        while !snapshot.slice(&self.scheduled.world.state, slice) {
            // Of pods and nodes that were read and that were not. More are removed than created, so that this ends.
            let pods = self.scheduled.world.pods();
            for pod in [pods.first(), pods.last()]
                .into_iter()
                .flatten()
                .take(pods.len())
            {
                self.scheduled.world.remove(&**pod);
            }
            if pods.len() > 4 {
                self.names += 1;
                // Names in no order of their own; a class is new as often as not.
                let name = format!("{}-{}", self.names * 7 % 10, self.names);
                let world = &mut self.scheduled.world;
                if self.names.is_multiple_of(2) {
                    self.classes.push(revision(world, &name, (100, 0), &[]));
                }
                let class = match self.names.is_multiple_of(2) {
                    true => self.classes.last().unwrap().clone(),
                    false => self.classes[self.names % self.classes.len()].clone(),
                };
                pod(world, &name, &class);
            }
            if let Some(node) = self.nodes().first() {
                let even = self.names.is_multiple_of(2);
                edit_node(&mut self.scheduled.world, node, |node| label(node, even));
            }
        }
        self.scheduled.cluster = Cluster::new(&snapshot);
    }

    /// Every placement is the definition's, and nothing that could be placed is left out.
    fn place(&mut self, limit: usize) {
        // The scheduler must not have been told of this: it sees changes only.
        let batch = self.scheduled.place(limit);
        let state = &self.scheduled.world.state;
        self.assumed
            .retain(|pod, _| state.by_uid::<PodRecord>(pod).is_some());
        let mut placed = batch.iter();
        let mut left = limit;
        for pod in naive::waiting(state, &self.assumed) {
            if left == 0 {
                break;
            }
            let Some(node) = naive::best(state, &self.assumed, pod.template_uid()) else {
                continue;
            };
            let expected = Placement {
                pod_uid: pod.uid().to_owned(),
                node_uid: node.clone(),
            };
            assert_eq!(placed.next(), Some(&expected));
            self.assumed.insert(pod.uid().to_owned(), node);
            left -= 1;
        }
        assert_eq!(placed.next(), None);
        self.batches.push(batch);
    }

    fn apply_all(&mut self) {
        for batch in std::mem::take(&mut self.batches) {
            let answers = self.scheduled.bind(&batch);
            for (placement, answer) in batch.iter().zip(answers) {
                self.assumed.remove(&placement.pod_uid);
                if answer.is_empty() {
                    self.check_capacity(&placement.node_uid);
                } else {
                    let now = self.scheduled.now;
                    self.scheduled.cluster.refused(&placement.pod_uid, now);
                    // At once, so that both still see the same.
                    let release = self.scheduled.cluster.next_release();
                    self.scheduled.cluster.release(release.unwrap_or(now));
                }
            }
        }
        self.scheduled.follow();
    }

    fn check_capacity(&self, node_uid: &str) {
        let state = &self.scheduled.world.state;
        let node = state.by_uid::<Node>(node_uid).unwrap();
        let free = Usage::allocatable(node).minus(state.node_usage(node_uid));
        assert!(free.pods >= 0, "too many pods on {}", node.meta().name);
        let there = state.pods_on(node_uid).filter(|pod| !is_finished(pod));
        let ports: Vec<_> = there
            .flat_map(|pod| naive::ports(state, pod.template_uid()))
            .collect();
        for (index, port) in ports.iter().enumerate() {
            assert!(!ports[..index].iter().any(|other| other.conflicts(port)));
        }
    }
}

fn label(node: &mut Node, fast: bool) {
    let value = if fast { "fast" } else { "slow" };
    let labels = &mut node.metadata.as_mut().unwrap().labels;
    labels.insert("disk".to_owned(), value.to_owned());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_placement_is_that_of_the_definition(steps in prop::collection::vec(step(), 1..80)) {
        let mut run = Run::new();
        for step in &steps {
            run.perform(step);
        }
        run.place(1000);
        run.apply_all();
    }
}
