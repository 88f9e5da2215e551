//! Namespaces of the machine, and processes that the containers of a pod share.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use barge_agent::{
    runtime::{
        Container, ContainerSpec, ContainerState, HostPort, Namespaces, Runtime, Sandbox,
        SandboxSpec, Security,
    },
    services::ports::Protocol,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::{
    machine::{Machine, on_a_machine, run, until},
    pods::{Pod, exited, sandbox},
    traces::Traces,
};

fn address() -> IpAddr {
    [192, 0, 2, 1].into()
}

/// The identity of a namespace of this thread, as `ls` shows it.
fn own(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap();
    link.display().to_string()
}

async fn beside(pod: &Pod, machine: &Machine, namespaces: Namespaces) -> Pod {
    let spec = SandboxSpec {
        namespaces,
        ..sandbox("beside")
    };
    let runtime = machine.runtime().at(address());
    Pod {
        sandbox: runtime.create_sandbox(&spec).await.unwrap(),
        runtime,
        image: pod.image.clone(),
    }
}

fn spec(
    pod: &Pod,
    namespaces: Namespaces,
    name: &str,
    attempt: u32,
    script: &str,
) -> ContainerSpec {
    ContainerSpec {
        namespaces,
        ..pod.spec(name, attempt, script)
    }
}

/// The node's own network as it should be after everything.
fn links() -> String {
    run("ip", &["-4", "-o", "address"])
}

#[test]
fn a_pod_in_the_machine_s_network_leaves_it_alone() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        // What a plugin would remove.
        run(
            "ip",
            &[
                "link", "add", "eth0", "type", "veth", "peer", "name", "eth1",
            ],
        );
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "eth0"]);
        let addresses = links();
        let namespaces = Namespaces {
            host_network: true,
            host_pid: true,
            host_ipc: true,
            shared_pid: false,
        };
        let host = beside(&pod, &machine, namespaces).await;
        assert_eq!(host.sandbox.ips, [address()]);
        let kinds = ["net", "uts", "ipc", "pid"];
        let script = "for n in net uts ipc pid; do ls -l /proc/self/ns/$n; done; hostname; cat /etc/hostname; echo $HOSTNAME; ls -d /dev/shm/barge-*; cat /etc/hosts";
        let marker = PathBuf::from(format!("/dev/shm/{}", machine.name()));
        fs::write(&marker, "").unwrap();
        let (_, out, err) = host.run(&spec(&host, namespaces, "look", 0, script)).await;
        fs::remove_file(&marker).unwrap();
        let mut lines = out.lines();
        for kind in kinds {
            let line = lines.next().unwrap();
            assert!(line.ends_with(&own(kind)), "{kind}: {out}{err}");
        }
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        for _ in 0..3 {
            assert_eq!(lines.next().unwrap(), name.trim());
        }
        assert_eq!(lines.next().unwrap(), marker.display().to_string());
        let hosts = fs::read_to_string("/etc/hosts").unwrap();
        let told: Vec<_> = lines.collect();
        assert_eq!(told, hosts.lines().collect::<Vec<_>>());
        // Another control adopts it, at the address that the machine has by then.
        let serves = spec(&host, namespaces, "serves", 0, "echo ready; sleep 1000");
        let container = host.runtime.start_container(&serves).await.unwrap();
        host.says(&serves, "ready").await;
        let moved = machine.runtime().at([192, 0, 2, 2].into());
        let found = moved.list().await.unwrap();
        let ours = |it: &&Sandbox| it.pod_uid == host.sandbox.pod_uid;
        let found = found.sandboxes.iter().find(ours).unwrap();
        assert_eq!(found.ips, [IpAddr::from([192, 0, 2, 2])]);
        moved
            .stop_container(&container.id, Duration::ZERO)
            .await
            .unwrap();
        moved.remove_container(&container.id).await.unwrap();
        // Also when nothing is known any more of what it was.
        let notes = machine.paths().pod(&host.sandbox.pod_uid);
        fs::write(notes.join("sandbox.json"), "{").unwrap();
        fs::write(notes.join("network.json"), "{").unwrap();
        moved.remove_sandbox(&host.sandbox.pod_uid).await.unwrap();
        assert_eq!(links(), addresses);
        let still = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(still, name);
        run("ip", &["link", "del", "eth0"]);
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

/// The process that holds a pod's process namespace.
fn pause(machine: &Machine, pod: &Pod) -> Option<i32> {
    let note = machine.paths().pause(&pod.sandbox.pod_uid);
    fs::read_to_string(note).ok()?.parse().ok()
}

#[test]
fn containers_of_a_pod_share_processes_when_it_says_so() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let namespaces = Namespaces {
            shared_pid: true,
            ..Namespaces::default()
        };
        let shared = beside(&pod, &machine, namespaces).await;
        let with =
            |name: &str, attempt, script: &str| spec(&shared, namespaces, name, attempt, script);
        let sleeps = with("sleeps", 0, "echo ready; exec sleep 4321");
        let container = shared.runtime.start_container(&sleeps).await.unwrap();
        shared.says(&sleeps, "ready").await;
        let first = pause(&machine, &shared).unwrap();
        // The first process is nobody, sees nothing, and takes in orphans; others see what runs beside them.
        let look = "cat /proc/1/comm; grep -h ^Uid /proc/1/status; (sleep 0.1 & ) ; sleep 0.5; grep -l sleep /proc/[0-9]*/comm | grep -c .; grep -h ^State /proc/[0-9]*/status | grep -c Z; ls -l /proc/self/ns/pid; ls /proc/1/root";
        let (_, out, err) = shared.run(&with("looks", 0, look)).await;
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[0], "barge-pause", "{out}{err}");
        assert!(lines[1].contains("65534"), "{out}");
        assert_eq!(lines[2..4], ["1", "0"], "{out}{err}");
        assert!(err.contains("/proc/1/root"), "{out}{err}");
        let namespace = lines[4].to_owned();
        // Who may trace it finds an empty folder, and no way out of that.
        let up = "../../../../../../..";
        let script = format!(
            "ls -A /proc/1/root/ /proc/1/root/{up} /proc/1/cwd/{up}; wc -l </proc/1/mountinfo; ls /proc/1/root/{up}/etc"
        );
        let traces = ContainerSpec {
            security: Security {
                add: vec!["SYS_PTRACE".into()],
                ..Security::default()
            },
            ..with("traces", 0, &script)
        };
        let (_, out, err) = shared.run(&traces).await;
        let listed: Vec<_> = out.lines().filter(|it| !it.is_empty()).collect();
        let heads = listed.iter().filter(|it| it.ends_with(':'));
        assert_eq!(heads.count(), 3, "{out}{err}");
        assert_eq!((listed.len(), listed.last()), (4, Some(&"1")), "{out}{err}");
        assert!(err.contains("No such file"), "{out}{err}");
        assert!(!namespace.ends_with(&own("pid")), "{out}");
        // Another control finds it; the next attempt joins.
        let successor = Pod {
            runtime: machine.runtime(),
            sandbox: shared.sandbox.clone(),
            image: shared.image.clone(),
        };
        let (_, out, _) = successor
            .run(&with("looks", 1, "ls -l /proc/self/ns/pid"))
            .await;
        assert_eq!(inode(&out), inode(&namespace));
        assert_eq!(pause(&machine, &shared), Some(first));
        // Should it be killed, all end with it, and the next container finds a new one.
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        let ended = exited(&successor.runtime, &container.id).await;
        assert!(
            matches!(ended, ContainerState::Exited { code: 137, .. }),
            "{ended:?}"
        );
        successor
            .runtime
            .remove_container(&container.id)
            .await
            .unwrap();
        let (_, out, err) = successor.run(&with("looks", 2, "cat /proc/1/comm")).await;
        assert_eq!(out, "barge-pause\n", "{err}");
        let second = pause(&machine, &shared).unwrap();
        assert_ne!(first, second);
        // An end by the pod's deletion takes it along.
        let stays: Container = successor
            .runtime
            .start_container(&with("sleeps", 1, "sleep 1000"))
            .await
            .unwrap();
        assert!(matches!(stays.state, ContainerState::Running { .. }));
        successor
            .runtime
            .remove_sandbox(&shared.sandbox.pod_uid)
            .await
            .unwrap();
        until("the process has ended", || {
            (!PathBuf::from(format!("/proc/{second}")).exists()).then_some(())
        });
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

fn inode(listing: &str) -> &str {
    listing.trim().rsplit(' ').next().unwrap()
}

#[test]
fn a_port_of_the_machine_is_for_one_pod_also_after_a_restart() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let port = |port| HostPort {
            port,
            protocol: Protocol::Tcp,
            ip: None,
            container_port: 80,
        };
        let first = SandboxSpec {
            ports: vec![port(8080)],
            ..sandbox("first")
        };
        let made = pod.runtime.create_sandbox(&first).await.unwrap();
        // Nobody but the notes on disk tells the next control.
        let runtime = machine.runtime();
        let mut ports = runtime.host_ports();
        let known = ports
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap();
        let held = &known[&first.pod_uid];
        assert_eq!(held.to.map(IpAddr::from), Some(made.ips[0]));
        let second = SandboxSpec {
            ports: vec![port(8081), port(8080)],
            ..sandbox("second")
        };
        let refused = runtime.create_sandbox(&second).await.unwrap_err();
        assert!(refused.message.contains("8080/tcp"), "{refused}");
        assert!(refused.message.contains("default/first"), "{refused}");
        assert!(refused.retryable);
        runtime.release_sandbox(&first.pod_uid).await.unwrap();
        runtime.create_sandbox(&second).await.unwrap();
        let known = ports.borrow().clone().unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), [&second.pod_uid]);
        for uid in [&first.pod_uid, &second.pod_uid, &pod.sandbox.pod_uid] {
            runtime.remove_sandbox(uid).await.unwrap();
        }
        assert!(ports.borrow().clone().unwrap().is_empty());
        assert_eq!(Traces::of(&machine), before);
    });
}
