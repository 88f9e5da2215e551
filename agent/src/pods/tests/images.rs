//! The images of pods: what is pulled, what waits for it, and what is told.

use barge_proto::v1::{LocalObjectReference, Secret};

use super::*;
use crate::configuration::Configuration;

fn pod_of(uid: &str, image: &str, pull_policy: &str) -> Pod {
    let mut pod = pod(uid, "Always");
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.image = image.into();
    container.image_pull_policy = pull_policy.into();
    pod
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_there_waits_for_no_pull() {
    let machine = Machine::new();
    machine.runtime.stall_pulls_of("slow:1");
    let slow = (0..20).map(|n| pod_of(&format!("slow{n}"), "slow:1", "IfNotPresent"));
    let mut agent = machine.agent(assigned(1, slow.clone()));
    let pulling = |report: &PodReport| status(report).phase == "Pending";
    agent.until("slow19", "pulling", pulling).await;
    machine.runtime.put_image("here:1");
    let all = slow.chain([pod_of("u1", "here:1", "IfNotPresent")]);
    agent.assign(assigned(2, all));
    let begun = tokio::time::Instant::now();
    agent.until_phase("u1", "Running").await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    let told = "Pulled: Container image \"here:1\" already present on machine";
    assert!(agent.messages.iter().any(|m| m == told));
    let calls = machine.runtime.calls();
    assert!(!calls.contains(&"pull here:1".to_owned()));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_told_when_it_begins_and_a_failed_one_once_per_try() {
    let machine = Machine::new();
    machine.runtime.fail("pull", "ErrImagePull");
    let mut agent = machine.agent(assigned(1, [pod_of("u1", "nginx", "Always")]));
    let backing_off = waits_for("ImagePullBackOff");
    agent.until("u1", "backing off", backing_off).await;
    let first = [
        "Pulling: Pulling image \"nginx\"",
        "Failed: Failed to pull image \"nginx\": pull fails",
        "BackOff: Back-off pulling image \"nginx\"",
    ];
    assert_eq!(agent.messages, first);
    machine.runtime.stall_pulls_of("nginx");
    let again = |report: &PodReport| report.uid == "other";
    let both = [
        pod_of("u1", "nginx", "Always"),
        pod_of("other", "else", "Always"),
    ];
    tokio::time::sleep(Duration::from_secs(30)).await;
    agent.assign(assigned(2, both));
    agent.until("other", "seen", again).await;
    // The second try has begun and has no end yet.
    let pulling = agent.messages.iter().filter(|m| **m == first[0]);
    assert_eq!(pulling.count(), 2, "{:?}", agent.messages);
    let others = agent.messages.iter().filter(|m| **m == first[2]);
    assert_eq!(others.count(), 1, "{:?}", agent.messages);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_pull_of_a_deleted_pod_is_given_up() {
    let machine = Machine::new();
    machine.runtime.stall_pulls_of("slow:1");
    let mut agent = machine.agent(assigned(1, [pod_of("u1", "slow:1", "Always")]));
    agent.until_phase("u1", "Pending").await;
    while machine.runtime.pulling() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    agent.assign(assigned(2, [ending(pod_of("u1", "slow:1", "Always"), 5)]));
    agent.until_gone("u1").await;
    assert_eq!(machine.runtime.pulling(), 0);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_went_between_pull_and_start_is_pulled_again() {
    let machine = Machine::new();
    machine.runtime.fail("start", "ErrImagePull");
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    let begun = tokio::time::Instant::now();
    agent.until_phase("u1", "Running").await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    let calls = machine.runtime.calls();
    let pulls = calls.iter().filter(|call| *call == "pull nginx").count();
    assert_eq!(pulls, 2, "{calls:?}");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pull_brings_the_pods_secrets_and_is_tried_again_as_soon_as_one_comes() {
    let machine = Machine::new();
    let mut private = pod_of("u1", "private:1", "IfNotPresent");
    private.spec.as_mut().unwrap().image_pull_secrets = vec![LocalObjectReference {
        name: "registry".into(),
    }];
    let with = |secrets: Vec<Secret>| Desired {
        configuration: Configuration::kept(vec![], secrets, true),
        ..assigned(1, [private.clone()])
    };
    for _ in 0..4 {
        machine.runtime.fail("pull", "ErrImagePull");
    }
    let mut agent = machine.agent(with(vec![]));
    agent
        .until("u1", "backing off", waits_for("ImagePullBackOff"))
        .await;
    // Fails after 0, 10, 30 and 70 s, and would be tried again after 150.
    tokio::time::sleep(Duration::from_secs(75)).await;
    assert!(machine.runtime.pull_secrets().0.is_empty());
    let config = r#"{"auths": {"h.example": {"auth": "bWU6eA=="}}}"#;
    let secret = Secret {
        metadata: Some(ObjectMeta {
            name: "registry".into(),
            namespace: "default".into(),
            uid: "s1".into(),
            ..Default::default()
        }),
        r#type: "kubernetes.io/dockerconfigjson".into(),
        data: [(".dockerconfigjson".to_owned(), config.into())].into(),
        ..Default::default()
    };
    let before = tokio::time::Instant::now();
    agent.assign(with(vec![secret]));
    agent.until_phase("u1", "Running").await;
    assert!(before.elapsed() < Duration::from_secs(5), "it waited on");
    let brought = machine.runtime.pull_secrets();
    assert_eq!(brought.0[0].uid, "s1");
    let told = "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets: registry (there is no such Secret)";
    assert!(
        agent.messages.iter().any(|m| m.starts_with(told)),
        "{:?}",
        agent.messages
    );
    agent.end().await;
}
