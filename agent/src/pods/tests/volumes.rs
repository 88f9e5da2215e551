//! Volumes: made before containers start, and kept up to date.

use barge_proto::v1::{
    ConfigMap, ConfigMapVolumeSource, DownwardApiVolumeFile, DownwardApiVolumeSource,
    EmptyDirVolumeSource, ObjectFieldSelector, Secret, SecretVolumeSource, Volume, VolumeMount,
};

use super::*;
use crate::{configuration::Configuration, runtime::VolumeSource};

/// A pod that mounts the Secret `db`, its own labels and a folder of at most a MiB.
pub(super) fn mounting(uid: &str, label: &str) -> Pod {
    let mut pod = pod(uid, "Always");
    let labels = &mut pod.metadata.as_mut().unwrap().labels;
    labels.insert("app".to_owned(), label.to_owned());
    let spec = pod.spec.as_mut().unwrap();
    let secret = Volume {
        name: "secret".into(),
        secret: Some(SecretVolumeSource {
            secret_name: "db".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let labels = DownwardApiVolumeFile {
        path: "labels".into(),
        field_ref: Some(ObjectFieldSelector {
            field_path: "metadata.labels".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let labels = Volume {
        name: "labels".into(),
        downward_api: Some(DownwardApiVolumeSource {
            items: vec![labels],
            ..Default::default()
        }),
        ..Default::default()
    };
    let limit = Quantity {
        value: "1Mi".into(),
    };
    let disk = Volume {
        name: "disk".into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(limit),
            ..Default::default()
        }),
        ..Default::default()
    };
    spec.volumes = vec![secret, labels, disk];
    spec.containers[0].volume_mounts = vec![VolumeMount {
        name: "secret".into(),
        mount_path: "/secret".into(),
        ..Default::default()
    }];
    pod
}

pub(super) fn db(password: &str) -> Vec<Secret> {
    let secret = Secret {
        metadata: Some(ObjectMeta {
            name: "db".into(),
            namespace: "default".into(),
            ..Default::default()
        }),
        data: [("password".to_owned(), password.as_bytes().to_vec())].into(),
        ..Default::default()
    };
    vec![secret]
}

pub(super) fn assigned_with(secrets: Vec<Secret>, label: &str) -> Desired {
    Desired {
        configuration: Configuration::kept(vec![], secrets, true),
        ..assigned(1, [mounting("u1", label), pod("u2", "Always")])
    }
}

fn waits(sentence: &'static str) -> impl Fn(&PodReport) -> bool {
    move |report| {
        let waiting = state(report).waiting;
        waiting.is_some_and(|it| it.reason == "ContainerCreating" && it.message.contains(sentence))
    }
}

/// The content of a file of the pod's volumes.
pub(super) fn file(machine: &Machine, volume: &str, path: &str) -> String {
    let volumes = machine.runtime.volumes("u1").map(|it| it.volumes);
    match volumes.unwrap_or_default().get(volume) {
        Some(VolumeSource::Files(files)) => String::from_utf8(files[path].bytes.clone()).unwrap(),
        other => format!("{other:?}"),
    }
}

/// Until the pods have done what they can do now.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

pub(super) fn stops(machine: &Machine) -> usize {
    let calls = machine.runtime.calls();
    calls.iter().filter(|it| it.starts_with("stop")).count()
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_what_its_volumes_name_and_starts_as_soon_as_that_comes() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned_with(vec![], "a"));
    let without = waits("volume \"secret\": Secret \"db\" does not exist");
    agent.until("u1", "waiting", without).await;
    agent.until_phase("u2", "Running").await;
    assert!(agent.events.contains(&"FailedMount".to_owned()));
    // Long enough for the pauses between tries to become minutes.
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let before = tokio::time::Instant::now();
    agent.assign(assigned_with(db("one"), "a"));
    agent.until_phase("u1", "Running").await;
    assert!(before.elapsed() < Duration::from_secs(5), "it waited on");
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn changes_reach_the_files_of_running_containers() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned_with(db("one"), "a"));
    agent.until_phase("u1", "Running").await;
    assert_eq!(file(&machine, "secret", "password"), "one");
    agent.assign(assigned_with(db("two"), "a"));
    settle().await;
    assert_eq!(file(&machine, "secret", "password"), "two");
    agent.assign(assigned_with(db("two"), "b"));
    settle().await;
    assert_eq!(file(&machine, "labels", "labels"), "app=\"b\"");
    // What is gone ends nothing; what changes while no agent runs is found by the next.
    agent.assign(assigned_with(vec![], "b"));
    settle().await;
    assert_eq!(file(&machine, "secret", "password"), "two");
    agent.kill();
    machine.runtime.fail("volumes", "FailedMount");
    let mut agent = machine.agent(assigned_with(db("three"), "b"));
    agent.until_phase("u1", "Running").await;
    settle().await;
    assert_eq!(file(&machine, "secret", "password"), "three");
    assert_eq!(stops(&machine), 0);
    // Nothing more is done while nothing changes, but that the folder is measured.
    let looks = || {
        let calls = machine.runtime.calls();
        calls.iter().filter(|it| it.starts_with("volumes")).count()
    };
    let before = looks();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(looks(), before);
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_goes_keeps_no_other_from_the_files_of_what_runs() {
    let machine = Machine::new();
    let config = |color: &str| ConfigMap {
        metadata: db("")[0].metadata.clone().map(|metadata| ObjectMeta {
            name: "web".into(),
            ..metadata
        }),
        data: [("color".to_owned(), color.to_owned())].into(),
        ..Default::default()
    };
    let with = |config_maps: Vec<ConfigMap>, password: &str| {
        let mut mounting = mounting("u1", "a");
        let volume = Volume {
            // The first of them, in any order.
            name: "a-config".into(),
            config_map: Some(ConfigMapVolumeSource {
                name: "web".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        mounting.spec.as_mut().unwrap().volumes.insert(0, volume);
        Desired {
            configuration: Configuration::kept(config_maps, db(password), true),
            ..assigned(1, [mounting])
        }
    };
    let mut agent = machine.agent(with(vec![config("blue")], "one"));
    agent.until_phase("u1", "Running").await;
    agent.assign(with(vec![], "two"));
    settle().await;
    assert_eq!(file(&machine, "secret", "password"), "two");
    assert_eq!(file(&machine, "a-config", "color"), "blue");
    agent.until_phase("u1", "Running").await;
    assert!(agent.events.contains(&"FailedMount".to_owned()));
    // Also while the missing one is tried again at longer and longer pauses.
    tokio::time::sleep(Duration::from_secs(1200)).await;
    agent.assign(with(vec![], "three"));
    settle().await;
    assert_eq!(file(&machine, "secret", "password"), "three");
    assert_eq!(stops(&machine), 0);
    // And while another container of the pod waits for it.
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    settle().await;
    agent.assign(with(vec![], "four"));
    settle().await;
    assert_eq!(file(&machine, "secret", "password"), "four");
    agent.assign(with(vec![config("red")], "four"));
    agent.until("u1", "restarted", restarts(1)).await;
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn volumes_that_cannot_be_made_hold_up_their_pod_only() {
    let machine = Machine::new();
    for _ in 0..3 {
        machine.runtime.fail("volumes", "FailedMount");
    }
    let mut agent = machine.agent(assigned_with(db("one"), "a"));
    agent.until("u1", "waiting", waits("volumes fails")).await;
    agent.until_phase("u2", "Running").await;
    agent.until_phase("u1", "Running").await;
    // The next attempt looks at them again.
    machine.runtime.fail("volumes", "FailedMount");
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    agent.until("u1", "restarted", restarts(1)).await;
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn pods_whose_files_take_long_to_remove_hold_up_no_start() {
    let machine = Machine::new();
    // More than creations or removals at a time.
    let slow = ["s1", "s2", "s3", "s4"];
    let all = || slow.map(|uid| pod(uid, "Always"));
    let mut agent = machine.agent(assigned(1, all().into_iter().chain([pod("u1", "Always")])));
    for uid in slow.into_iter().chain(["u1"]) {
        agent.until_phase(uid, "Running").await;
    }
    for uid in slow {
        machine.runtime.stall_removal_of(uid);
    }
    let end = || all().map(|pod| ending(pod, 1)).into_iter();
    let others = [pod("u1", "Always"), pod("u2", "Always")];
    agent.assign(assigned(1, end().chain(others)));
    settle().await;
    // A new pod, a container that crashed, and the removal of another pod.
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    agent.until_phase("u2", "Running").await;
    agent.until("u1", "restarted", restarts(1)).await;
    let others = [pod("u1", "Always"), ending(pod("u2", "Always"), 1)];
    agent.assign(assigned(1, end().chain(others)));
    agent.until_gone("u2").await;
    agent.kill();
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

/// What changes after an init container ended, and before the next one starts, is in the files of the next one.
#[tokio::test(start_paused = true)]
async fn volumes_are_looked_at_before_the_start_of_each_container() {
    let machine = Machine::new();
    let with_init = || {
        let mut pod = mounting("u1", "a");
        let spec = pod.spec.as_mut().unwrap();
        let init = Container {
            name: "init".into(),
            ..spec.containers[0].clone()
        };
        spec.init_containers.push(init);
        assigned(1, [pod])
    };
    let desired = Desired {
        configuration: Configuration::kept(vec![], db("one"), true),
        ..with_init()
    };
    let mut agent = machine.agent(desired);
    settle().await;
    let calls = || machine.runtime.calls();
    assert!(
        calls().contains(&"start init/0".to_owned()),
        "{:?}",
        calls()
    );
    let before = calls().len();
    machine.runtime.exit(&container_id("u1", "init", 0), 0);
    agent.until_phase("u1", "Running").await;
    let later = calls().split_off(before);
    let at = |what: &str| later.iter().position(|it| it == what);
    let (made, started) = (at("volumes u1"), at("start web/0"));
    assert!(made.is_some() && made < started, "{later:?}");
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}
