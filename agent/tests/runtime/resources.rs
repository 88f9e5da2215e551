//! What a container gets from its machine: processor time, processes, memory, and what it shares with its pod.

use std::{fs, path::PathBuf, time::Duration};

use barge_agent::runtime::containerd::Containerd;
use barge_agent::runtime::{Container, ContainerState, Options, PodResources, QosClass, Runtime};
use nix::{
    mount::{MntFlags, umount2},
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::json;

use super::{
    machine::{Machine, eventually, on_a_machine},
    pods::{Pod, sandbox},
    traces::Traces,
};

fn pid(container: &Container) -> i32 {
    match container.state {
        ContainerState::Running { pid, .. } => i32::try_from(pid).unwrap(),
        _ => panic!("{container:?}"),
    }
}

/// A pod's control group of a version 1 hierarchy.
fn group(machine: &Machine, hierarchy: &str, pod: &Pod) -> PathBuf {
    let root = PathBuf::from("/sys/fs/cgroup")
        .join(hierarchy)
        .join(machine.name());
    let places =
        [root.clone(), root.join("besteffort")].map(|root| root.join(&pod.sandbox.pod_uid));
    let there = places.into_iter().find(|place| place.exists());
    there.expect("the pod's control group")
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Processor time that the pod has had, in nanoseconds.
fn used(machine: &Machine, pod: &Pod) -> u64 {
    read(group(machine, "cpuacct", pod).join("cpuacct.usage"))
        .parse()
        .unwrap()
}

async fn another(pod: &Pod, name: &str) -> Pod {
    Pod {
        runtime: pod.runtime.clone(),
        sandbox: pod.runtime.create_sandbox(&sandbox(name)).await.unwrap(),
        image: pod.image.clone(),
    }
}

#[test]
fn busy_pods_share_a_core_as_they_request() {
    on_a_machine(|machine| async move {
        let (large, before) = Pod::new(&machine, json!({})).await;
        let small = another(&large, "web-1").await;
        let idle = another(&large, "web-2").await;
        for (pod, milli) in [(&large, 1000), (&small, 100), (&idle, 0)] {
            let mut spec = pod.spec("busy", 0, "while :; do :; done");
            spec.cpu_request_milli = milli;
            spec.pod_resources = PodResources {
                qos: if milli == 0 {
                    QosClass::BestEffort
                } else {
                    QosClass::Burstable
                },
                cpu_request_milli: milli,
                memory_limit: None,
            };
            let container = pod.runtime.start_container(&spec).await.unwrap();
            // All on one core: there is nothing to share otherwise.
            let mut first = CpuSet::new();
            first.set(0).unwrap();
            sched_setaffinity(Pid::from_raw(pid(&container)), &first).unwrap();
        }
        let all = || [&large, &small, &idle].map(|pod| used(&machine, pod));
        let begun = all();
        let had = eventually("the large pod has had two seconds", || async {
            let had: Vec<u64> = all()
                .iter()
                .zip(begun)
                .map(|(now, then)| now - then)
                .collect();
            (had[0] > 2_000_000_000).then_some(had)
        })
        .await;
        let ratio = had[0] as f64 / had[1] as f64;
        assert!(
            (7.0..14.0).contains(&ratio),
            "10 to 1 is due, it was {ratio}: {had:?}"
        );
        // Without a request there is no more than what is left over.
        assert!(had[2] * 5 < had[1], "{had:?}");
        for pod in [&large, &small, &idle] {
            let runtime = &pod.runtime;
            runtime.remove_sandbox(&pod.sandbox.pod_uid).await.unwrap();
        }
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn a_pod_that_forks_without_end_is_held_to_its_limit() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let runtime = Containerd::new(Options {
            pod_pids_limit: Some(64),
            ..machine.options()
        })
        .unwrap();
        let beside = Pod {
            runtime,
            ..another(&pod, "web-1").await
        };
        // Two containers: the limit is their pod's.
        let forks = "(i=0; while [ $i -lt 40 ]; do i=$((i+1)); sleep 1000 & done); echo end; exec sleep 1000";
        for name in ["one", "two"] {
            let spec = beside.spec(name, 0, forks);
            beside.runtime.start_container(&spec).await.unwrap();
            beside.says(&spec, "end").await;
        }
        beside.says(&beside.spec("two", 0, ""), "fork").await;
        let pids = group(&machine, "pids", &beside);
        assert_eq!(read(pids.join("pids.max")), "64");
        // Another pod can fork meanwhile; it has the default.
        let (state, out, _) = pod
            .run(&pod.spec("other", 0, "sleep 0.01 & wait; echo done"))
            .await;
        assert!(
            matches!(state, ContainerState::Exited { code: 0, .. }),
            "{state:?}"
        );
        assert_eq!(out, "done\n");
        assert_eq!(read(group(&machine, "pids", &pod).join("pids.max")), "4096");
        for pod in [&pod, &beside] {
            pod.runtime
                .remove_sandbox(&pod.sandbox.pod_uid)
                .await
                .unwrap();
        }
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn a_pod_has_the_memory_of_its_containers_and_goes_in_the_order_of_its_class() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        // What a machine without the right to protect anybody gives.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = u64::from_str_radix(capabilities.unwrap().trim(), 16).unwrap();
        let guaranteed = if capabilities >> 24 & 1 == 1 { -997 } else { 0 };
        let script = "echo score $(cat /proc/self/oom_score_adj)";
        for (name, qos, request, expected) in [
            ("best-effort", QosClass::BestEffort, 0, 1000),
            ("burstable", QosClass::Burstable, 1 << 20, 999),
            ("all", QosClass::Burstable, u64::MAX, 3),
            ("guaranteed", QosClass::Guaranteed, 64 << 20, guaranteed),
        ] {
            let mut spec = pod.spec(name, 0, script);
            spec.pod_resources.qos = qos;
            spec.pod_resources.memory_limit = Some(96 << 20);
            spec.memory_request = request;
            let (_, out, _) = pod.run(&spec).await;
            assert_eq!(out, format!("score {expected}\n"), "{name}");
        }
        let limit = group(&machine, "memory", &pod).join("memory.limit_in_bytes");
        assert_eq!(read(limit), (96 << 20).to_string());
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

const NAMESPACES: &str = "for n in ipc uts net; do ls -l /proc/self/ns/$n; done";

fn inodes(listing: &str) -> Vec<String> {
    let inode = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
    listing.lines().map(inode).collect()
}

#[test]
fn containers_of_a_pod_share_memory_and_names() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({"User": "www"})).await;
        let writer = pod.spec(
            "writer",
            0,
            "echo hello > /dev/shm/greeting; echo ready; sleep 1000",
        );
        let container = pod.runtime.start_container(&writer).await.unwrap();
        pod.says(&writer, "ready").await;
        let script = format!("cat /dev/shm/greeting; hostname; {NAMESPACES}");
        let (_, one, err) = pod.run(&pod.spec("reader", 0, &script)).await;
        assert!(one.starts_with("hello\nweb-0\n"), "{one}{err}");
        // It outlives the container that made it.
        pod.runtime
            .stop_container(&container.id, Duration::ZERO)
            .await
            .unwrap();
        pod.runtime.remove_container(&container.id).await.unwrap();
        let (_, two, _) = pod.run(&pod.spec("writer", 1, &script)).await;
        assert_eq!(one, two);
        let beside = another(&pod, "web-1").await;
        let (_, other, _) = beside.run(&beside.spec("c", 0, NAMESPACES)).await;
        let ours = inodes(one.strip_prefix("hello\nweb-0\n").unwrap());
        for (ours, theirs) in ours.iter().zip(inodes(&other)) {
            assert_ne!(*ours, theirs);
        }
        // 64 MiB and no more, and no programs.
        let script = "dd if=/dev/zero of=/dev/shm/large bs=1M count=65; ls -s /dev/shm/large; grep ' /dev/shm ' /proc/mounts";
        let (_, out, err) = pod.run(&pod.spec("large", 0, script)).await;
        assert!(err.contains("No space left"), "{err}");
        assert!(out.contains("nosuid,nodev,noexec"), "{out}");
        let bytes = fs::metadata(machine.paths().shm(&pod.sandbox.pod_uid).join("large"))
            .unwrap()
            .len();
        assert!((60 << 20..=64 << 20).contains(&bytes), "{bytes}");
        for pod in [&pod, &beside] {
            pod.runtime
                .remove_sandbox(&pod.sandbox.pod_uid)
                .await
                .unwrap();
        }
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn a_pod_of_an_agent_that_shared_nothing_goes_on_as_it_is() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let (paths, uid) = (machine.paths(), &pod.sandbox.pod_uid);
        // As such an agent left it: the network namespace alone.
        for pinned in [paths.ipc(uid), paths.uts(uid), paths.shm(uid)] {
            umount2(&pinned, MntFlags::MNT_DETACH).unwrap();
            match pinned.is_dir() {
                true => fs::remove_dir(pinned).unwrap(),
                false => fs::remove_file(pinned).unwrap(),
            }
        }
        let runs = pod.spec("runs", 0, &format!("{NAMESPACES}; hostname; sleep 1000"));
        let running = pod.runtime.start_container(&runs).await.unwrap();
        pod.says(&runs, "web-0").await;
        let again = pod
            .runtime
            .create_sandbox(&pod.sandbox_spec())
            .await
            .unwrap();
        assert_eq!(again.ips, pod.sandbox.ips);
        let (_, out, _) = pod.run(&pod.spec("later", 0, NAMESPACES)).await;
        let (theirs, ours) = (inodes(&pod.output(&runs).await.0), inodes(&out));
        assert_eq!(theirs[2], ours[2], "one network");
        assert_ne!(theirs[..2], ours[..2]);
        let found = pod.runtime.list().await.unwrap().containers;
        assert_eq!(found[0].state, running.state);
        pod.runtime.remove_sandbox(uid).await.unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn what_was_shared_and_is_gone_comes_back_with_the_next_container() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let (paths, uid) = (machine.paths(), &pod.sandbox.pod_uid);
        for pinned in [paths.ipc(uid), paths.uts(uid), paths.shm(uid)] {
            umount2(&pinned, MntFlags::MNT_DETACH).unwrap();
        }
        // The network is there, and so is the pod.
        let again = pod
            .runtime
            .create_sandbox(&pod.sandbox_spec())
            .await
            .unwrap();
        assert_eq!(again.ips, pod.sandbox.ips);
        let script = format!("echo x > /dev/shm/x; {NAMESPACES}");
        let (_, one, _) = pod.run(&pod.spec("one", 0, &script)).await;
        let (_, two, _) = pod
            .run(&pod.spec(
                "two",
                0,
                &format!("cat /dev/shm/x > /dev/null && {NAMESPACES}"),
            ))
            .await;
        assert_eq!(inodes(&one), inodes(&two));
        pod.runtime.remove_sandbox(uid).await.unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}
