//! Containers that need ConfigMaps and Secrets.

use barge_proto::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ResourceFieldSelector, Secret, SecretEnvSource,
};

use super::*;
use crate::configuration::Configuration;

/// A pod that takes all variables of the Secret `db`.
fn needy(uid: &str) -> Pod {
    let mut pod = pod(uid, "Always");
    pod.spec.as_mut().unwrap().containers[0].env_from = vec![EnvFromSource {
        secret_ref: Some(SecretEnvSource {
            name: "db".into(),
            optional: None,
        }),
        ..Default::default()
    }];
    pod
}

fn db() -> Secret {
    Secret {
        metadata: Some(ObjectMeta {
            name: "db".into(),
            namespace: "default".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn assigned_with(secrets: Vec<Secret>, complete: bool) -> Desired {
    Desired {
        configuration: Configuration::kept(vec![], secrets, complete),
        ..assigned(1, [needy("u1"), pod("u2", "Always")])
    }
}

fn waits(report: &PodReport, sentence: &str) -> bool {
    let containers = &status(report).container_statuses;
    let waiting = containers
        .first()
        .and_then(|it| it.state.as_ref()?.waiting.as_ref());
    waiting.is_some_and(|it| {
        it.reason == "CreateContainerConfigError" && it.message.contains(sentence)
    })
}

#[tokio::test(start_paused = true)]
async fn a_container_waits_for_its_secret_and_starts_as_soon_as_that_comes() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned_with(vec![], true));
    let without = |report: &PodReport| waits(report, "Secret \"db\" does not exist");
    agent.until("u1", "waiting", without).await;
    agent.until_phase("u2", "Running").await;
    // Long enough for the pauses between tries to become minutes.
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let before = tokio::time::Instant::now();
    agent.assign(assigned_with(vec![db()], true));
    agent.until_phase("u1", "Running").await;
    assert!(before.elapsed() < Duration::from_secs(5), "it waited on");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_boot_a_container_waits_for_the_managers() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned_with(vec![], false));
    let unknown = |report: &PodReport| waits(report, "it was booted since");
    agent.until("u1", "waiting", unknown).await;
    agent.assign(assigned_with(vec![db()], true));
    agent.until_phase("u1", "Running").await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_goes_or_changes_ends_no_container() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned_with(vec![db()], true));
    agent.until_phase("u1", "Running").await;
    agent.assign(assigned_with(vec![], true));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let calls = machine.runtime.calls();
    assert!(
        !calls.iter().any(|call| call.starts_with("stop")),
        "{calls:?}"
    );
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    let without = |report: &PodReport| waits(report, "Secret \"db\" does not exist");
    agent.until("u1", "waiting", without).await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_learns_what_its_node_has_although_no_manager_has_said_it() {
    let machine = Machine::new();
    let mut pod = pod("u1", "Always");
    let source = EnvVarSource {
        resource_field_ref: Some(ResourceFieldSelector {
            resource: "limits.cpu".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    pod.spec.as_mut().unwrap().containers[0].env = vec![EnvVar {
        name: "CPUS".into(),
        value_from: Some(source),
        ..Default::default()
    }];
    let mut agent = machine.agent(assigned(1, [pod]));
    agent.until_phase("u1", "Running").await;
    agent.end().await;
}
