//! Init containers, sidecars, and how a pod comes to its end.

use proptest::prelude::*;

use super::{
    generated::{any_state, perform, settle},
    *,
};

/// A pod of one container, "main"; an init container whose name begins with "side" is a sidecar.
fn with_init(policy: &str, init: &[&str]) -> Pod {
    let mut made = pod(policy, &["main"]);
    let init = init.iter().map(|name| v1::Container {
        name: (*name).into(),
        image: "i".into(),
        restart_policy: if name.starts_with("side") {
            "Always"
        } else {
            ""
        }
        .into(),
        ..Default::default()
    });
    made.spec.as_mut().unwrap().init_containers = init.collect();
    made
}

/// A pod on a machine, with what its worker remembers.
struct Case {
    pod: Pod,
    observed: Observed,
    memory: Memory,
    /// What was started, in order.
    started: Vec<String>,
    /// What was stopped, in order, and within which seconds.
    stopped: Vec<(String, u64)>,
    now: i64,
}

impl Case {
    fn new(pod: Pod) -> Self {
        Self {
            pod,
            observed: Observed::default(),
            memory: Memory::default(),
            started: Vec::new(),
            stopped: Vec::new(),
            now: 1_000_000,
        }
    }

    fn now(&self) -> Now<'_> {
        Now {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
        }
    }

    /// Does what there is to do, as the worker does.
    fn settle(&mut self, ending: bool) {
        let pod = self.pod.clone();
        for _ in 0..100 {
            self.memory
                .absorb(&self.observed, &LastWords::new(), self.now);
            self.memory.initialized |= self.now().is_initialized();
            let over = ending || self.now().is_over();
            if over && self.memory.ending_ms.is_none() {
                self.memory.ending_ms = Some(self.now);
            }
            let grace = Duration::from_secs(30);
            let goal = match ending {
                true => Goal::End(Some(&pod), grace),
                false => Goal::Run(&pod),
            };
            let plan = next_steps(goal, &self.observed, &self.memory, self.now);
            if plan.steps.is_empty() {
                return;
            }
            for step in plan.steps {
                match &step {
                    Step::Start { container, .. } => self.started.push(container.clone()),
                    Step::Stop { id, grace } => self.stopped.push((id.clone(), grace.as_secs())),
                    _ => {}
                }
                perform(&step, &mut self.observed, &mut self.memory, false, self.now);
            }
            self.now += 5_000;
        }
        panic!("never settles");
    }

    /// The newest attempt of a container ends.
    fn ends(&mut self, name: &str, code: u32) {
        let id = self.observed.current(name).unwrap().id.clone();
        let mut all = self.observed.containers.iter_mut();
        all.find(|it| it.id == id).unwrap().state = exited(code, self.now);
        // Beyond any back-off.
        self.now += 1_000_000;
    }

    fn is_finished(&self) -> bool {
        is_finished(&self.pod, &self.observed, &self.memory)
    }
}

#[test]
fn init_containers_run_one_after_the_other_before_the_others() {
    let mut case = Case::new(with_init("Always", &["a", "b"]));
    case.settle(false);
    assert_eq!(case.started, ["a"]);
    case.ends("a", 1);
    case.settle(false);
    assert_eq!(case.started, ["a", "a"], "it failed, and runs again");
    case.ends("a", 0);
    case.settle(false);
    assert_eq!(case.started, ["a", "a", "b"]);
    assert!(!case.memory.initialized);
    case.ends("b", 0);
    case.settle(false);
    assert_eq!(case.started, ["a", "a", "b", "main"]);
    assert!(case.memory.initialized);
    case.ends("main", 1);
    case.settle(false);
    assert_eq!(case.started, ["a", "a", "b", "main", "main"]);
}

#[test]
fn an_init_container_that_fails_ends_a_pod_that_runs_once() {
    let mut case = Case::new(with_init("Never", &["side", "a"]));
    case.settle(false);
    assert_eq!(case.started, ["side", "a"]);
    case.ends("a", 3);
    assert!(!case.is_finished());
    case.settle(false);
    assert_eq!(case.started, ["side", "a"]);
    assert_eq!(case.stopped, [("side-0".to_owned(), 30)]);
    assert!(case.is_finished());
}

#[test]
fn a_sidecar_is_waited_for_until_it_has_started_and_runs_on() {
    let mut case = Case::new(with_init("OnFailure", &["side1", "side2"]));
    let name = "side1";
    case.memory.container(name).starting = Some("side1-0".to_owned());
    case.settle(false);
    assert_eq!(case.started, ["side1"], "its hook is not done");
    case.memory.container(name).starting = None;
    case.settle(false);
    assert_eq!(case.started, ["side1", "side2", "main"]);
    case.ends("side1", 0);
    case.settle(false);
    assert_eq!(case.started[3..], ["side1"], "whatever its exit code");
    case.ends("main", 0);
    assert!(!case.is_finished());
    case.settle(false);
    let ids: Vec<_> = case.stopped.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["side2-0", "side1-1"], "the last one first");
    assert!(case.is_finished());
}

#[test]
fn a_deletion_stops_sidecars_last_within_the_same_grace() {
    let mut case = Case::new(with_init("Always", &["side1", "side2"]));
    case.settle(false);
    case.settle(true);
    let stopped = [("main-0", 30), ("side2-0", 25), ("side1-0", 20)];
    let stopped = stopped.map(|(id, grace)| (id.to_owned(), grace));
    assert_eq!(case.stopped, stopped);
    assert!(case.observed.is_empty());
}

#[test]
fn a_new_network_has_the_init_containers_run_again() {
    let mut case = Case::new(with_init("Always", &["a", "side"]));
    case.settle(false);
    case.ends("a", 0);
    case.settle(false);
    assert_eq!(case.started, ["a", "side", "main"]);
    // The machine was booted.
    case.observed.sandbox = None;
    for container in &mut case.observed.containers {
        container.state = ContainerState::Lost;
    }
    case.memory
        .absorb(&case.observed, &LastWords::new(), case.now);
    assert!(case.memory.begins_anew());
    assert!(!case.memory.begins_anew());
    case.now += 1_000_000;
    case.settle(false);
    assert_eq!(case.started[3..], ["a"]);
    case.ends("a", 0);
    case.settle(false);
    assert_eq!(case.started[4..], ["side", "main"]);
}

#[test]
fn a_pod_that_failed_is_ended_and_not_started_again() {
    let mut case = Case::new(with_init("Always", &["side"]));
    case.settle(false);
    case.memory.failed = Some(PodFailure {
        reason: "DeadlineExceeded".to_owned(),
        message: String::new(),
    });
    assert!(!case.is_finished());
    case.settle(false);
    let ids: Vec<_> = case.stopped.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["main-0", "side-0"]);
    assert!(case.is_finished());
    assert_eq!(case.started, ["side", "main"]);
}

proptest! {
    /// Whatever is found of a pod with init containers, and whatever fails: it settles, and runs what it should.
    #[test]
    fn any_start_of_a_pod_with_init_containers_settles(
        states in proptest::collection::btree_map(
            (prop_oneof![Just("a"), Just("side"), Just("main")], 0u32..3),
            any_state(),
            0..6,
        ),
        has_sandbox in any::<bool>(),
        initialized in any::<bool>(),
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        fails in proptest::collection::vec(any::<bool>(), 0..30),
    ) {
        let pod = with_init(policy, &["a", "side"]);
        let containers = states.into_iter();
        let containers = containers.map(|((name, attempt), state)| container(name, attempt, state));
        let mut observed = Observed {
            sandbox: sandbox().filter(|_| has_sandbox),
            containers: containers.collect(),
        };
        let mut memory = Memory { initialized, ..Memory::default() };
        let mut fails = fails.into_iter();
        // Each round an init container that runs ends well.
        for _ in 0..5 {
            let rounds = settle(Goal::Run(&pod), &mut observed, &mut memory, &mut fails);
            prop_assert!(rounds < usize::MAX, "never settles: {observed:?} {memory:?}");
            let now = Now { pod: &pod, observed: &observed, memory: &memory };
            memory.initialized = now.is_initialized();
            for it in observed.containers.iter_mut().filter(|it| it.name == "a" && is_running(it)) {
                it.state = exited(0, 1_000_000);
            }
        }
        if observed.is_damaged() {
            // Set aside: what runs goes on running.
            return Ok(());
        }
        let over = Now { pod: &pod, observed: &observed, memory: &memory }.is_over();
        let runs = |name: &str| observed.current(name).is_some_and(is_running);
        if over {
            prop_assert!(!runs("main") && !runs("side") && policy != "Always");
        } else {
            prop_assert!(memory.initialized && runs("side"));
            prop_assert!(runs("main") || memory.containers["main"].last_exit().is_some());
        }
    }
}
