//! A whole agent over a runtime in memory, with a manager on this machine.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use barge_proto::v1::{
    Assignment, Container, Node, NodeSpec, ObjectMeta, Pod, PodSpec, Welcome,
    manager_message::Message,
};

use super::*;
use crate::{
    clock::TokioClock,
    runtime::{self, ContainerState},
    testing::{
        Scripted,
        managers::{Accepted, Known, Manager},
    },
};

mod bad;

/// For what takes moments.
const LONG: Duration = Duration::from_secs(30);

fn options(data_dir: &Path, manager: &Manager, stop: &CancellationToken) -> Options {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(1_700_000_000_000));
    let runtime = Scripted::new(clock.clone());
    options_on(runtime, clock, data_dir, manager, stop)
}

fn options_on(
    runtime: Arc<Scripted>,
    clock: Arc<dyn Clock>,
    data_dir: &Path,
    manager: &Manager,
    stop: &CancellationToken,
) -> Options {
    Options {
        cluster_id: "c1".to_owned(),
        managers: Known::new([manager]),
        life: life::thread(stop.clone()).unwrap(),
        runtime,
        carrier: None,
        clock,
        sources: Sources {
            proc: "/proc".into(),
            etc: "/etc".into(),
            data_dir: data_dir.to_owned(),
            name: "n".to_owned(),
            address: "192.0.2.1".to_owned(),
        },
        data_dir: data_dir.to_owned(),
        network: None,
        names: None,
        parallel_creations: 1,
        collection: crate::collection::Thresholds::default(),
    }
}

/// Has the agent run a pod.
async fn assign(session: &mut Accepted, runtime: &Scripted) {
    session.hello().await;
    let node = Node {
        spec: Some(NodeSpec {
            pod_cidr: "10.244.1.0/24".into(),
            ..NodeSpec::default()
        }),
        ..Node::default()
    };
    let welcome = Welcome {
        node: Some(node),
        ..Welcome::default()
    };
    session.say(Message::Welcome(welcome)).await;
    let pod = Pod {
        metadata: Some(ObjectMeta {
            uid: "p1".into(),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "web".into(),
                image: "nginx".into(),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    let assignment = Assignment {
        revision: 7,
        full: true,
        pods: vec![pod],
        ..Assignment::default()
    };
    session.say(Message::Assignment(assignment)).await;
    until("its container is there", || runtime.containers().len() == 1).await;
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(LONG, wait).await.is_ok(), "{what}");
}

#[tokio::test]
async fn an_agent_whose_node_was_deleted_ends_its_pods_and_then_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let stop = CancellationToken::new();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(1_700_000_000_000));
    let runtime = Scripted::new(clock.clone());
    let start = || {
        let (runtime, clock) = (runtime.clone(), clock.clone());
        options_on(runtime, clock, folder.path(), &manager, &stop)
    };
    let agent = tokio::spawn(run(start(), stop.clone()));
    let mut session = manager.accept().await;
    assign(&mut session, &runtime).await;
    // A manager that lacks the node, because it was put back from a backup for instance, is no proof.
    let lacks = "the node does not belong to this cluster (any more)";
    session.refuse(lacks).await;
    let mut session = manager.accept().await;
    session.hello().await;
    session.refuse(lacks).await;
    let mut session = manager.accept().await;
    session.hello().await;
    assert_eq!(runtime.containers().len(), 1);
    assert!(!agent.is_finished());
    // The record is.
    let deleted = barge_client::error::node_deleted("node n1 was deleted");
    session.end(deleted).await;
    let end = timeout(LONG, agent).await.unwrap().unwrap().unwrap();
    assert_eq!(end, End::NodeDeleted { unknown: Some(0) });
    assert!(runtime.is_empty());
    assert!(stop.is_cancelled());
    let files = AssignmentFiles::open(folder.path()).unwrap();
    let kept = files.load("c1");
    assert!(kept.pods.is_empty() && kept.deleted.contains("p1"));
}

#[tokio::test]
async fn a_deletion_that_was_heard_of_is_carried_out_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(1_700_000_000_000));
    let runtime = Scripted::new(clock.clone());
    let first = CancellationToken::new();
    let options = |manager: &Manager, stop: &CancellationToken| {
        let (runtime, clock) = (runtime.clone(), clock.clone());
        options_on(runtime, clock, folder.path(), manager, stop)
    };
    let agent = tokio::spawn(run(options(&manager, &first), first.clone()));
    let mut session = manager.accept().await;
    assign(&mut session, &runtime).await;
    // It cannot stop the container, and is restarted meanwhile.
    for _ in 0..3 {
        runtime.fail("stop", "it hangs");
    }
    let deleted = barge_client::error::node_deleted("node n1 was deleted");
    session.end(deleted.clone()).await;
    let files = AssignmentFiles::open(folder.path()).unwrap();
    until("the deletion is on disk", || {
        files.load("c1").deleted.contains("p1")
    })
    .await;
    first.cancel();
    agent.await.unwrap().unwrap();
    assert_eq!(runtime.containers().len(), 1);
    let second = CancellationToken::new();
    let agent = tokio::spawn(run(options(&manager, &second), second.clone()));
    let mut session = manager.accept().await;
    session.hello().await;
    session.end(deleted).await;
    let end = timeout(LONG, agent).await.unwrap().unwrap().unwrap();
    assert_eq!(end, End::NodeDeleted { unknown: Some(0) });
    assert!(runtime.is_empty());
}

/// What an agent whose node was deleted says at its end, on a machine with a container that nobody assigned, when the
/// runtime refuses that many lists.
async fn end_beside_a_stranger(refusals: usize) -> End {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let stop = CancellationToken::new();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(1_700_000_000_000));
    let runtime = Scripted::new(clock.clone());
    runtime.put(runtime::Container {
        id: "stranger-web-0".to_owned(),
        pod_uid: "stranger".to_owned(),
        name: "web".to_owned(),
        attempt: 0,
        image_id: String::new(),
        image: String::new(),
        state: ContainerState::Lost,
    });
    (0..refusals).for_each(|_| runtime.fail("list", "it restarts"));
    let options = options_on(runtime.clone(), clock, folder.path(), &manager, &stop);
    let agent = tokio::spawn(run(options, stop));
    let mut session = manager.accept().await;
    session.hello().await;
    let deleted = barge_client::error::node_deleted("node n1 was deleted");
    session.end(deleted).await;
    let end = timeout(LONG, agent).await.unwrap().unwrap().unwrap();
    assert_eq!(runtime.containers().len(), 1);
    end
}

#[tokio::test]
async fn pods_that_only_the_runtime_knows_are_counted_when_the_node_was_deleted() {
    let end = end_beside_a_stranger(2).await;
    assert_eq!(end, End::NodeDeleted { unknown: Some(1) });
    // Rules and routes stay when nobody knows what runs on.
    let end = end_beside_a_stranger(1000).await;
    assert_eq!(end, End::NodeDeleted { unknown: None });
}
