//! Deaths: of control at any moment, of containerd, of a shim.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use barge_agent::runtime::{
    Container, ContainerState, Runtime, RuntimeEvent, containerd::Containerd, names,
};
use futures::StreamExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::{
    machine::{DEADLINE, Machine, eventually, on_a_machine},
    pods::{Pod, exited, find},
    traces::Traces,
};

#[test]
fn another_control_adopts() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let stays = pod
            .runtime
            .start_container(&pod.spec("stays", 0, "sleep 1000"))
            .await
            .unwrap();
        let goes = pod
            .runtime
            .start_container(&pod.spec("goes", 0, "sleep 0.3; echo bye; exit 9"))
            .await
            .unwrap();
        let uid = pod.sandbox.pod_uid.clone();
        drop(pod.runtime);
        // Nobody is there while it exits; containerd is told to collect what it can.
        machine.ctr(&["content", "prune", "references"]);
        let successor = machine.runtime();
        let ended = exited(&successor, &goes.id).await;
        assert!(
            matches!(ended, ContainerState::Exited { code: 9, .. }),
            "{ended:?}"
        );
        assert_eq!(
            find(&successor, &stays.id).await.unwrap().state,
            stays.state
        );
        let inventory = successor.list().await.unwrap();
        assert_eq!(inventory.sandboxes[0].ips, pod.sandbox.ips);
        assert_eq!(
            (inventory.containers.len(), inventory.sandboxes.len()),
            (2, 1)
        );
        successor
            .stop_container(&stays.id, Duration::from_millis(100))
            .await
            .unwrap();
        successor.remove_sandbox(&uid).await.unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

/// Asks for a container in an event loop of its own, which dies after a while: so dies the process that asked.
fn die_while_starting(machine: Arc<Machine>, pod: &Pod, after: Duration) {
    let spec = pod.spec("c", 0, "sleep 1000");
    let doomed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let control = machine.runtime();
            let _ = tokio::time::timeout(after, control.start_container(&spec)).await;
        });
        runtime.shutdown_background();
    });
    doomed.join().unwrap();
}

/// A shim whose client died may hang for as long as containerd is waited for, and what it leaves may be in the way of the next one.
const REPEATED: Duration = Duration::from_secs(240);

/// Starts the pod's container, again after errors that pass, as whoever keeps a pod running does.
async fn start_again(runtime: &Containerd, pod: &Pod, after: u64) -> Container {
    let (begun, spec) = (Instant::now(), pod.spec("c", 0, "sleep 1000"));
    loop {
        match runtime.start_container(&spec).await {
            Ok(container) => return container,
            Err(error) => {
                let passing = error.retryable && begun.elapsed() < REPEATED;
                assert!(passing, "after {after} ms: {error}");
                println!("after {after} ms: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[test]
fn a_death_in_the_middle_of_a_creation_leaves_one_or_none() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let id = names::container_id(&pod.sandbox.pod_uid, "c", 0);
        for after in [1, 3, 6, 10, 15, 20, 30, 40, 55, 70, 85, 100, 130] {
            die_while_starting(Arc::clone(&machine), &pod, Duration::from_millis(after));
            let successor = machine.runtime();
            let container = start_again(&successor, &pod, after).await;
            assert_eq!(container.id, id);
            let ContainerState::Running { pid, .. } = container.state else {
                panic!("after {after} ms: {container:?}");
            };
            assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
            let all = successor.list().await.unwrap().containers;
            assert_eq!(all.len(), 1, "after {after} ms: {all:?}");
            successor.remove_container(&id).await.unwrap();
        }
        // And when nobody asks again, removing the pod takes the remains.
        for after in [2, 8, 25, 60] {
            die_while_starting(Arc::clone(&machine), &pod, Duration::from_millis(after));
            let successor = machine.runtime();
            let spec = pod.sandbox_spec();
            // What dies with its client takes a moment to be gone.
            let begun = Instant::now();
            loop {
                let removed = successor.remove_sandbox(&pod.sandbox.pod_uid).await;
                let now = Traces::of(&machine);
                let left = now.beside(&before);
                if removed.is_ok() && left.is_empty() {
                    break;
                }
                let late = begun.elapsed() > REPEATED;
                assert!(!late, "after {after} ms: {removed:?}, {left:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            successor.create_sandbox(&spec).await.unwrap();
        }
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn events_say_when_to_look_and_survive_containerd() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let mut events = pod.runtime.events();
        let mut next = async |what: &str| {
            let event = tokio::time::timeout(DEADLINE, events.next()).await;
            event
                .unwrap_or_else(|_| panic!("no event: {what}"))
                .expect("an event")
        };
        assert_eq!(next("the first").await, RuntimeEvent::Resync);
        let stays = pod
            .runtime
            .start_container(&pod.spec("stays", 0, "sleep 1000"))
            .await
            .unwrap();
        let goes = pod
            .runtime
            .start_container(&pod.spec("goes", 0, "exit 1"))
            .await
            .unwrap();
        assert_eq!(
            next("an exit").await,
            RuntimeEvent::Changed {
                id: goes.id.clone()
            }
        );

        machine.crash_containerd();
        while next("containerd is back").await != RuntimeEvent::Resync {}
        assert_eq!(
            find(&pod.runtime, &stays.id).await.unwrap().state,
            stays.state
        );
        let ended = exited(&pod.runtime, &goes.id).await;
        assert!(
            matches!(ended, ContainerState::Exited { code: 1, .. }),
            "{ended:?}"
        );

        // The shim dies, and all of the pod with it.
        let ContainerState::Running { pid, .. } = stays.state else {
            panic!("{stays:?}")
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let shim = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:"))
            .unwrap();
        kill(Pid::from_raw(shim.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
        let mut seen = false;
        while !seen {
            seen = next("the shim is dead").await
                == RuntimeEvent::Changed {
                    id: stays.id.clone(),
                };
        }
        eventually("it is known that its end was not seen", || async {
            let state = find(&pod.runtime, &stays.id).await?.state;
            matches!(
                state,
                ContainerState::Lost | ContainerState::Exited { code: 137, .. }
            )
            .then_some(())
        })
        .await;
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn a_boot_in_between_is_mended() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        // What a boot leaves: the files, and no namespace behind them.
        let pin = machine.paths().netns(&pod.sandbox.pod_uid);
        nix::mount::umount2(&pin, nix::mount::MntFlags::MNT_DETACH).unwrap();
        let listed = pod.runtime.list().await.unwrap().sandboxes;
        assert!(listed[0].ips.is_empty(), "{listed:?}");
        let spec = pod.sandbox_spec();
        let mended = pod.runtime.create_sandbox(&spec).await.unwrap();
        assert_eq!(mended.ips.len(), 1);
        let (state, out, _) = pod.run(&pod.spec("c", 0, "echo works")).await;
        assert!(
            matches!(state, ContainerState::Exited { code: 0, .. }),
            "{state:?}"
        );
        assert_eq!(out, "works\n");
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}
