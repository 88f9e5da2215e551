//! Volumes of pods, in real containers.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use barge_agent::runtime::{
    ContainerSpec, ContainerState, HostPathType, Place, PodVolumes, Runtime, Security, VolumeFile,
    VolumeMount, VolumeSource,
};
use serde_json::json;

use super::{machine::on_a_machine, pods::Pod, traces::Traces};

fn text(text: &str) -> VolumeSource {
    let file = VolumeFile::new(text.into(), 0o400);
    VolumeSource::Files([("text".to_owned(), file)].into())
}

fn mount(volume: &str, place: Place, path: &str, sub_path: &str) -> VolumeMount {
    VolumeMount {
        volume: volume.into(),
        read_only: place == Place::Files,
        place,
        path: path.into(),
        sub_path: sub_path.into(),
        sees_mounts: false,
    }
}

fn volumes(pod: &Pod, volumes: &[(&str, VolumeSource)]) -> PodVolumes {
    let volumes = volumes
        .iter()
        .map(|(name, it)| ((*name).to_owned(), it.clone()));
    PodVolumes {
        pod_uid: pod.sandbox.pod_uid.clone(),
        group: Some(3000),
        volumes: volumes.collect::<BTreeMap<_, _>>(),
    }
}

#[test]
fn containers_share_volumes_as_the_group_of_their_pod() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let host = machine.path("host");
        let on_host = VolumeSource::Host {
            path: host.clone(),
            kind: HostPathType::DirectoryOrCreate,
        };
        let all = volumes(
            &pod,
            &[
                ("disk", VolumeSource::Disk),
                (
                    "memory",
                    VolumeSource::Memory {
                        size: Some(1 << 20),
                    },
                ),
                ("config", text("one")),
                ("host", on_host),
            ],
        );
        pod.runtime.look_at_host_paths(&all).await.unwrap();
        pod.runtime.ensure_volumes(&all).await.unwrap();
        let mounts = vec![
            mount("disk", Place::Disk, "/disk", ""),
            mount("disk", Place::Disk, "/disk/sub", "deep/er"),
            mount("memory", Place::Memory, "/dev/shm", ""),
            mount("config", Place::Files, "/config", ""),
            mount("config", Place::Files, "/etc/text", "text"),
            mount("host", Place::Host(host.clone()), "/host", ""),
        ];
        let with = |name: &str, attempt: u32, script: &str| ContainerSpec {
            mounts: mounts.clone(),
            security: Security {
                run_as_user: Some(1001),
                run_as_group: Some(1001),
                groups: vec![3000],
                ..Security::default()
            },
            ..pod.spec(name, attempt, script)
        };
        let script =
            "set -e; echo a >/disk/a; echo b >/disk/sub/b; cat /disk/deep/er/b; echo c >/dev/shm/c
            ls -ln /disk/a | grep -c ' 1001 *3000 '; cat /config/text /etc/text
            (echo x >/config/x) 2>/dev/null || echo read-only
            (echo x >/host/x) 2>/dev/null || echo not ours
            dd if=/dev/zero of=/dev/shm/large bs=65536 count=32 2>/dev/null || echo full";
        let writer = with("writer", 0, script);
        let (state, out, err) = pod.run(&writer).await;
        let ended = matches!(state, ContainerState::Exited { code: 0, .. });
        assert!(ended, "{state:?} {out} {err}");
        assert_eq!(out, "b\n1\noneoneread-only\nnot ours\nfull\n");
        assert!(host.is_dir());

        // Another container of the pod, and a second attempt of the first, find all of it; a changed file reaches who runs.
        let reader = with(
            "reader",
            0,
            "cat /disk/a /disk/sub/b /dev/shm/c; while [ $(cat /config/text) = one ]; do sleep 0.05; done; cat /config/text /etc/text",
        );
        let reading = pod.runtime.start_container(&reader).await.unwrap();
        pod.says(&reader, "c\n").await;
        let again = with("writer", 1, "cat /disk/a /disk/deep/er/b");
        assert_eq!(pod.run(&again).await.1, "a\nb\n");
        let mut changed = all.clone();
        changed.volumes.insert("config".into(), text("two"));
        // By an agent that was started again.
        machine.runtime().ensure_volumes(&changed).await.unwrap();
        super::pods::exited(&pod.runtime, &reading.id).await;
        pod.runtime.remove_container(&reading.id).await.unwrap();
        assert_eq!(pod.output(&reader).await.0, "a\nb\nc\ntwoone");

        for _ in 0..2 {
            pod.runtime
                .remove_sandbox(&pod.sandbox.pod_uid)
                .await
                .unwrap();
        }
        assert!(host.is_dir(), "what is the node's stays");
        let run = machine.path("data/run/volumes");
        let mode = fs::metadata(&run).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn volumes_that_cannot_be_made_are_said_and_can_be_mended() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let missing = VolumeSource::Host {
            path: machine.path("none"),
            kind: HostPathType::Directory,
        };
        let all = volumes(&pod, &[("host", missing)]);
        let error = pod.runtime.look_at_host_paths(&all).await.unwrap_err();
        assert_eq!(error.reason, "FailedMount");
        assert!(
            error.message.contains("volume \"host\": hostPath"),
            "{error}"
        );
        fs::create_dir(machine.path("none")).unwrap();
        pod.runtime.look_at_host_paths(&all).await.unwrap();

        let all = volumes(
            &pod,
            &[("disk", VolumeSource::Disk), ("config", text("one"))],
        );
        pod.runtime.ensure_volumes(&all).await.unwrap();
        let data = machine.path("data");
        let disk = data
            .join("pods")
            .join(&pod.sandbox.pod_uid)
            .join("volumes/disk");
        std::os::unix::fs::symlink("/etc", disk.join("out")).unwrap();
        for (place, sub_path, why) in [
            (Place::Disk, "out", "leads out of the volume"),
            (Place::Files, "none", "No such file"),
        ] {
            let volume = if place == Place::Disk {
                "disk"
            } else {
                "config"
            };
            let spec = ContainerSpec {
                mounts: vec![mount(volume, place, "/mnt", sub_path)],
                ..pod.spec("main", 0, "ls /mnt")
            };
            let error = pod.runtime.start_container(&spec).await.unwrap_err();
            assert_eq!(error.reason, "FailedMount");
            assert!(error.message.contains(why), "{error}");
        }
        // A pod that died while it was removed: what is in memory is swept, and nothing else.
        let left = data.join("run/volumes/3f0e4d5c-9a1b-4c7d-8e2f-001122334455");
        fs::create_dir_all(left.join("sub/main/0")).unwrap();
        machine.runtime().recover().await.unwrap();
        assert!(!left.exists());
        assert!(data.join("run/volumes").join(&pod.sandbox.pod_uid).exists());
        pod.runtime
            .release_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert!(!disk.exists());
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}
