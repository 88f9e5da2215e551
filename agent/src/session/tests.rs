//! Sessions with managers that do as told, over TCP on this machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{net::SocketAddr, sync::Mutex};

use barge_proto::v1::{
    Ack, AgentMessage, Assignment, DeletedPod, ManagerMessage, ObjectMeta, Pod, PodStatus,
    RelayRequest, RelayResponse, TunnelChunk, Welcome, agent_message, manager_message,
    session_server::{Session as SessionService, SessionServer},
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server},
};

use super::*;

type Outgoing = mpsc::Sender<Result<ManagerMessage, Status>>;

/// A session as its manager sees it.
struct Accepted {
    from_agent: Streaming<AgentMessage>,
    to_agent: Outgoing,
}

/// A manager: hands its sessions to the test.
struct Manager {
    address: SocketAddr,
    sessions: mpsc::Receiver<Accepted>,
}

struct Service {
    sessions: mpsc::Sender<Accepted>,
}

#[tonic::async_trait]
impl SessionService for Service {
    type ConnectStream = ReceiverStream<Result<ManagerMessage, Status>>;
    type TunnelStream = ReceiverStream<Result<TunnelChunk, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (to_agent, messages) = mpsc::channel(16);
        let accepted = Accepted {
            from_agent: request.into_inner(),
            to_agent,
        };
        self.sessions.send(accepted).await.unwrap();
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn tunnel(
        &self,
        _: Request<Streaming<TunnelChunk>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn relay(&self, _: Request<RelayRequest>) -> Result<Response<RelayResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

impl Manager {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, sessions) = mpsc::channel(4);
        let service = SessionServer::new(Service { sessions: sender });
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { address, sessions }
    }

    async fn accept(&mut self) -> Accepted {
        let accepted = timeout(Duration::from_secs(30), self.sessions.recv()).await;
        accepted.unwrap().unwrap()
    }
}

/// The next session, whoever the agent chose.
async fn any([first, second]: &mut [Manager; 2]) -> Accepted {
    tokio::select! {
        session = first.accept() => session,
        session = second.accept() => session,
    }
}

impl Accepted {
    /// The next message but heartbeats.
    async fn next(&mut self) -> agent_message::Message {
        let next = async {
            loop {
                let message = self.from_agent.message().await.unwrap().unwrap();
                match message.message.unwrap() {
                    agent_message::Message::Heartbeat(_) => {}
                    other => return other,
                }
            }
        };
        timeout(Duration::from_secs(30), next).await.unwrap()
    }

    async fn hello(&mut self) -> u64 {
        match self.next().await {
            agent_message::Message::Hello(hello) => {
                assert_eq!(hello.cluster_id, "c1");
                hello.acted_revision
            }
            other => panic!("{other:?} instead of a hello"),
        }
    }

    async fn report(&mut self) -> barge_proto::v1::Report {
        match self.next().await {
            agent_message::Message::Report(report) => report,
            other => panic!("{other:?} instead of a report"),
        }
    }

    async fn say(&self, message: manager_message::Message) {
        let message = ManagerMessage {
            message: Some(message),
        };
        self.to_agent.send(Ok(message)).await.unwrap();
    }

    async fn welcome(&self, heartbeat_ms: u32) {
        let welcome = Welcome {
            heartbeat_ms,
            ..Default::default()
        };
        self.say(manager_message::Message::Welcome(welcome)).await;
    }

    async fn assign(&self, revision: u64, full: bool, uids: &[&str]) {
        let pods = uids.iter().map(|uid| Pod {
            metadata: Some(ObjectMeta {
                uid: (*uid).into(),
                ..Default::default()
            }),
            ..Default::default()
        });
        let assignment = Assignment {
            revision,
            full,
            pods: pods.collect(),
            ..Default::default()
        };
        self.say(manager_message::Message::Assignment(assignment))
            .await;
    }
}

/// Managers in the order in which they are to be tried.
struct Known(Mutex<Vec<String>>);

impl Managers for Known {
    fn addresses(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn channel(&self, address: &str) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        Ok(endpoint.map_err(|e| e.to_string())?.connect_lazy())
    }

    fn learned(&self, addresses: &[String]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn roots_sha256(&self) -> [u8; 32] {
        [7; 32]
    }

    fn told_roots(&self, _: [u8; 32], _: Duration) {}
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
    fn start(folder: &std::path::Path, managers: &[&Manager]) -> Self {
        let known = managers.iter().map(|m| m.address.to_string()).collect();
        let outbox = Arc::new(Outbox::default());
        let files = AssignmentFiles::open(folder.join("assigned")).unwrap();
        let (sender, desired) = watch::channel(Arc::new(files.load("c1")));
        let (node_sender, node) = watch::channel(NodeStatus::default());
        let options = Options {
            cluster_id: "c1".into(),
            managers: Arc::new(Known(Mutex::new(known))),
            outbox: outbox.clone(),
            node,
            files,
            streams: Arc::new(NoStreams),
        };
        let stop = CancellationToken::new();
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
        timeout(Duration::from_secs(30), found)
            .await
            .unwrap()
            .unwrap();
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
    session.welcome(50).await;
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
    session.welcome(50).await;
    session.assign(9, true, &["a"]).await;
    agent.until(|desired| desired.revision == 9).await;
    drop(session);
    let mut lagging = manager.accept().await;
    lagging.hello().await;
    lagging.welcome(50).await;
    lagging.assign(5, true, &[]).await;
    // The agent turns away, and comes back for something better.
    let mut session = manager.accept().await;
    assert_eq!(session.hello().await, 9);
    assert_eq!(agent.desired.borrow().pods.len(), 1);
    session.welcome(50).await;
    session.assign(10, false, &["b"]).await;
    let mut session = manager.accept().await;
    assert_eq!(session.hello().await, 9, "a difference without a base");
    session.welcome(50).await;
    session.assign(10, true, &[]).await;
    agent.until(|desired| desired.revision == 10).await;
    let desired = agent.desired.borrow();
    assert_eq!(Vec::from_iter(&desired.unknown), ["a"], "it runs on");
    assert_eq!(desired.pods.len(), 1);
}

#[tokio::test]
async fn a_deletion_outlives_the_agent_until_its_end_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome(50).await;
    session.assign(7, true, &["a", "b"]).await;
    agent.until(|desired| desired.revision == 7).await;
    drop(session);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome(50).await;
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
    session.welcome(50).await;
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
    session.welcome(50).await;
    agent.outbox.pod_status("a", PodStatus::default());
    let report = session.report().await;
    assert_eq!(report.pods[0].uid, "a");
    // The manager dies before it could make it durable.
    drop(session);
    let mut session = any(&mut managers).await;
    session.hello().await;
    session.welcome(50).await;
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
async fn heartbeats_come_at_the_pace_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let _agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome(20).await;
    for _ in 0..3 {
        let message = timeout(Duration::from_secs(30), session.from_agent.message()).await;
        let message = message.unwrap().unwrap().unwrap().message.unwrap();
        assert!(matches!(message, agent_message::Message::Heartbeat(_)));
    }
}
