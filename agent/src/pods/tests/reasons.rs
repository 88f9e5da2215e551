//! Each reason that the runtime has for not doing a step, and where people see it: the container's state, and an event with the runtime's
//! words. Nothing is given up: what goes better another time goes on.

use barge_proto::v1::{EmptyDirVolumeSource, Volume};

use super::*;

/// Where a reason is seen.
enum Seen {
    /// The container waits: for this reason.
    Waiting(&'static str),
    /// The attempt to start it counts as its end.
    Ended,
    /// At the pod's end, which comes later for it.
    Late,
}

/// The reason, the step that fails for it, where it is seen, and the reason of the event.
const REASONS: &[(&str, &str, Seen, &str)] = &[
    (
        "ErrImagePull",
        "pull",
        Seen::Waiting("ErrImagePull"),
        "Failed",
    ),
    (
        "InvalidImageName",
        "pull",
        Seen::Waiting("InvalidImageName"),
        "InspectFailed",
    ),
    (
        "ErrImageNeverPull",
        "pull",
        Seen::Waiting("ErrImageNeverPull"),
        "ErrImageNeverPull",
    ),
    (
        "CreateContainerError",
        "start",
        Seen::Waiting("CreateContainerError"),
        "Failed",
    ),
    (
        "CreateContainerConfigError",
        "start",
        Seen::Waiting("CreateContainerConfigError"),
        "Failed",
    ),
    (
        "RunContainerError",
        "start",
        Seen::Waiting("RunContainerError"),
        "Failed",
    ),
    ("StartError", "start", Seen::Ended, "Failed"),
    (
        "RuntimeUnavailable",
        "start",
        Seen::Waiting("RuntimeUnavailable"),
        "Failed",
    ),
    (
        "FailedMount",
        "start",
        Seen::Waiting("ContainerCreating"),
        "FailedMount",
    ),
    (
        "FailedMount",
        "volumes",
        Seen::Waiting("ContainerCreating"),
        "FailedMount",
    ),
    (
        "CreatePodSandboxError",
        "create_sandbox",
        Seen::Waiting("ContainerCreating"),
        "FailedCreatePodSandBox",
    ),
    (
        "NetworkNotReady",
        "create_sandbox",
        Seen::Waiting("ContainerCreating"),
        "FailedCreatePodSandBox",
    ),
    ("KillContainerError", "stop", Seen::Late, "FailedKillPod"),
    (
        "KillPodSandboxError",
        "remove_sandbox",
        Seen::Late,
        "FailedKillPod",
    ),
];

/// The reasons that the runtime knows, but for those of programs that people run in containers: no container waits for them.
fn known() -> Vec<&'static str> {
    let source = include_str!("../../runtime/error.rs");
    let value = |line: &'static str| {
        let (_, value) = line
            .trim()
            .strip_prefix("pub const ")?
            .split_once("&str = \"")?;
        value.strip_suffix("\";")
    };
    let of_containers = |reason: &&str| !reason.starts_with("Program");
    let all = source.lines().filter_map(value);
    all.filter(of_containers).collect()
}

#[test]
fn every_reason_is_in_the_table() {
    let known = known();
    assert!(known.len() >= 13, "{known:?}");
    for reason in known {
        let mut rows = REASONS.iter();
        assert!(rows.any(|row| row.0 == reason), "{reason} is in no row");
    }
}

/// A pod with a volume.
fn with_volume() -> Pod {
    let mut pod = pod("u1", "Always");
    pod.spec.as_mut().unwrap().volumes = vec![Volume {
        name: "tmp".into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Default::default()
    }];
    pod
}

#[tokio::test(start_paused = true)]
async fn each_reason_is_shown_and_goes_by() {
    for (reason, step, seen, event) in REASONS {
        let machine = Machine::new();
        for _ in 0..2 {
            machine.runtime.fail(step, reason);
        }
        let mut agent = machine.agent(assigned(1, [with_volume()]));
        let words = format!("{step} fails");
        match seen {
            Seen::Waiting(shown) => {
                let waits = |report: &PodReport| {
                    let waiting = state(report).waiting;
                    waiting.is_some_and(|it| it.reason == *shown && it.message.contains(&words))
                };
                agent.until("u1", reason, waits).await;
            }
            Seen::Ended => {
                let ended = |report: &PodReport| {
                    let status = status(report).container_statuses.remove(0);
                    let states = [status.state, status.last_state].into_iter().flatten();
                    let mut ends = states.filter_map(|state| state.terminated);
                    ends.any(|end| {
                        end.reason == *reason
                            && end.exit_code == 128
                            && end.message.contains(&words)
                    })
                };
                agent.until("u1", reason, ended).await;
            }
            Seen::Late => {}
        }
        agent.until_phase("u1", "Running").await;
        agent.assign(assigned(1, [ending(with_volume(), 5)]));
        agent.until_gone("u1").await;
        let told = |message: &String| {
            message.starts_with(&format!("{event}: ")) && message.contains(&words)
        };
        assert!(
            agent.messages.iter().any(told),
            "{reason}: {:?}",
            agent.messages
        );
        assert!(machine.runtime.is_empty(), "{reason}");
        agent.end().await;
        assert_eq!(machine.runtime.violations(), [""; 0], "{reason}");
    }
}
