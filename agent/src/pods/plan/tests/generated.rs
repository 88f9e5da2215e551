//! Generated cases: from anywhere, a pod comes to be as it should, and no step breaks a rule on the way.

use proptest::prelude::*;

use super::*;

/// A runtime for generated cases: does a step, or fails it.
pub(super) fn perform(
    step: &Step,
    observed: &mut Observed,
    memory: &mut Memory,
    fails: bool,
    now: i64,
) {
    if fails {
        match step {
            Step::Pull { container } | Step::Start { container, .. } => {
                let memory = memory.container(container);
                memory.pull.failed(QUICK, "E", String::new(), now);
            }
            Step::CreateSandbox => memory.sandbox.failed(QUICK, "E", String::new(), now),
            Step::Volumes { starting: true } => {
                memory.volumes.failed(QUICK, "E", String::new(), now);
            }
            Step::Volumes { starting: false } => {
                memory.refresh.failed(QUICK, "E", String::new(), now);
            }
            Step::LookAtHostPaths => memory.host_paths.failed(QUICK, "E", String::new(), now),
            Step::Measure => memory.measured_ms = now,
            _ => memory.teardown.failed(QUICK, "E", String::new(), now),
        }
        return;
    }
    match step {
        Step::CreateSandbox => observed.sandbox = sandbox(),
        Step::Volumes { .. } => {
            assert!(observed.has_network(), "{step:?} without a sandbox");
            memory.volumes.worked();
            memory.refresh.worked();
            memory.volumes_due = false;
            for name in NAMES {
                memory.container(name).volumes = true;
            }
        }
        Step::LookAtHostPaths => {
            memory.host_paths.worked();
            memory.has_host_paths(&NAMES.map(str::to_owned));
        }
        Step::Measure => memory.measured_ms = now,
        Step::Pull { container } => memory.container(container).image = Some(image()),
        Step::Start {
            container: name,
            attempt,
        } => {
            let others = observed.containers.iter().filter(|c| c.name == *name);
            assert_eq!(others.count(), 0, "{step:?} beside another attempt");
            assert!(observed.has_network(), "{step:?} without a network");
            let remembered = memory.container(name);
            assert!(
                remembered
                    .last_exit()
                    .is_none_or(|exit| exit.attempt < *attempt),
                "{step:?} reuses a number"
            );
            remembered.image = None;
            remembered.prepares_anew();
            observed.put(container(name, *attempt, running()));
        }
        Step::Stop { id, .. } => {
            let stopped = observed.containers.iter_mut().find(|c| c.id == *id);
            stopped.unwrap().state = exited(143, now);
        }
        Step::Remove { id } => {
            let removed = observed.containers.iter().find(|c| c.id == *id).unwrap();
            assert!(!is_running(removed), "{step:?} while it runs");
            observed.forget(id);
        }
        Step::ReleaseSandbox => {
            assert!(observed.containers.is_empty(), "{step:?} under containers");
            assert!(memory.finished.is_some(), "{step:?} of a pod that goes on");
            observed.sandbox.as_mut().unwrap().ips.clear();
        }
        Step::RemoveSandbox => {
            assert!(observed.containers.is_empty(), "{step:?} under containers");
            observed.sandbox = None;
            memory.removed = true;
        }
    }
}

pub(super) fn any_state() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Created),
        Just(running()),
        (0u32..3, 0i64..1_000_000).prop_map(|(code, at)| exited(code, at)),
        Just(ContainerState::Lost),
    ]
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let names = prop_oneof![Just("a"), Just("b"), Just("stranger")];
    let containers = proptest::collection::btree_map((names, 0u32..4), any_state(), 0..6);
    (any::<bool>(), containers).prop_map(|(has_sandbox, containers)| Observed {
        sandbox: sandbox().filter(|_| has_sandbox),
        containers: containers
            .into_iter()
            .map(|((name, attempt), state)| container(name, attempt, state))
            .collect(),
    })
}

/// Applies plans until nothing is left to do; answers in how many rounds.
pub(super) fn settle(
    goal: Goal<'_>,
    observed: &mut Observed,
    memory: &mut Memory,
    mut fails: impl Iterator<Item = bool>,
) -> usize {
    let mut now = 1_000_000;
    for round in 0..200 {
        memory.absorb(observed, &LastWords::new(), now);
        let plan = next_steps(goal, observed, memory, now);
        let is_aside = matches!(goal, Goal::Run(_)) && observed.is_damaged();
        if plan.steps.is_empty() && (plan.wake_ms.is_none() || is_aside) {
            return round;
        }
        for (index, step) in plan.steps.iter().enumerate() {
            assert!(
                !plan.steps[..index].contains(step),
                "{step:?} twice in one plan"
            );
            let fails = fails.next().unwrap_or(false);
            perform(step, observed, memory, fails, now);
        }
        if plan.steps.is_empty() {
            now = plan.wake_ms.unwrap().max(now + 1);
        } else {
            now += 10;
        }
    }
    usize::MAX
}

proptest! {
    #[test]
    fn any_start_converges_to_one_attempt_of_each_container(
        mut observed in any_observed(),
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        fails in proptest::collection::vec(any::<bool>(), 0..30),
        volumes in 0usize..2,
    ) {
        let mut pod = pod(policy, &NAMES);
        let host_path = v1::Volume {
            host_path: Some(v1::HostPathVolumeSource::default()),
            ..v1::Volume::default()
        };
        pod.spec.as_mut().unwrap().volumes = vec![host_path; volumes];
        let untouched: Vec<_> = observed
            .containers
            .iter()
            .filter(|c| {
                NAMES.contains(&c.name.as_str())
                    && is_running(c)
                    && observed.current(&c.name).unwrap().id == c.id
            })
            .map(|c| c.id.clone())
            .collect();
        let mut memory = Memory::default();
        let rounds = settle(Goal::Run(&pod), &mut observed, &mut memory, fails.into_iter());
        prop_assert!(rounds < usize::MAX, "never settles: {observed:?} {memory:?}");
        for id in untouched {
            let there = observed.containers.iter().any(|c| c.id == id && is_running(c));
            prop_assert!(there, "{id} ran as it should and was touched");
        }
        if observed.is_damaged() {
            // Set aside.
            return Ok(());
        }
        for name in NAMES {
            let attempts: Vec<_> = observed.containers.iter().filter(|c| c.name == name).collect();
            prop_assert!(attempts.len() <= 1, "{attempts:?}");
            let runs = attempts.first().is_some_and(|c| is_running(c));
            let ended = memory.containers[name].last_exit().is_some();
            prop_assert!(runs || (policy != "Always" && ended), "{name}: {attempts:?}");
        }
        prop_assert!(observed.containers.iter().all(|c| c.name != "stranger"));
    }

    #[test]
    fn what_nobody_knows_is_left_unless_it_never_ran(
        mut observed in any_observed(),
        fails in proptest::collection::vec(any::<bool>(), 0..30),
    ) {
        let before = observed.containers.clone();
        let ran = before.iter().any(|c| c.state != ContainerState::Created);
        let mut memory = Memory::default();
        let rounds = settle(Goal::Leave, &mut observed, &mut memory, fails.into_iter());
        prop_assert!(rounds < usize::MAX);
        let left: Vec<_> = observed.containers.iter().map(|c| (&c.id, &c.state)).collect();
        if ran {
            let before: Vec<_> = before.iter().map(|c| (&c.id, &c.state)).collect();
            prop_assert_eq!(left, before);
        } else {
            prop_assert!(observed.is_empty());
        }
    }

    #[test]
    fn any_start_converges_to_nothing(
        mut observed in any_observed(),
        fails in proptest::collection::vec(any::<bool>(), 0..30),
    ) {
        let mut memory = Memory::default();
        let goal = Goal::End(None, Duration::from_secs(1));
        let rounds = settle(goal, &mut observed, &mut memory, fails.into_iter());
        prop_assert!(rounds < usize::MAX);
        prop_assert!(observed.is_empty());
        let plan = next_steps(goal, &observed, &memory, i64::MAX / 2);
        prop_assert!(plan.gone);
    }
}
