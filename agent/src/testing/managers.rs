//! Managers that do as told, over TCP on this machine, each on a thread of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc as blocking,
    },
    thread,
    time::Duration,
};

use barge_proto::v1::{
    Ack, AgentMessage, AskMetricsRequest, AskMetricsResponse, Assignment, Hello, LifeAnswer,
    LifeSign, ManagerMessage, ObjectMeta, Pod, RelayLifeRequest, RelayLifeResponse, RelayRequest,
    RelayResponse, Report, TunnelChunk, Welcome, agent_message, life_server, manager_message,
    session_server,
};
use futures::{StreamExt, stream::BoxStream};
use tokio::{
    net::TcpListener,
    runtime,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use crate::managers::Managers;

const LONG: Duration = Duration::from_secs(30);

/// A session as its manager sees it.
pub struct Accepted {
    /// The manager's address.
    pub with: SocketAddr,
    pub from_agent: Streaming<AgentMessage>,
    to_agent: mpsc::Sender<Result<ManagerMessage, Status>>,
}

/// A stream that an agent opened; it ends when this is dropped.
pub struct Tunnel {
    pub chunks: Streaming<TunnelChunk>,
    open: mpsc::Sender<Result<TunnelChunk, Status>>,
}

impl Tunnel {
    /// Says something to the agent. Waits while that does not read.
    pub async fn say(&self, chunk: TunnelChunk) {
        self.open.send(Ok(chunk)).await.unwrap();
    }

    pub async fn next(&mut self) -> Option<TunnelChunk> {
        let next = timeout(LONG, self.chunks.message()).await;
        next.unwrap().unwrap()
    }
}

/// A manager: hands its sessions and streams to the test, and answers life signs.
pub struct Manager {
    pub address: SocketAddr,
    pub sessions: mpsc::Receiver<Accepted>,
    pub tunnels: mpsc::Receiver<Tunnel>,
    pub life: Arc<Life>,
    runtime: runtime::Handle,
    /// Ends the thread when it is dropped.
    _alive: mpsc::Sender<()>,
}

/// What a manager makes of life signs.
#[derive(Default)]
pub struct Life {
    /// Takes them and answers none.
    mute: AtomicBool,
    /// Ends streams with an error.
    refuse: AtomicBool,
    /// What it says of the rules of all nodes.
    programmed: AtomicU64,
    signs: Mutex<Vec<(Instant, LifeSign)>>,
    /// Held by each stream of signs until it ends.
    streams: Arc<()>,
}

/// Lets the manager go on when it is dropped.
pub struct Stopped {
    _resume: blocking::Sender<()>,
}

impl Manager {
    pub async fn start() -> Self {
        let (sessions, accepted) = mpsc::channel(4);
        let (tunnels, arrived) = mpsc::channel(256);
        let (alive, mut end) = mpsc::channel::<()>(1);
        let life = Arc::new(Life::default());
        let service = Service {
            sessions,
            tunnels,
            life: life.clone(),
        };
        let (started, address) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                started.send((address, runtime::Handle::current())).unwrap();
                let serve = Server::builder()
                    .add_service(session_server::SessionServer::new(service.clone()))
                    .add_service(life_server::LifeServer::new(service))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! {
                    _ = serve => {}
                    _ = end.recv() => {}
                }
            });
        });
        let (address, runtime) = address.await.unwrap();
        Self {
            address,
            sessions: accepted,
            tunnels: arrived,
            life,
            runtime,
            _alive: alive,
        }
    }

    pub async fn accept(&mut self) -> Accepted {
        timeout(LONG, self.sessions.recv()).await.unwrap().unwrap()
    }

    /// Nothing of this manager runs any more, as after SIGSTOP: the kernel takes connections and bytes, and nobody reads them.
    pub fn stop(&self) -> Stopped {
        let (resume, resumed) = blocking::channel::<()>();
        self.runtime.spawn(async move {
            let _ = resumed.recv();
        });
        Stopped { _resume: resume }
    }
}

impl Life {
    pub fn mute(&self, mute: bool) {
        self.mute.store(mute, Relaxed);
    }

    pub fn programmed(&self, everywhere: u64) {
        self.programmed.store(everywhere, Relaxed);
    }

    pub fn refuse(&self, refuse: bool) {
        self.refuse.store(refuse, Relaxed);
    }

    /// Signs that came so far, and when.
    pub fn signs(&self) -> Vec<(Instant, LifeSign)> {
        self.signs.lock().unwrap().clone()
    }

    /// How many streams of signs are open.
    pub fn streams(&self) -> usize {
        Arc::strong_count(&self.streams) - 1
    }

    pub async fn until_signed(&self) {
        let begin = Instant::now();
        while self.signs().is_empty() {
            assert!(begin.elapsed() < LONG, "never signed");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn answer(&self, sign: LifeSign) -> Option<LifeAnswer> {
        let (sequence, grace) = (sign.sequence, 4000);
        self.signs.lock().unwrap().push((Instant::now(), sign));
        let mute = self.mute.load(Relaxed);
        (!mute).then_some(LifeAnswer {
            sequence,
            term: 3,
            stamp: sequence,
            node_grace_ms: grace,
            programmed_revision: self.programmed.load(Relaxed),
            ..Default::default()
        })
    }
}

impl Accepted {
    pub async fn next(&mut self) -> agent_message::Message {
        let message = timeout(LONG, self.from_agent.message()).await;
        message.unwrap().unwrap().unwrap().message.unwrap()
    }

    /// The revision that the agent acted on.
    pub async fn hello(&mut self) -> u64 {
        self.whole_hello().await.acted_revision
    }

    pub async fn whole_hello(&mut self) -> Hello {
        match self.next().await {
            agent_message::Message::Hello(hello) => {
                assert_eq!(hello.cluster_id, "c1");
                hello
            }
            other => panic!("{other:?} instead of a hello"),
        }
    }

    pub async fn report(&mut self) -> Report {
        match self.next().await {
            agent_message::Message::Report(report) => report,
            other => panic!("{other:?} instead of a report"),
        }
    }

    pub async fn say(&self, message: manager_message::Message) {
        let message = ManagerMessage {
            message: Some(message),
        };
        self.to_agent.send(Ok(message)).await.unwrap();
    }

    /// Ends the session because of the state that the node or the cluster is in.
    pub async fn refuse(&self, reason: &str) {
        self.end(Status::failed_precondition(reason)).await;
    }

    pub async fn end(&self, status: Status) {
        self.to_agent.send(Err(status)).await.unwrap();
    }

    /// All reports up to this one are durable.
    pub async fn ack(&self, sequence: u64) {
        self.say(manager_message::Message::Ack(Ack { sequence }))
            .await;
    }

    pub async fn welcome(&self) {
        self.welcome_in("").await;
    }

    /// In this life of the cluster.
    pub async fn welcome_in(&self, life: &str) {
        let welcome = Welcome {
            life: life.to_owned(),
            ..Welcome::default()
        };
        self.say(manager_message::Message::Welcome(welcome)).await;
    }

    pub async fn assign(&self, revision: u64, full: bool, uids: &[&str]) {
        self.say_assignment(revision, full, uids, false).await;
    }

    /// A part of a full set.
    pub async fn part(&self, revision: u64, uids: &[&str], more: bool) {
        self.say_assignment(revision, true, uids, more).await;
    }

    async fn say_assignment(&self, revision: u64, full: bool, uids: &[&str], more: bool) {
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
            more,
            ..Default::default()
        };
        self.say(manager_message::Message::Assignment(assignment))
            .await;
    }
}

#[derive(Clone)]
struct Service {
    sessions: mpsc::Sender<Accepted>,
    tunnels: mpsc::Sender<Tunnel>,
    life: Arc<Life>,
}

#[tonic::async_trait]
impl session_server::Session for Service {
    type ConnectStream = ReceiverStream<Result<ManagerMessage, Status>>;
    type TunnelStream = BoxStream<'static, Result<TunnelChunk, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (to_agent, messages) = mpsc::channel(256);
        let accepted = Accepted {
            with: request.local_addr().unwrap(),
            from_agent: request.into_inner(),
            to_agent,
        };
        self.sessions.send(accepted).await.unwrap();
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn tunnel(
        &self,
        request: Request<Streaming<TunnelChunk>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let (open, back) = mpsc::channel(1);
        let tunnel = Tunnel {
            chunks: request.into_inner(),
            open,
        };
        self.tunnels.send(tunnel).await.unwrap();
        Ok(Response::new(ReceiverStream::new(back).boxed()))
    }

    async fn relay(&self, _: Request<RelayRequest>) -> Result<Response<RelayResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn ask_metrics(
        &self,
        _: Request<AskMetricsRequest>,
    ) -> Result<Response<AskMetricsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl life_server::Life for Service {
    type SignsStream = BoxStream<'static, Result<LifeAnswer, Status>>;

    async fn signs(
        &self,
        request: Request<Streaming<LifeSign>>,
    ) -> Result<Response<Self::SignsStream>, Status> {
        let life = self.life.clone();
        let open = life.streams.clone();
        let answers = request.into_inner().filter_map(move |sign| {
            let _ = &open;
            let refused = life.refuse.load(Relaxed);
            let answer = sign.map(|sign| life.answer(sign)).transpose();
            std::future::ready(match refused {
                true => Some(Err(Status::unavailable("not on my watch"))),
                false => answer,
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn relay(
        &self,
        _: Request<RelayLifeRequest>,
    ) -> Result<Response<RelayLifeResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// The way to such managers.
pub struct Known(Mutex<Vec<String>>);

impl Known {
    pub fn new<'a>(managers: impl IntoIterator<Item = &'a Manager>) -> Arc<Self> {
        let addresses = managers.into_iter().map(|m| m.address.to_string());
        Arc::new(Self(Mutex::new(addresses.collect())))
    }
}

impl Managers for Known {
    fn addresses(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn channel(&self, address: &str) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        Ok(endpoint.map_err(|e| e.to_string())?.connect_lazy())
    }

    fn life_channel(&self, address: &str) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|e| e.to_string())?;
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        Ok(endpoint.connect_lazy())
    }

    fn learned(&self, addresses: &[String]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn roots_sha256(&self) -> [u8; 32] {
        [7; 32]
    }

    fn told_roots(&self, _: [u8; 32], _: Duration) {}
}
