//! What a container's records say together.

use std::collections::HashMap;

use containerd_client::types::v1::{Process, Status};

use super::{Container, ContainerState, label};

/// Killed, as the shell counts.
const KILLED: u32 = 128 + 9;

/// Reads a container back from its labels; `None` when it is not one of ours.
pub fn identify(
    id: &str,
    image: &str,
    labels: &HashMap<String, String>,
    state: ContainerState,
) -> Option<Container> {
    Some(Container {
        id: id.to_owned(),
        pod_uid: labels.get(label::POD_UID)?.clone(),
        name: labels.get(label::CONTAINER)?.clone(),
        attempt: labels.get(label::ATTEMPT)?.parse().ok()?,
        image_id: labels.get(label::IMAGE_ID).cloned().unwrap_or_default(),
        image: image.to_owned(),
        state,
    })
}

/// How a container is, by its task and the note of its start, which is made before it can run.
///
/// `oom_kills` is asked only of those that were killed.
pub fn judge(
    task: Option<&Process>,
    started_at_ms: Option<i64>,
    oom_kills: impl FnOnce() -> u64,
) -> ContainerState {
    let Some(started_at_ms) = started_at_ms else {
        return match task {
            // The note is gone: it is made before the process may run, and what runs is never taken for half made.
            Some(task) if is_alive(task.status()) => ContainerState::Running {
                pid: task.pid,
                started_at_ms: 0,
            },
            _ => ContainerState::Created,
        };
    };
    let Some(task) = task else {
        return ContainerState::Lost;
    };
    match task.status() {
        Status::Created => ContainerState::Created,
        Status::Stopped => ContainerState::Exited {
            code: task.exit_status,
            oom_killed: task.exit_status == KILLED && oom_kills() > 0,
            started_at_ms,
            finished_at_ms: exited_at_ms(task).unwrap_or(0),
        },
        _ => ContainerState::Running {
            pid: task.pid,
            started_at_ms,
        },
    }
}

fn is_alive(status: Status) -> bool {
    matches!(status, Status::Running | Status::Paused | Status::Pausing)
}

fn exited_at_ms(task: &Process) -> Option<i64> {
    // Unset, it is the year 1.
    let time = task.exited_at.as_ref().filter(|time| time.seconds > 0)?;
    Some(time.seconds * 1000 + i64::from(time.nanos) / 1_000_000)
}

/// The number of a signal as images name it ("SIGQUIT", "quit", "3"); TERM for what is not one.
pub fn signal_number(name: &str) -> u32 {
    const TERM: u32 = 15;
    if let Ok(number) = name.parse() {
        return if (1..=64).contains(&number) {
            number
        } else {
            TERM
        };
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = short
        .strip_prefix("RTMIN+")
        .and_then(|offset| offset.parse::<u32>().ok())
    {
        // As the C library counts: the first two are its own.
        return if offset <= 30 { 34 + offset } else { TERM };
    }
    let signal = format!("SIG{short}").parse::<nix::sys::signal::Signal>();
    signal
        .ok()
        .and_then(|signal| u32::try_from(signal as i32).ok())
        .unwrap_or(TERM)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn task(status: Status, exit_status: u32) -> Process {
        Process {
            status: status.into(),
            exit_status,
            pid: 7,
            exited_at: Some(prost_types::Timestamp {
                seconds: 3,
                nanos: 5_000_000,
            }),
            ..Process::default()
        }
    }

    #[test]
    fn only_a_note_of_the_start_makes_it_one_that_ran() {
        let never = || 0;
        assert_eq!(judge(None, None, never), ContainerState::Created);
        assert_eq!(
            judge(Some(&task(Status::Stopped, 0)), None, never),
            ContainerState::Created
        );
        assert_eq!(
            judge(Some(&task(Status::Created, 0)), Some(1), never),
            ContainerState::Created
        );
        assert_eq!(judge(None, Some(1), never), ContainerState::Lost);
        let running = ContainerState::Running {
            pid: 7,
            started_at_ms: 1,
        };
        assert_eq!(
            judge(Some(&task(Status::Running, 0)), Some(1), never),
            running
        );
        let without_note = judge(Some(&task(Status::Running, 0)), None, never);
        assert!(
            matches!(without_note, ContainerState::Running { pid: 7, .. }),
            "a lost note ends nothing that runs: {without_note:?}"
        );
    }

    #[test]
    fn out_of_memory_is_told_apart_from_a_kill() {
        let state = |code, kills| judge(Some(&task(Status::Stopped, code)), Some(1), || kills);
        let exited = |code, oom_killed| ContainerState::Exited {
            code,
            oom_killed,
            started_at_ms: 1,
            finished_at_ms: 3005,
        };
        assert_eq!(state(137, 1), exited(137, true));
        assert_eq!(state(137, 0), exited(137, false));
        assert_eq!(state(1, 1), exited(1, false));
    }

    #[test]
    fn signals_by_any_name() {
        for (name, number) in [
            ("", 15),
            ("SIGTERM", 15),
            ("quit", 3),
            ("SIGQUIT", 3),
            ("9", 9),
            ("99", 15),
            ("SIGRTMIN+3", 37),
            ("x", 15),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }
}
