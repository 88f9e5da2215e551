#![allow(clippy::unwrap_used)]

use barge_proto::v1::{Container, ObjectMeta, PodSpec};

use super::*;
use crate::{
    pods::backoff::{CrashBackoff, SLOW},
    runtime::Sandbox,
};

fn pod(policy: &str) -> Pod {
    Pod {
        metadata: Some(ObjectMeta {
            uid: "u".into(),
            name: "p".into(),
            namespace: "default".into(),
            ..Default::default()
        }),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "a".into(),
                image: "nginx".into(),
                ..Default::default()
            }],
            restart_policy: policy.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn observed(attempt: u32, state: runtime::ContainerState) -> Observed {
    Observed {
        sandbox: Some(Sandbox {
            pod_uid: "u".into(),
            namespace: "default".into(),
            name: "p".into(),
            ips: vec![[10, 244, 1, 5].into()],
            damaged: None,
        }),
        containers: vec![runtime::Container {
            id: format!("u-a-{attempt}"),
            pod_uid: "u".into(),
            name: "a".into(),
            attempt,
            image_id: "nginx@sha256:0".into(),
            image: "nginx".into(),
            state,
        }],
    }
}

fn running() -> runtime::ContainerState {
    runtime::ContainerState::Running {
        pid: 1,
        started_at_ms: 5000,
    }
}

fn exited(code: u32, oom_killed: bool) -> runtime::ContainerState {
    runtime::ContainerState::Exited {
        code,
        oom_killed,
        started_at_ms: 5000,
        finished_at_ms: 9000,
    }
}

struct Case {
    pod: Pod,
    observed: Observed,
    memory: Memory,
    ending: bool,
    now_ms: i64,
    previous: Option<PodStatus>,
}

impl Case {
    fn new(policy: &str, observed: Observed) -> Self {
        let mut memory = Memory::default();
        memory.absorb(&observed, &Default::default(), 10_000);
        Self {
            pod: pod(policy),
            observed,
            memory,
            ending: false,
            now_ms: 10_000,
            previous: None,
        }
    }

    fn status(&self) -> PodStatus {
        status(View {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            host_ip: "192.0.2.1",
            ending: self.ending,
            now_ms: self.now_ms,
            previous: self.previous.as_ref(),
        })
    }

    fn container(&self) -> (ContainerStatus, ContainerState) {
        let status = self.status().container_statuses.remove(0);
        let state = status.state.clone().unwrap();
        (status, state)
    }
}

fn ready(status: &PodStatus) -> &Condition {
    let mut conditions = status.conditions.iter();
    conditions.find(|c| c.r#type == "Ready").unwrap()
}

#[test]
fn a_running_pod_is_ready_since_it_was() {
    let mut case = Case::new("Always", observed(0, running()));
    let first = case.status();
    assert_eq!(first.phase, "Running");
    assert_eq!(first.pod_ip, "10.244.1.5");
    assert_eq!(first.host_ip, "192.0.2.1");
    assert_eq!(ready(&first).status, "True");
    case.previous = Some(first.clone());
    case.now_ms = 99_000;
    assert_eq!(case.status(), first, "nothing changed, so nothing is said");
    case.observed = observed(0, exited(1, false));
    case.memory
        .absorb(&case.observed, &Default::default(), 99_000);
    let status = case.status();
    assert_eq!(ready(&status).status, "False");
    assert_eq!(ready(&status).reason, "ContainersNotReady");
    assert_eq!(ready(&status).last_transition_time, Some(to_time(99_000)));
}

#[test]
fn ends_have_the_words_people_know() {
    for (state, reason, code) in [
        (exited(0, false), "Completed", 0),
        (exited(3, false), "Error", 3),
        (exited(137, true), "OOMKilled", 137),
        (runtime::ContainerState::Lost, "ContainerStatusUnknown", 137),
    ] {
        let case = Case::new("Never", observed(0, state));
        let terminated = case.container().1.terminated.unwrap();
        assert_eq!(terminated.reason, reason);
        assert_eq!(terminated.exit_code, code);
    }
}

#[test]
fn phases_follow_the_restart_policy() {
    for (policy, code, phase) in [
        ("Always", 0, "Running"),
        ("Always", 1, "Running"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
    ] {
        let case = Case::new(policy, observed(0, exited(code, false)));
        assert_eq!(case.status().phase, phase, "{policy} {code}");
    }
    let case = Case::new("Always", Observed::default());
    assert_eq!(case.status().phase, "Pending");
    let waiting = case.container().1.waiting.unwrap();
    assert_eq!(waiting.reason, "ContainerCreating");
}

#[test]
fn a_crash_loop_shows_the_last_end_and_the_count() {
    let mut case = Case::new("Always", observed(2, exited(1, false)));
    case.memory.container("a").crash = CrashBackoff {
        delay_ms: 20_000,
        restarted_ms: 5000,
    };
    let (status, state) = case.container();
    let waiting = state.waiting.unwrap();
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    assert!(
        waiting.message.starts_with("back-off 20s restarting"),
        "{}",
        waiting.message
    );
    assert_eq!(status.restart_count, 2);
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 1);
    assert_eq!(case.status().phase, "Running");
    // Removed and not started yet: the count stays.
    case.observed.containers.clear();
    assert_eq!(case.container().0.restart_count, 2);
    // Started again.
    case.observed = observed(3, running());
    let (status, state) = case.container();
    assert!(state.running.is_some());
    assert_eq!(status.restart_count, 3);
    assert_eq!(
        status.last_state.unwrap().terminated.unwrap().container_id,
        "containerd://u-a-2"
    );
}

#[test]
fn a_failed_pull_turns_into_a_back_off() {
    let mut case = Case::new("Always", Observed::default());
    let pull = &mut case.memory.container("a").pull;
    pull.failed(SLOW, "ErrImagePull", "no such image".into(), 10_000);
    assert_eq!(case.container().1.waiting.unwrap().reason, "ErrImagePull");
    assert_eq!(
        changes_at(&case.memory, case.now_ms),
        Some(10_000 + FRESH_MS)
    );
    case.now_ms += FRESH_MS;
    let waiting = case.container().1.waiting.unwrap();
    assert_eq!(waiting.reason, "ImagePullBackOff");
    assert!(waiting.message.contains("no such image"));
    assert_eq!(case.status().phase, "Pending");
}

#[test]
fn an_ended_pod_is_told_by_how_its_containers_ended() {
    for (code, phase) in [(0, "Succeeded"), (143, "Failed")] {
        let mut case = Case::new("Always", observed(0, exited(code, false)));
        case.ending = true;
        case.observed.containers.clear();
        let status = case.status();
        assert_eq!(status.phase, phase);
        assert_eq!(ready(&status).status, "False");
        assert!(case.container().1.terminated.is_some());
    }
}
