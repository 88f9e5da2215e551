//! The controller of nodes through any sequence of silence, partitions and pauses of the leader, against a plain model of which
//! node may be lost when. The model keeps every sign that came in, and every moment at which the leader woke up.

use super::*;
use barge_proto::v1::Taint;
use barge_state::node_is_ready;
use proptest::{collection::vec, prelude::*, sample::Index};

const TICK: u64 = 250;
const SIGN: u64 = 1000;

#[derive(Debug, Clone)]
enum Step {
    /// One node is cut off, or heard again.
    Cut(Index, bool),
    /// So many nodes, from the first one on, are cut off; the others are heard again.
    Partition(Index),
    /// The leader stands still for so many milliseconds.
    Pause(u64),
    /// Signs of a dead node come out of a buffer.
    Stale(Index),
    /// A person says that the machine of a node is off.
    Confirm(Index),
    /// So many ticks go by.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), any::<bool>()).prop_map(|(node, cut)| Step::Cut(node, cut)),
        2 => index().prop_map(Step::Partition),
        2 => (1..90_000_u64).prop_map(Step::Pause),
        1 => index().prop_map(Step::Stale),
        1 => index().prop_map(Step::Confirm),
        8 => (1..40_u64).prop_map(Step::Wait),
    ]
}

/// The cluster, and what the model knows of it. Times are milliseconds since the beginning.
struct Run {
    world: World,
    leading: Arc<Leading>,
    controller: Lifecycle,
    uids: Vec<String>,
    cut: Vec<bool>,
    now: u64,
    /// When each node's last sign came in.
    signs: Vec<u64>,
    /// When the leader woke up last.
    woke: u64,
    /// Nodes by the time at which they were lost, in order.
    losses: Vec<(u64, usize)>,
}

impl Run {
    fn new(nodes: usize) -> Self {
        let mut world = World::default();
        world.raise(LOSS);
        let mut uids = Vec::new();
        for number in 0..nodes {
            let node = world.node(&format!("n{number}"), 1000, 1000, 10);
            uids.push(node.uid().to_owned());
        }
        let leading = Arc::new(Leading::default());
        Self {
            world,
            controller: lifecycle(&leading),
            leading,
            uids,
            cut: vec![false; nodes],
            now: 0,
            signs: vec![0; nodes],
            woke: 0,
            losses: Vec::new(),
        }
    }

    fn perform(&mut self, step: &Step) {
        let count = self.uids.len();
        match step {
            Step::Cut(index, cut) => self.cut[index.index(count)] = *cut,
            Step::Partition(index) => {
                let away = index.index(count + 1);
                self.cut = (0..count).map(|number| number < away).collect();
            }
            Step::Pause(length) => {
                self.leading.pause(Duration::from_millis(*length));
                self.turn(*length);
                self.woke = self.now;
                self.look();
            }
            Step::Stale(index) => self.sign(index.index(count), false),
            Step::Confirm(index) => self.confirm(index.index(count)),
            Step::Wait(ticks) => (0..*ticks).for_each(|_| self.tick()),
        }
    }

    fn turn(&mut self, by: u64) {
        let before = self.now / 1000;
        self.now += by;
        let seconds = self.now / 1000 - before;
        self.world.advance(i64::try_from(seconds).unwrap());
    }

    fn tick(&mut self) {
        self.leading.advance(Duration::from_millis(TICK));
        self.turn(TICK);
        for number in 0..self.uids.len() {
            if !self.cut[number] && self.now >= self.signs[number] + SIGN {
                self.sign(number, true);
            }
        }
        self.look();
    }

    fn sign(&mut self, number: usize, fresh: bool) {
        self.leading.hear(&self.uids[number], fresh);
        self.signs[number] = self.now;
    }

    fn node(&self, number: usize) -> Arc<Node> {
        self.world.by_uid::<Node>(&self.uids[number])
    }

    fn is_lost(&self, number: usize) -> bool {
        is_lost(&self.node(number))
    }

    fn is_off(&self, number: usize) -> bool {
        taints::has(&self.node(number), taints::OUT_OF_SERVICE)
    }

    /// As the API lets a person do it.
    fn confirm(&mut self, number: usize) {
        if node_is_ready(&self.node(number)) || self.is_off(number) {
            return;
        }
        let mut node = Node::clone(&self.node(number));
        node.spec.as_mut().unwrap().taints.push(Taint {
            key: taints::OUT_OF_SERVICE.to_owned(),
            effect: taints::NO_EXECUTE.to_owned(),
            ..Taint::default()
        });
        self.world.put(Record::Node(node));
    }

    /// Looks at everything once, and holds what becomes of it against the model.
    fn look(&mut self) {
        let nodes = self.uids.iter().cloned().map(Key::Node);
        let keys: Vec<_> = nodes.chain([Key::Cluster]).collect();
        for key in keys {
            let each = 0..self.uids.len();
            let before: Vec<_> = each
                .clone()
                .map(|number| (self.is_lost(number), self.is_off(number)))
                .collect();
            let mut stamp = self.world.stamp();
            let plan = self.controller.plan(&self.world.state, &key, &mut stamp);
            self.world.follow(plan);
            for number in each {
                match (before[number], self.is_lost(number)) {
                    ((false, is_off), true) => self.check_loss(number, is_off),
                    ((true, _), false) => self.check_return(number),
                    _ => {}
                }
            }
        }
    }

    /// Whether the leader, awake, heard nothing of the node for longer than that.
    fn is_missed(&self, number: usize, span: u64) -> bool {
        self.now > self.woke.max(self.signs[number]) + span
    }

    fn lost_at(&self, number: usize) -> Option<u64> {
        let mut losses = self.losses.iter().rev();
        losses.find(|(_, lost)| *lost == number).map(|(at, _)| *at)
    }

    fn check_loss(&mut self, number: usize, is_off: bool) {
        let missed = self.is_missed(number, 4000);
        assert!(missed, "it was heard, or the leader slept");
        if !is_off {
            let is_long_lost = |other: &usize| {
                let since = self.lost_at(*other);
                // The state has whole seconds here.
                self.is_lost(*other) && since.is_some_and(|at| at / 1000 + 600 <= self.now / 1000)
            };
            let mut counted: Vec<_> = (0..self.uids.len()).collect();
            counted.retain(|other| !is_long_lost(other));
            let silent = counted.iter().filter(|it| self.is_missed(**it, 2000));
            let (silent, counted) = (silent.count(), counted.len());
            assert!(silent < counted, "all are silent");
            assert!(
                silent < 3 || silent * 100 < counted * 55,
                "{silent} of {counted} are too many"
            );
            if let Some((last, _)) = self.losses.last() {
                assert!(self.now >= last + 1000, "two within a second");
            }
        }
        self.losses.push((self.now, number));
    }

    fn check_return(&self, number: usize) {
        assert!(!self.is_missed(number, 4000));
        let confirmed = self.leading.confirmed(&self.uids[number]).unwrap();
        let age = self.leading.monotonic().duration_since(confirmed);
        let lived = self.now - u64::try_from(age.as_millis()).unwrap();
        assert!(Some(lived) > self.lost_at(number), "a stale sign");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn only_what_may_be_lost_is_lost(nodes in 1..9_usize, steps in vec(step(), 1..40)) {
        let mut run = Run::new(nodes);
        for step in &steps {
            run.perform(step);
        }
        // Whatever happened: when all is well again nothing is lost, and of several machines a dead one is missed in time.
        run.cut = vec![false; nodes];
        run.perform(&Step::Wait(12));
        prop_assert!((0..nodes).all(|number| !run.is_lost(number)));
        run.cut[0] = true;
        run.perform(&Step::Wait(24));
        prop_assert_eq!(run.is_lost(0), nodes > 1);
    }
}

#[test]
fn a_pause_of_all_managers_loses_nothing() {
    let mut run = Run::new(5);
    run.perform(&Step::Wait(40));
    run.perform(&Step::Pause(60_000));
    run.perform(&Step::Wait(40));
    assert_eq!(run.losses, []);
    assert_eq!(run.world.events("NodeNotReady").len(), 0);
}

#[test]
fn a_cut_through_most_nodes_is_told_once_and_a_machine_that_is_off_is_lost_all_the_same() {
    let mut run = Run::new(5);
    run.perform(&Step::Wait(8));
    for number in 0..3 {
        run.cut[number] = true;
    }
    run.perform(&Step::Wait(100));
    assert_eq!(run.losses, []);
    assert_eq!(run.world.events("TaintingPaused").len(), 1);
    let held = |run: &Run| brakes::held(&run.world.state, &run.world.now);
    let said = held(&run).unwrap();
    assert!(
        said.starts_with("3 of 5 nodes are silent at once"),
        "{said}"
    );
    assert!(said.contains("--confirm`"), "{said}");
    run.confirm(1);
    run.tick();
    assert!(run.is_lost(1) && !run.is_lost(0) && !run.is_lost(2));
    run.cut = vec![false; 5];
    run.perform(&Step::Wait(12));
    assert_eq!(held(&run), None);
    assert!((0..5).all(|number| !run.is_lost(number)));
}

#[test]
fn nodes_that_were_cut_off_together_return_one_after_the_other_and_none_is_lost() {
    let mut run = Run::new(2);
    run.perform(&Step::Wait(8));
    run.cut = vec![true; 2];
    run.perform(&Step::Wait(40));
    run.cut[0] = false;
    run.perform(&Step::Wait(12));
    run.cut[1] = false;
    run.perform(&Step::Wait(12));
    assert_eq!(run.losses, []);
    run.cut[1] = true;
    run.perform(&Step::Wait(24));
    assert!(run.is_lost(1), "its silence counts again");
}
