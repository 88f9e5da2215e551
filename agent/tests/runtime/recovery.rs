//! Deaths: of control at any moment, of containerd, of a shim.

use std::time::Duration;

use barge_agent::runtime::{ContainerState, Runtime, RuntimeEvent};
use futures::StreamExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::{
    machine::{DEADLINE, eventually, on_a_machine},
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
