//! Tokens of pods' service accounts, as files of containers.

use super::{
    volumes::{file, settle},
    *,
};
use crate::{
    configuration::Configuration, pods::volumes::account::AUTOMATIC, tokens::TokenRequest,
};

/// A pod that says nothing of a token, on a node that knows of all accounts.
fn asking_nothing() -> Desired {
    let mut asks_nothing = pod("u1", "Always");
    let spec = asks_nothing.spec.as_mut().unwrap();
    spec.automount_service_account_token = None;
    let configuration = Configuration::kept(vec![], vec![], true);
    Desired {
        configuration: configuration.with_accounts(vec![]),
        ..assigned(1, [asks_nothing])
    }
}

fn has_a_token(machine: &Machine) -> bool {
    let made = machine.runtime.volumes("u1").map(|it| it.volumes);
    made.unwrap_or_default().contains_key(AUTOMATIC)
}

#[tokio::test(start_paused = true)]
async fn no_container_waits_for_a_token_that_it_did_not_ask_for() {
    let machine = Machine::new();
    // No manager gives a token, and its volume cannot be made.
    machine.runtime.break_volume(AUTOMATIC);
    let mut agent = machine.agent(asking_nothing());
    agent.until_phase("u1", "Running").await;
    assert!(!has_a_token(&machine));
    let told = "FailedMount: The token of the pod's account is not mounted: cannot make volume";
    let told = |message: &String| message.starts_with(told);
    assert!(agent.messages.iter().any(told), "{:?}", agent.messages);
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

/// A pod with two containers and the token that it did not ask for.
fn with_token() -> (Desired, TokenRequest) {
    let mut pod = pod("u1", "Always");
    let spec = pod.spec.as_mut().unwrap();
    spec.automount_service_account_token = None;
    let other = Container {
        name: "other".into(),
        ..spec.containers[0].clone()
    };
    spec.containers.push(other);
    let request = TokenRequest::of(&pod, "", 3607);
    let desired = Desired {
        configuration: Configuration::kept(vec![], vec![], true).with_accounts(vec![]),
        ..assigned(1, [pod])
    };
    (desired, request)
}

#[tokio::test(start_paused = true)]
async fn a_token_that_could_not_be_written_is_written_later() {
    let machine = Machine::new();
    let (desired, request) = with_token();
    machine.tokens.put(&request, "one");
    let mut agent = machine.agent(desired);
    agent.until_phase("u1", "Running").await;
    assert_eq!(file(&machine, AUTOMATIC, "token"), "one");
    for _ in 0..2 {
        machine.runtime.fail("volumes", "FailedMount");
    }
    machine.tokens.put(&request, "two");
    settle().await;
    assert_eq!(file(&machine, AUTOMATIC, "token"), "two");
    agent.assign(with_token().0);
    agent.until_phase("u1", "Running").await;
    assert!(agent.events.contains(&"FailedMount".to_owned()));
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_starts_without_its_token_leaves_the_others_theirs() {
    let machine = Machine::new();
    let (desired, request) = with_token();
    machine.tokens.put(&request, "one");
    let mut agent = machine.agent(desired);
    agent.until_phase("u1", "Running").await;
    machine.runtime.fail("volumes", "FailedMount");
    machine.runtime.exit(&container_id("u1", "other", 0), 1);
    settle().await;
    let starts = || {
        let calls = machine.runtime.calls();
        let starts = calls.iter().filter(|it| it.starts_with("start "));
        starts.cloned().collect::<Vec<_>>()
    };
    assert!(
        starts().contains(&"start other/1".to_owned()),
        "{:?}",
        starts()
    );
    machine.tokens.put(&request, "two");
    settle().await;
    assert_eq!(file(&machine, AUTOMATIC, "token"), "two");
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_ended_gets_no_more_tokens() {
    let machine = Machine::new();
    let (desired, request) = with_token();
    let never = |desired: Desired| {
        let mut desired = desired;
        let pod = Arc::make_mut(desired.pods.get_mut("u1").unwrap());
        pod.spec.as_mut().unwrap().restart_policy = "Never".into();
        desired
    };
    let mut agent = machine.agent(never(desired));
    machine.tokens.put(&request, "one");
    agent.until_phase("u1", "Running").await;
    assert!(machine.tokens.wants(&request));
    for name in ["web", "other"] {
        machine.runtime.exit(&container_id("u1", name, 0), 0);
    }
    agent.until_phase("u1", "Succeeded").await;
    settle().await;
    assert!(!machine.tokens.wants(&request));
    // News of what it was given, and another agent, change nothing.
    agent.assign(never(with_token().0));
    settle().await;
    assert!(!machine.tokens.wants(&request));
    agent.end().await;
    let agent = machine.agent(never(with_token().0));
    settle().await;
    assert!(!machine.tokens.wants(&request));
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_container_has_its_token_when_its_volumes_could_not_be_made_at_first() {
    let machine = Machine::new();
    machine.runtime.fail("volumes", "FailedMount");
    let mut agent = machine.agent(asking_nothing());
    agent.until_phase("u1", "Running").await;
    assert!(has_a_token(&machine));
    assert!(!agent.events.contains(&"FailedMount".to_owned()));
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}
