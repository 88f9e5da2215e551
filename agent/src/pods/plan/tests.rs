#![allow(clippy::unwrap_used)]

use barge_proto::v1::{ObjectMeta, PodSpec};

use super::*;
use crate::{
    pods::{
        backoff::{CrashBackoff, QUICK},
        memory::{LastWords, PodFailure},
    },
    runtime::{Image, Sandbox},
};

mod generated;
mod stages;

const UID: &str = "uid-1";
const NAMES: [&str; 2] = ["a", "b"];

fn pod(policy: &str, names: &[&str]) -> Pod {
    Pod {
        metadata: Some(ObjectMeta {
            uid: UID.into(),
            ..Default::default()
        }),
        spec: Some(v1::PodSpec {
            containers: names
                .iter()
                .map(|name| v1::Container {
                    name: (*name).into(),
                    image: "i".into(),
                    ..Default::default()
                })
                .collect(),
            restart_policy: policy.into(),
            ..PodSpec::default()
        }),
        ..Default::default()
    }
}

fn container(name: &str, attempt: u32, state: ContainerState) -> Container {
    Container {
        id: format!("{name}-{attempt}"),
        pod_uid: UID.into(),
        name: name.into(),
        attempt,
        image_id: String::new(),
        image: "i".into(),
        state,
    }
}

fn running() -> ContainerState {
    ContainerState::Running {
        pid: 1,
        started_at_ms: 1,
    }
}

fn exited(code: u32, finished_at_ms: i64) -> ContainerState {
    ContainerState::Exited {
        code,
        oom_killed: false,
        started_at_ms: 1,
        finished_at_ms,
    }
}

fn sandbox() -> Option<Sandbox> {
    Some(Sandbox {
        pod_uid: UID.into(),
        namespace: "default".into(),
        name: "p".into(),
        ips: vec![[10, 244, 0, 2].into()],
        damaged: None,
    })
}

fn image() -> Image {
    Image {
        name: "i".into(),
        id: "i@d".into(),
    }
}

#[test]
fn a_new_pod_pulls_while_its_network_is_made() {
    let pod = pod("Always", &NAMES);
    let plan = next_steps(Goal::Run(&pod), &Observed::default(), &Memory::default(), 0);
    let pull = |name: &str| Step::Pull {
        container: name.into(),
    };
    assert_eq!(
        plan.steps,
        [pull("a"), pull("b"), Step::CreateSandbox],
        "{plan:?}"
    );
}

#[test]
fn volumes_are_made_before_each_start_and_once_for_all_containers() {
    let mut pod = pod("Always", &NAMES);
    pod.spec.as_mut().unwrap().volumes = vec![v1::Volume::default()];
    let observed = Observed {
        sandbox: sandbox(),
        containers: vec![],
    };
    let mut memory = Memory::default();
    for name in NAMES {
        memory.container(name).image = Some(image());
    }
    let volumes = |starting| Step::Volumes { starting };
    let steps = |observed: &Observed, memory: &Memory| {
        next_steps(Goal::Run(&pod), observed, memory, 1000).steps
    };
    assert_eq!(steps(&observed, &memory), [volumes(true)]);
    assert_eq!(steps(&Observed::default(), &memory), [Step::CreateSandbox]);
    memory.volumes.failed(QUICK, "E", String::new(), 900);
    let plan = next_steps(Goal::Run(&pod), &observed, &memory, 1000);
    assert_eq!((plan.steps, plan.wake_ms), (vec![], Some(1900)));
    memory.volumes.worked();
    let names: Vec<_> = crate::pods::spec::all_containers(&pod)
        .map(|it| it.name.clone())
        .collect();
    memory.has_volumes(&names, false);
    assert_eq!(steps(&observed, &memory).len(), 2, "both start");
    memory.container("b").volumes = false;
    let start = Step::Start {
        container: "a".into(),
        attempt: 0,
    };
    assert_eq!(steps(&observed, &memory), [start, volumes(true)]);
    // Those of what runs are looked at when something changed.
    let observed = Observed {
        sandbox: sandbox(),
        containers: vec![container("a", 0, running()), container("b", 0, running())],
    };
    assert_eq!(steps(&observed, &memory), []);
    memory.volumes_due = true;
    assert_eq!(steps(&observed, &memory), [volumes(false)]);
}

#[test]
fn a_pod_that_takes_too_much_of_the_disk_is_ended_and_not_started_again() {
    let pod = pod("Always", &NAMES);
    let memory = Memory {
        failed: Some(PodFailure {
            reason: EVICTED.to_owned(),
            message: "too much".to_owned(),
        }),
        ..Memory::default()
    };
    let mut observed = Observed {
        sandbox: sandbox(),
        containers: vec![
            container("a", 0, running()),
            container("b", 0, exited(1, 1)),
        ],
    };
    let steps = next_steps(Goal::Run(&pod), &observed, &memory, 0).steps;
    let stop = Step::Stop {
        id: "a-0".into(),
        grace: EVICTION_GRACE,
    };
    assert_eq!(steps, [stop]);
    assert!(!is_finished(&pod, &observed, &memory));
    observed.put(container("a", 0, exited(143, 2)));
    assert!(
        next_steps(Goal::Run(&pod), &observed, &memory, 0)
            .steps
            .is_empty()
    );
    assert!(is_finished(&pod, &observed, &memory));
}

#[test]
fn what_runs_is_left_alone() {
    let pod = pod("Always", &["a"]);
    let observed = Observed {
        sandbox: sandbox(),
        containers: vec![container("a", 3, running())],
    };
    let plan = next_steps(Goal::Run(&pod), &observed, &Memory::default(), 0);
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_crashed_container_waits_and_is_then_replaced_by_the_next_attempt() {
    let pod = pod("OnFailure", &["a"]);
    let mut observed = Observed {
        sandbox: sandbox(),
        containers: vec![container("a", 3, exited(1, 50_000))],
    };
    let mut memory = Memory::default();
    assert!(memory.absorb(&observed, &LastWords::new(), 50_000));
    memory.container("a").crash = CrashBackoff {
        delay_ms: 20_000,
        restarted_ms: 40_000,
    };
    memory.container("a").image = Some(image());
    let plan = next_steps(Goal::Run(&pod), &observed, &memory, 60_000);
    assert_eq!((plan.steps, plan.wake_ms), (vec![], Some(70_000)));
    let plan = next_steps(Goal::Run(&pod), &observed, &memory, 70_000);
    assert_eq!(plan.steps, [Step::Remove { id: "a-3".into() }]);
    observed.containers.clear();
    let plan = next_steps(Goal::Run(&pod), &observed, &memory, 70_000);
    let start = Step::Start {
        container: "a".into(),
        attempt: 4,
    };
    assert_eq!(plan.steps, [start]);
}

#[test]
fn policies_decide_what_starts_again() {
    for (policy, code, again) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let pod = pod(policy, &["a"]);
        let observed = Observed {
            sandbox: sandbox(),
            containers: vec![container("a", 0, exited(code, 10))],
        };
        let mut memory = Memory::default();
        memory.absorb(&observed, &LastWords::new(), 10);
        let plan = next_steps(Goal::Run(&pod), &observed, &memory, 10);
        assert_eq!(!plan.steps.is_empty(), again, "{policy} {code}");
        let finished = is_finished(&pod, &observed, &memory);
        assert_eq!(finished, !again, "{policy} {code}");
    }
}

#[test]
fn a_pod_that_ended_gives_back_what_it_does_not_need() {
    let pod = pod("Never", &["a"]);
    let mut observed = Observed {
        sandbox: sandbox(),
        containers: vec![container("a", 0, exited(0, 10))],
    };
    let mut memory = Memory::default();
    memory.absorb(&observed, &LastWords::new(), 10);
    memory.finished = Some(v1::PodStatus::default());
    let steps = |observed: &Observed| next_steps(Goal::Run(&pod), observed, &memory, 10).steps;
    assert_eq!(steps(&observed), [Step::Remove { id: "a-0".into() }]);
    observed.containers.clear();
    assert_eq!(steps(&observed), [Step::ReleaseSandbox]);
    observed.sandbox.as_mut().unwrap().ips.clear();
    assert_eq!(steps(&observed), []);
}

#[test]
fn what_runs_of_a_pod_whose_notes_are_damaged_is_left_alone() {
    let pod = pod("Always", &NAMES);
    let damaged = |why: Option<&str>| Sandbox {
        ips: Vec::new(),
        damaged: why.map(str::to_owned),
        ..sandbox().unwrap()
    };
    // They cannot be read, they are gone, or the namespace is.
    for sandbox in [Some(damaged(Some("x"))), None, Some(damaged(None))] {
        let mut observed = Observed {
            sandbox,
            containers: vec![
                container("a", 0, running()),
                container("b", 0, exited(1, 10)),
            ],
        };
        let mut memory = Memory::default();
        memory.absorb(&observed, &LastWords::new(), 10);
        let plan = next_steps(Goal::Run(&pod), &observed, &memory, 1_000_000);
        assert_eq!(plan.steps, [], "it runs on, and nothing is made beside it");
        assert!(plan.wake_ms.is_some());
        observed.put(container("a", 0, exited(1, 10)));
        let plan = next_steps(Goal::Run(&pod), &observed, &memory, 1_000_000);
        assert!(plan.steps.contains(&Step::CreateSandbox), "made anew");
    }
}

#[test]
fn an_end_stops_then_removes_then_frees_the_network() {
    let grace = Duration::from_secs(5);
    let mut observed = Observed {
        sandbox: sandbox(),
        containers: vec![
            container("a", 0, running()),
            container("b", 1, exited(0, 1)),
        ],
    };
    let mut memory = Memory::default();
    let plan = next_steps(Goal::End(None, grace), &observed, &memory, 0);
    let stop = Step::Stop {
        id: "a-0".into(),
        grace,
    };
    assert_eq!(plan.steps, [stop, Step::Remove { id: "b-1".into() }]);
    observed.containers.clear();
    let plan = next_steps(Goal::End(None, grace), &observed, &memory, 0);
    assert_eq!(plan.steps, [Step::RemoveSandbox]);
    observed.sandbox = None;
    memory.removed = true;
    assert!(next_steps(Goal::End(None, grace), &observed, &memory, 0).gone);
}
