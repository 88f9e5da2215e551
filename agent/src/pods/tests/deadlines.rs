//! `activeDeadlineSeconds`: the end of pods that may be on their node for so long only.

use barge_proto::v1::{Secret, SecretVolumeSource, Volume};

use super::*;
use crate::configuration::Configuration;

/// A pod that may be on its node for ten seconds.
fn short(uid: &str) -> Pod {
    let mut pod = pod(uid, "Always");
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(10);
    pod
}

fn exceeded(report: &PodReport) -> bool {
    let status = status(report);
    status.phase == "Failed" && status.reason == "DeadlineExceeded"
}

/// Waits until the pod has failed, and has given back its network.
async fn fails_and_gives_back(machine: &Machine, agent: &mut Agent) {
    let begun = tokio::time::Instant::now();
    agent.until("u1", "over its time", exceeded).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    let released = async {
        while machine.runtime.holds_network("u1") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let released = timeout(Duration::from_secs(120), released).await;
    assert!(released.is_ok(), "{:?}", machine.runtime.calls());
    let started = |call: &String| call.starts_with("start ");
    assert!(!machine.runtime.calls().iter().any(started));
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_image_never_comes_ends_in_time_and_gives_back_its_network() {
    let machine = Machine::new();
    machine.runtime.stall_pulls_of("nginx");
    let mut agent = machine.agent(assigned(1, [short("u1")]));
    fails_and_gives_back(&machine, &mut agent).await;
    assert_eq!(machine.runtime.pulling(), 0);
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_a_volume_ends_in_time_and_gives_back_its_network() {
    let machine = Machine::new();
    let mut waiting = short("u1");
    waiting.spec.as_mut().unwrap().volumes = vec![Volume {
        name: "secret".into(),
        secret: Some(SecretVolumeSource {
            secret_name: "db".into(),
            ..Default::default()
        }),
        ..Default::default()
    }];
    let mut agent = machine.agent(Desired {
        configuration: Configuration::kept(vec![], Vec::<Secret>::new(), true),
        ..assigned(1, [waiting])
    });
    fails_and_gives_back(&machine, &mut agent).await;
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_the_node_s_network_ends_in_time() {
    let machine = Machine::new();
    let (_ready, network_ready) = watch::channel(false);
    let mut agent = machine.agent_with(assigned(1, [short("u1")]), network_ready);
    fails_and_gives_back(&machine, &mut agent).await;
    // It is over, so that its deletion waits for nothing.
    agent.assign(assigned(1, [ending(short("u1"), 1)]));
    agent.until_gone("u1").await;
    agent.end().await;
}
