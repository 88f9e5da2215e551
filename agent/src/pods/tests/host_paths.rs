//! Files of the node that pods mount, on a file system that does not answer.

use barge_proto::v1::{HostPathVolumeSource, Secret, SecretVolumeSource, Volume, VolumeMount};

use super::*;
use crate::{configuration::Configuration, runtime::VolumeSource};

/// A pod of two containers, which mounts `path` of the node and the Secret `db`.
fn mounting(uid: &str, path: &str, sub_path: &str) -> Pod {
    let mut pod = pod(uid, "Always");
    let spec = pod.spec.as_mut().unwrap();
    spec.volumes = vec![
        Volume {
            name: "node".into(),
            host_path: Some(HostPathVolumeSource {
                path: path.into(),
                ..Default::default()
            }),
            ..Default::default()
        },
        Volume {
            name: "secret".into(),
            secret: Some(SecretVolumeSource {
                secret_name: "db".into(),
                ..Default::default()
            }),
            ..Default::default()
        },
    ];
    spec.containers[0].volume_mounts = vec![VolumeMount {
        name: "node".into(),
        mount_path: "/node".into(),
        sub_path: sub_path.into(),
        ..Default::default()
    }];
    let other = Container {
        name: "other".into(),
        volume_mounts: Vec::new(),
        ..spec.containers[0].clone()
    };
    spec.containers.push(other);
    pod
}

fn with(password: &str, pods: impl IntoIterator<Item = Pod>) -> Desired {
    let secret = Secret {
        metadata: Some(ObjectMeta {
            name: "db".into(),
            namespace: "default".into(),
            ..Default::default()
        }),
        data: [("password".to_owned(), password.as_bytes().to_vec())].into(),
        ..Default::default()
    };
    Desired {
        configuration: Configuration::kept(vec![], vec![secret], true),
        ..assigned(1, pods)
    }
}

fn password(machine: &Machine) -> Vec<u8> {
    let volumes = machine.runtime.volumes("u1").unwrap_or_default().volumes;
    match volumes.get("secret") {
        Some(VolumeSource::Files(files)) => files["password"].bytes.clone(),
        _ => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_that_hangs_holds_up_no_other_volume_of_its_pod() {
    let machine = Machine::new();
    let mut agent = machine.agent(with("one", [mounting("u1", "/dead", "")]));
    agent.until_phase("u1", "Running").await;
    machine.runtime.hang(&["/dead"]);
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    // Its restart looks at the path.
    let looks = |machine: &Machine| {
        let calls = machine.runtime.calls();
        calls.iter().filter(|call| call.starts_with("look")).count()
    };
    while looks(&machine) < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for word in ["two", "three", "four"] {
        agent.assign(with(word, [mounting("u1", "/dead", "")]));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(password(&machine), word.as_bytes());
    }
    let waits = |report: &PodReport| {
        let waiting = state(report).waiting;
        waiting.is_some_and(|it| it.message.contains("/dead"))
    };
    agent.until("u1", "waiting for the path", waits).await;
    assert!(agent.events.contains(&"FailedMount".to_owned()));
    machine.runtime.hang(&[]);
    agent.until("u1", "restarted", restarts(1)).await;
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn paths_that_hang_hold_up_no_other_pod() {
    let machine = Machine::new();
    machine.runtime.hang(&["/dead", "/half/part"]);
    // More than there are containers made at a time.
    let dead = (0..8).map(|n| mounting(&format!("dead{n}"), "/half", "part"));
    let whole = (0..8).map(|n| mounting(&format!("whole{n}"), "/dead", ""));
    let hung: Vec<_> = dead.chain(whole).collect();
    let mut agent = machine.agent(with("one", hung.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    for n in 0..10 {
        let uid = format!("u{n}");
        let begun = tokio::time::Instant::now();
        agent.assign(with(
            "one",
            hung.iter().cloned().chain([pod(&uid, "Always")]),
        ));
        agent.until_phase(&uid, "Running").await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    agent.end().await;
}
