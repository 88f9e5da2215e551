//! Sessions with managers that do as told, over TCP on this machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeSet, path::Path};

use barge_proto::v1::{Ack, Assignment, DeletedPod, Held, PodStatus, manager_message};
use tokio::time::{Instant, timeout};

use super::*;
use crate::{
    life,
    testing::managers::{Accepted, Known, Manager},
};

mod disk;

const LONG: Duration = Duration::from_secs(30);

/// The next session, whoever the agent chose.
async fn any([first, second]: &mut [Manager; 2]) -> Accepted {
    tokio::select! {
        session = first.accept() => session,
        session = second.accept() => session,
    }
}

struct NoStreams;

impl Streams for NoStreams {
    fn open(&self, _: Channel, _: OpenStream) {}
}

struct Agent {
    outbox: Arc<Outbox>,
    desired: watch::Receiver<Arc<Desired>>,
    stop: CancellationToken,
    _node: watch::Sender<NodeStatus>,
}

impl Agent {
    fn start(folder: &Path, managers: &[&Manager]) -> Self {
        let managers = Known::new(managers.iter().copied());
        let stop = CancellationToken::new();
        let thread = life::thread(stop.clone()).unwrap();
        let outbox = Arc::new(Outbox::default());
        let files = AssignmentFiles::open(folder).unwrap();
        let (sender, desired) = watch::channel(Arc::new(files.load("c1")));
        let (node_sender, node) = watch::channel(NodeStatus::default());
        let options = Options {
            cluster_id: "c1".into(),
            managers: managers.clone(),
            lane: life::start(
                &thread,
                managers,
                Default::default(),
                stop.clone(),
                std::future::ready(()),
            ),
            outbox: outbox.clone(),
            node,
            files,
            streams: Arc::new(NoStreams),
            open: watch::Sender::default(),
            left: CancellationToken::new(),
        };
        tokio::spawn(Session::new(options, sender).run(stop.clone()));
        Self {
            outbox,
            desired,
            stop,
            _node: node_sender,
        }
    }

    async fn until(&mut self, holds: impl Fn(&Desired) -> bool) {
        let found = self.desired.wait_for(|desired| holds(desired));
        timeout(LONG, found).await.unwrap().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn an_assignment_is_kept_and_offered_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    assert_eq!(session.hello().await, 0);
    session.welcome().await;
    session.assign(7, true, &["a"]).await;
    session.assign(8, false, &["b"]).await;
    agent.until(|desired| desired.revision == 8).await;
    assert_eq!(agent.desired.borrow().pods.len(), 2);
    drop(agent);
    let agent = Agent::start(folder.path(), &[&manager]);
    assert_eq!(agent.desired.borrow().pods.len(), 2);
    assert_eq!(agent.desired.borrow().epoch, 0);
    let mut session = manager.accept().await;
    assert_eq!(session.hello().await, 8);
}

#[tokio::test]
async fn what_lags_behind_is_not_acted_on_and_another_manager_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    session.assign(9, true, &["a"]).await;
    agent.until(|desired| desired.revision == 9).await;
    drop(session);
    let mut lagging = manager.accept().await;
    lagging.hello().await;
    lagging.welcome().await;
    lagging.assign(5, true, &[]).await;
    // The agent turns away, and comes back for something better.
    let mut session = manager.accept().await;
    assert_eq!(session.hello().await, 9);
    assert_eq!(agent.desired.borrow().pods.len(), 1);
    session.welcome_in("another life").await;
    session.assign(10, false, &["b"]).await;
    let mut session = manager.accept().await;
    assert_eq!(session.hello().await, 9, "a difference without a base");
    session.welcome().await;
    session.assign(10, true, &[]).await;
    agent.until(|desired| desired.revision == 10).await;
    let desired = agent.desired.borrow();
    assert_eq!(Vec::from_iter(&desired.unknown), ["a"], "it runs on");
    assert_eq!(desired.pods.len(), 1);
}

/// All disks were put back: the same life of the cluster, at lower revisions. What is written before it passes the agent's again is in no
/// difference since that.
#[tokio::test]
async fn an_agent_that_saw_an_older_state_asks_for_a_full_set() {
    let folder = tempfile::tempdir().unwrap();
    // So that the agent does not wait after a refusal.
    let mut managers = [Manager::start().await, Manager::start().await];
    let mut agent = {
        let [first, second] = &managers;
        Agent::start(folder.path(), &[first, second])
    };
    for revision in [7, 17] {
        let session = any(&mut managers).await;
        session.welcome_in("life").await;
        session.assign(revision, true, &["a"]).await;
        agent.until(|desired| desired.revision == revision).await;
        drop(session);
        let mut session = any(&mut managers).await;
        let hello = session.whole_hello().await;
        assert_eq!(hello.acted_revision, revision);
        assert!(hello.held.is_some());
        if revision == 7 {
            session.refuse("the state is older").await;
        } else {
            session.welcome_in("life").await;
            session.assign(revision - 1, true, &["a"]).await;
        }
        drop(session);
        let mut session = any(&mut managers).await;
        let hello = session.whole_hello().await;
        assert_eq!((hello.acted_revision, hello.held), (revision, None));
    }
}

#[tokio::test]
async fn a_session_that_came_back_stays_when_the_other_manager_answers_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut managers = [Manager::start().await, Manager::start().await];
    let agent = {
        managers[1].life.mute(true);
        let [first, second] = &managers;
        Agent::start(folder.path(), &[first, second])
    };
    // Away from the silent one, should it be the first choice.
    let mut session = loop {
        let session = any(&mut managers).await;
        if session.with == managers[0].address {
            break session;
        }
    };
    for _ in 0..2 {
        session.hello().await;
        session.welcome().await;
        session.assign(7, true, &[]).await;
        drop(session);
        session = managers[0].accept().await;
    }
    session.hello().await;
    session.welcome().await;
    agent.outbox.pod_status("a", PodStatus::default());
    session.report().await;
    let before = managers[1].life.signs().len();
    managers[1].life.mute(false);
    let begin = Instant::now();
    while managers[1].life.signs().len() < before + 3 {
        assert!(begin.elapsed() < LONG, "never signed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    agent.outbox.pod_status("b", PodStatus::default());
    assert_eq!(session.report().await.pods[0].uid, "b");
    assert!(managers[1].sessions.try_recv().is_err());
}

#[test]
fn a_set_that_is_too_large_is_not_asked_for_again_at_once() {
    let ended = Ended::Refused(Refused::TooLarge { most: 1 });
    assert_eq!(Round::default().pause(&ended, 3), Some(REFUSED_WAIT));
    let ended = Ended::Refused(Refused::Torn);
    assert_eq!(Round::default().pause(&ended, 3), None);
}

#[tokio::test]
async fn an_agent_goes_on_from_what_it_has_but_not_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    let hello = session.whole_hello().await;
    assert!(hello.takes_parts);
    assert_eq!(hello.held, None);
    session.welcome_in("first").await;
    session.assign(7, true, &["a", "b"]).await;
    agent.until(|desired| desired.revision == 7).await;
    drop(session);
    let mut session = manager.accept().await;
    let hello = session.whole_hello().await;
    let life = "first".to_owned();
    assert_eq!((hello.acted_revision, hello.held), (7, Some(Held { life })));
    session.welcome_in("first").await;
    session.assign(9, false, &["c"]).await;
    agent.until(|desired| desired.revision == 9).await;
    assert_eq!(agent.desired.borrow().pods.len(), 3);
    drop((agent, session));
    let agent = Agent::start(folder.path(), &[&manager]);
    assert_eq!(agent.desired.borrow().pods.len(), 3);
    let hello = manager.accept().await.whole_hello().await;
    assert_eq!((hello.acted_revision, hello.held), (9, None));
}

#[tokio::test]
async fn a_full_set_that_is_cut_in_the_middle_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    session.assign(7, true, &["a", "b"]).await;
    agent.until(|desired| desired.revision == 7).await;
    drop((agent, session));
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    session.part(9, &["c"], true).await;
    session.part(9, &["b"], true).await;
    // The agent took all of that, for it answers what came after.
    agent.outbox.pod_status("b", PodStatus::default());
    let sequence = session.report().await.sequence;
    session
        .say(manager_message::Message::Ack(Ack { sequence }))
        .await;
    let begin = Instant::now();
    while agent.outbox.is_waiting() {
        assert!(begin.elapsed() < LONG, "never acknowledged");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(session);
    let mut session = manager.accept().await;
    assert_eq!(session.hello().await, 7);
    {
        let desired = agent.desired.borrow();
        assert_eq!(Vec::from_iter(desired.pods.keys()), ["a", "b"]);
        assert!(desired.unknown.is_empty() && desired.deleted.is_empty());
    }
    session.welcome().await;
    session.part(9, &["a"], true).await;
    session.part(9, &["b", "c"], false).await;
    agent.until(|desired| desired.revision == 9).await;
    assert_eq!(agent.desired.borrow().pods.len(), 3);
}

#[tokio::test]
async fn a_refused_report_ends_no_session_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    session.assign(7, true, &["a", "b"]).await;
    agent.until(|desired| desired.revision == 7).await;
    agent.outbox.pod_status("a", PodStatus::default());
    agent.outbox.pod_status("b", PodStatus::default());
    let mut taken = BTreeSet::new();
    let told = loop {
        let report = session.report().await;
        let sequence = report.sequence;
        if report.pods.iter().any(|pod| pod.uid == "a") {
            let reason = "pods[0].status is too large".to_owned();
            let refused = barge_proto::v1::Refused { sequence, reason };
            let refused = manager_message::Message::Refused(refused);
            session.say(refused).await;
        } else {
            taken.extend(report.pods.into_iter().map(|pod| pod.uid));
        }
        session
            .say(manager_message::Message::Ack(Ack { sequence }))
            .await;
        if let Some(event) = report.events.into_iter().next() {
            break event;
        }
    };
    assert_eq!(told.reason, "StatusRefused");
    assert_eq!(told.involved_object.unwrap().uid, "a");
    assert!(told.message.contains("too large"), "{}", told.message);
    let begin = Instant::now();
    while agent.outbox.is_waiting() {
        assert!(begin.elapsed() < LONG, "it is said again and again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(Vec::from_iter(&taken), ["b"]);
}

#[tokio::test]
async fn a_deletion_outlives_the_agent_until_its_end_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    session.assign(7, true, &["a", "b"]).await;
    agent.until(|desired| desired.revision == 7).await;
    drop(session);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    let tombstone = DeletedPod {
        uid: "a".into(),
        revision: 8,
        ..Default::default()
    };
    let assignment = Assignment {
        revision: 9,
        full: true,
        tombstones: vec![tombstone],
        ..Default::default()
    };
    session
        .say(manager_message::Message::Assignment(assignment))
        .await;
    agent.until(|desired| desired.revision == 9).await;
    drop((agent, session));
    let mut agent = Agent::start(folder.path(), &[&manager]);
    {
        let desired = agent.desired.borrow();
        assert_eq!(Vec::from_iter(&desired.deleted), ["a"]);
        assert_eq!(Vec::from_iter(&desired.unknown), ["b"]);
    }
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    agent.outbox.pod_gone("a", None);
    let sequence = session.report().await.sequence;
    session
        .say(manager_message::Message::Ack(Ack { sequence }))
        .await;
    agent.until(|desired| desired.deleted.is_empty()).await;
    drop(agent);
    let agent = Agent::start(folder.path(), &[&manager]);
    let desired = agent.desired.borrow();
    assert!(desired.deleted.is_empty());
    assert_eq!(Vec::from_iter(desired.pods.keys()), ["b"]);
}

#[tokio::test]
async fn reports_are_sent_until_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut managers = [Manager::start().await, Manager::start().await];
    let [first, second] = &managers;
    let agent = Agent::start(folder.path(), &[first, second]);
    let mut session = any(&mut managers).await;
    session.hello().await;
    session.welcome().await;
    agent.outbox.pod_status("a", PodStatus::default());
    let report = session.report().await;
    assert_eq!(report.pods[0].uid, "a");
    // The manager dies before it could make it durable.
    drop(session);
    let mut session = any(&mut managers).await;
    session.hello().await;
    session.welcome().await;
    let again = session.report().await;
    assert_eq!(again.pods, report.pods);
    let ack = Ack {
        sequence: again.sequence,
    };
    session.say(manager_message::Message::Ack(ack)).await;
    let begin = Instant::now();
    while agent.outbox.is_waiting() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "never acknowledged"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_session_moves_away_from_a_manager_that_answers_no_life_signs() {
    let folder = tempfile::tempdir().unwrap();
    let mut managers = [Manager::start().await, Manager::start().await];
    let [first, second] = &managers;
    let _agent = Agent::start(folder.path(), &[first, second]);
    let mut session = any(&mut managers).await;
    session.hello().await;
    session.welcome().await;
    let with = managers
        .iter()
        .position(|m| m.address == session.with)
        .unwrap();
    managers[1 - with].life.until_signed().await;
    managers[with].life.mute(true);
    let begin = Instant::now();
    let mut session = managers[1 - with].accept().await;
    session.hello().await;
    // Half the grace, and what the other tests on this machine take.
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn managers_that_answer_no_life_signs_have_sessions_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let mut managers = [Manager::start().await, Manager::start().await];
    managers.iter().for_each(|manager| manager.life.mute(true));
    let [first, second] = &managers;
    let _agent = Agent::start(folder.path(), &[first, second]);
    let mut session = any(&mut managers).await;
    session.hello().await;
    session.welcome().await;
    let with = managers
        .iter()
        .position(|m| m.address == session.with)
        .unwrap();
    // It stays where it is, as long as that has a session.
    let moved = timeout(Duration::from_secs(5), managers[1 - with].sessions.recv());
    assert!(moved.await.is_err());
    drop(session);
    managers[1 - with].accept().await.hello().await;
}
