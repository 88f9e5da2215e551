//! Pods whose deletion was recorded, and pods that nobody assigned.

use super::*;

/// A container that no assignment speaks of.
pub(super) fn stranger(uid: &str, state: ContainerState) -> runtime::Container {
    runtime::Container {
        id: container_id(uid, "web", 0),
        pod_uid: uid.into(),
        name: "web".into(),
        attempt: 0,
        image_id: String::new(),
        image: String::new(),
        state,
    }
}

pub(super) const RUNNING: ContainerState = ContainerState::Running {
    pid: 77,
    started_at_ms: 1,
};

fn with_node(mut desired: Desired) -> Desired {
    let node = Node {
        metadata: Some(ObjectMeta {
            uid: "n".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    desired.welcome = Some(Arc::new(Welcome {
        node: Some(node),
        ..Default::default()
    }));
    desired
}

#[tokio::test(start_paused = true)]
async fn strangers_run_on_until_their_deletion_is_recorded() {
    let machine = Machine::new();
    machine.runtime.put(stranger("old", RUNNING));
    machine
        .runtime
        .put(stranger("half", ContainerState::Created));
    let kept = Desired {
        epoch: 0,
        ..assigned(1, [pod("u1", "Always")])
    };
    let mut agent = machine.agent(kept);
    agent.until_phase("u1", "Running").await;
    assert!(agent.unknown.borrow().is_empty(), "nobody has said so yet");
    assert_eq!(machine.runtime.containers().len(), 3);
    agent.assign(with_node(assigned(1, [pod("u1", "Always")])));
    // What never ran is cleared away, and says nothing of the other.
    agent.until_gone("half").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(pids(&machine).contains(&77));
    let stopped = |call: &String| call.starts_with("stop");
    assert!(!machine.runtime.calls().iter().any(stopped));
    assert_eq!(
        *agent.unknown.borrow(),
        Unknown::from([("old".to_owned(), "default/old".to_owned())])
    );
    let mut deleted = assigned(2, [pod("u1", "Always")]);
    deleted.deleted.insert("old".into());
    agent.assign(with_node(deleted));
    agent.until_gone("old").await;
    assert!(agent.events.contains(&"UnknownPod".to_owned()));
    assert!(agent.unknown.borrow().is_empty());
    assert_eq!(machine.runtime.containers()[0].pod_uid, "u1");
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_a_full_set_lacks_runs_on_and_is_restarted() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    agent.until_phase("u1", "Running").await;
    let before = pids(&machine);
    let mut desired = with_node(assigned(2, [pod("u1", "Always")]));
    desired.unknown.insert("u1".into());
    agent.assign(desired.clone());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(pids(&machine), before);
    assert_eq!(agent.unknown.borrow().len(), 1);
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    agent.until("u1", "restarted", restarts(1)).await;
    // The agent restarts without managers, and with them again.
    agent.end().await;
    let before = pids(&machine);
    desired.epoch = 0;
    let mut agent = machine.agent(desired.clone());
    agent.until_phase("u1", "Running").await;
    assert_eq!(agent.unknown.borrow().len(), 1);
    assert_eq!(pids(&machine), before);
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_confirmed_also_when_nothing_is_left() {
    let machine = Machine::new();
    let mut desired = assigned(1, [pod("u1", "Always")]);
    desired.deleted.insert("long gone".into());
    let mut agent = machine.agent(desired);
    agent.until_gone("long gone").await;
    agent.until_phase("u1", "Running").await;
    // It left the assignment: its deletion was recorded, and acknowledged before this value of the assignment was seen.
    agent.assign(assigned(1, []));
    agent.until_gone("u1").await;
    assert!(machine.runtime.is_empty());
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_that_comes_after_the_end_was_acknowledged_is_confirmed() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    agent.until_phase("u1", "Running").await;
    agent.assign(assigned(1, [ending(pod("u1", "Always"), 1)]));
    agent.until_gone("u1").await;
    // The session goes on, with differences only.
    agent.assign(assigned(1, []));
    tokio::time::sleep(Duration::from_secs(1)).await;
    agent.reports.clear();
    let mut buried = assigned(1, []);
    buried.deleted.insert("u1".into());
    agent.assign(buried);
    agent.until_gone("u1").await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_recorded_deletion_is_acted_on_without_managers() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    agent.until_phase("u1", "Running").await;
    agent.kill();
    let mut kept = assigned(1, []);
    kept.epoch = 0;
    kept.deleted.insert("u1".into());
    let mut agent = machine.agent(kept);
    agent.until_gone("u1").await;
    assert!(machine.runtime.is_empty());
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_takes_effect_while_stopping() {
    let machine = Machine::new();
    machine.runtime.ignore_term();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    agent.until_phase("u1", "Running").await;
    let begin = machine.clock.now_ms();
    agent.assign(assigned(1, [ending(pod("u1", "Always"), 600)]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    agent.assign(assigned(1, [ending(pod("u1", "Always"), 2)]));
    agent.until_gone("u1").await;
    assert!(machine.clock.now_ms() - begin < 60_000);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_pod_more_or_less_costs_no_listing_of_all() {
    let machine = Machine::new();
    let first = pod("u1", "Always");
    let mut agent = machine.agent(assigned(1, [first.clone()]));
    agent.until_phase("u1", "Running").await;
    let before = machine.runtime.lists();
    agent.assign(assigned(1, [first.clone(), pod("u2", "Always")]));
    agent.until_phase("u2", "Running").await;
    machine.runtime.exit(&container_id("u2", "web", 0), 1);
    agent.assign(assigned(1, [first, ending(pod("u2", "Always"), 1)]));
    agent.until_gone("u2").await;
    assert_eq!(machine.runtime.lists(), before);
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}
