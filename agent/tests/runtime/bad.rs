//! Parts that do not answer, and notes that cannot be read.

use std::{fs, path::Path, time::Duration};

use barge_agent::runtime::{Container, ContainerState, Options, Runtime, containerd::Containerd};
use serde_json::json;
use tokio::time::timeout;

use super::{
    machine::{Machine, Stopped, on_a_machine},
    pods::{Pod, exited, find, sandbox},
    traces::Traces,
};

#[test]
fn a_containerd_that_hangs_is_an_error_and_ends_nothing() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("stays", 0, "sleep 1000");
        let stays = pod.runtime.start_container(&spec).await.unwrap();
        let stopped = machine.stop_containerd();
        let calls = async {
            let (version, list) = tokio::join!(pod.runtime.version(), pod.runtime.list());
            [version.map(drop).unwrap_err(), list.map(drop).unwrap_err()]
        };
        // They promise fifteen seconds.
        let errors = timeout(Duration::from_secs(150), calls).await.unwrap();
        for error in errors {
            assert_eq!(error.reason, "RuntimeUnavailable", "{error}");
            assert!(error.message.contains("in time"), "{error}");
        }
        drop(stopped);
        let found = find(&pod.runtime, &stays.id).await.unwrap();
        assert_eq!(found.state, stays.state, "the same process");
        let grace = Duration::from_millis(100);
        pod.runtime.stop_container(&stays.id, grace).await.unwrap();
        let uid = &pod.sandbox.pod_uid;
        pod.runtime.remove_sandbox(uid).await.unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

/// The shim of a container that runs.
fn shim(container: &Container) -> i32 {
    let ContainerState::Running { pid, .. } = container.state else {
        panic!("{container:?}")
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let parent = lines.find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

/// Processes in a container's control group, whoever knows of them.
fn processes(machine: &Machine, container: &Container) -> usize {
    let root = Path::new("/sys/fs/cgroup/pids").join(machine.name());
    let group = root.join(&container.pod_uid).join(&container.id);
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    text.lines().count()
}

#[test]
fn a_creation_that_runs_out_of_time_is_repeated_and_leaves_one() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("stays", 0, "exec sleep 1000");
        let stays = pod.runtime.start_container(&spec).await.unwrap();
        let hasty = Containerd::new(Options {
            change_timeout: Duration::from_secs(2),
            ..machine.options()
        });
        let hasty = hasty.unwrap();
        let late = pod.spec("late", 0, "exec sleep 1000");
        let stopped = Stopped::new(shim(&stays));
        let error = hasty.start_container(&late).await.unwrap_err();
        assert_eq!(error.reason, "RuntimeUnavailable", "{error}");
        // The shim still has the question, and does as it was asked.
        drop(stopped);
        let made = pod.runtime.start_container(&late).await.unwrap();
        let runs = matches!(made.state, ContainerState::Running { .. });
        assert!(runs, "{made:?}");
        let listed = pod.runtime.list().await.unwrap();
        assert_eq!(listed.containers.len(), 2, "{listed:?}");
        let found = find(&pod.runtime, &stays.id).await.unwrap();
        assert_eq!(found.state, stays.state, "the same process");
        for container in [&stays, &made] {
            assert_eq!(processes(&machine, container), 1, "{container:?}");
        }
        let uid = &pod.sandbox.pod_uid;
        pod.runtime.remove_sandbox(uid).await.unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn notes_that_cannot_be_read_concern_their_pod_only() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let other = pod.runtime.create_sandbox(&sandbox("web-1")).await.unwrap();
        let stays = pod.spec("stays", 0, "sleep 1000");
        let stays = pod.runtime.start_container(&stays).await.unwrap();
        let uid = &pod.sandbox.pod_uid;
        let folder = machine.paths().pod(uid);
        for name in ["network.json", "sandbox.json"] {
            fs::write(folder.join(name), b"\0\0\0").unwrap();
            let note = machine.paths().started(uid, "stays", 0);
            fs::write(&note, b"\xff").unwrap();
            let listed = pod.runtime.list().await.unwrap();
            let mut sandboxes = listed.sandboxes.iter();
            let whole = sandboxes.find(|s| s.pod_uid == other.pod_uid).unwrap();
            assert_eq!((&whole.ips, &whole.damaged), (&other.ips, &None));
            let mut sandboxes = listed.sandboxes.iter();
            let damaged = sandboxes.find(|s| s.pod_uid == *uid).unwrap();
            let why = damaged.damaged.clone().unwrap();
            assert!(why.contains(".json"), "{why}");
            let state = &listed.containers[0].state;
            assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
        }
        // A lost note ends nothing either.
        fs::remove_file(machine.paths().started(uid, "stays", 0)).unwrap();
        let state = find(&pod.runtime, &stays.id).await.unwrap().state;
        assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
        // Its deletion works, and gives its address back.
        let grace = Duration::from_millis(100);
        pod.runtime.stop_container(&stays.id, grace).await.unwrap();
        pod.runtime.remove_sandbox(uid).await.unwrap();
        pod.runtime.remove_sandbox(&other.pod_uid).await.unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn a_pod_that_ended_gives_back_its_network_and_keeps_its_log() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("once", 0, "echo done");
        let once = pod.runtime.start_container(&spec).await.unwrap();
        exited(&pod.runtime, &once.id).await;
        pod.runtime.remove_container(&once.id).await.unwrap();
        let uid = &pod.sandbox.pod_uid;
        for _ in 0..2 {
            pod.runtime.release_sandbox(uid).await.unwrap();
        }
        let listed = pod.runtime.list().await.unwrap();
        assert!(listed.sandboxes[0].ips.is_empty());
        assert!(listed.sandboxes[0].damaged.is_none());
        assert!(!machine.paths().netns(uid).exists());
        let log = fs::read_to_string(machine.paths().log(uid, "once", 0)).unwrap();
        assert!(log.contains("done"), "{log}");
        // The address is free for the next pod.
        let next = pod.runtime.create_sandbox(&sandbox("web-1")).await.unwrap();
        pod.runtime.remove_sandbox(&next.pod_uid).await.unwrap();
        pod.runtime.remove_sandbox(uid).await.unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}
