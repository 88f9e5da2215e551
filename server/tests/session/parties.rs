//! The parties of a session: managers in this process, a scripted agent, and what clients ask.

use std::{collections::BTreeMap, path::Path, sync::OnceLock, time::Duration};

use barge_client::{
    channel::{ChannelOptions, channel},
    identity::Identity,
    tls::{client_config, for_life_signs},
};
use barge_proto::v1::{
    AgentMessage, ApplyOutcome, ApplyRequest, Container, CreateTokenRequest, GetRequest, Hello,
    Kind, LifeAnswer, LifeSign, ManagerMessage, NodeStatus, Object, ObjectMeta, Pod, PodSpec,
    PodStatus, Quantity, Report, Role, Service, ServicePort, ServiceSpec,
    agent_message::Message as FromAgent, api_client::ApiClient, cluster_client::ClusterClient,
    life_client::LifeClient, manager_message::Message as ToAgent, object,
    session_client::SessionClient,
};
use barge_server::{
    config::{Config, Origin},
    controllers::{NODE_GRACE, NODE_LOSS_INTERVAL},
    manager,
    observe::{
        logging::{LogFormat, Logging},
        spans::Spans,
    },
    pki::authority::LEAF_LIFE,
    runtime::Threads,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

pub fn start(dir: &Path, address: &str, origin: Origin, threads: &Threads) -> JoinHandle<()> {
    let config = Config {
        data_dir: dir.to_owned(),
        advertise: address.to_owned(),
        listen: address.parse().unwrap(),
        origin,
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        min_disk_free: None,
        snapshot_after: None,
        snapshot_rate: None,
        node_grace: NODE_GRACE,
        node_loss_interval: NODE_LOSS_INTERVAL,
        reserved_ports: Default::default(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        certificate_lifetime: LEAF_LIFE,
        audit: true,
        log_format: LogFormat::Text,
        metrics: None,
        otlp: None,
    };
    let running = manager::run(config, threads.clone(), logging(), Spans::off());
    tokio::spawn(async move { running.await.unwrap() })
}

/// Both managers write into the log of this process.
pub fn logging() -> Logging {
    static LOGGING: OnceLock<Logging> = OnceLock::new();
    LOGGING
        .get_or_init(|| Logging::start(LogFormat::Text).unwrap())
        .clone()
}

pub fn dial(address: &str, identity: &Identity) -> Channel {
    let tls = client_config(identity).unwrap();
    channel(address, tls, &ChannelOptions::default()).unwrap()
}

/// Asks again until there is an answer that fits, or the test fails.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, asking).await.expect(what)
}

pub async fn token(leader: &Channel, role: Role, dir: &Path) -> String {
    let request = CreateTokenRequest {
        role: role.into(),
        ..CreateTokenRequest::default()
    };
    let mut cluster = ClusterClient::new(leader.clone());
    let token = cluster
        .create_token(request)
        .await
        .unwrap()
        .into_inner()
        .token;
    std::fs::write(dir.join(format!("{role:?}.token")), &token).unwrap();
    token
}

/// The life signs of an agent, one every 200 ms.
pub async fn sign(address: &str, identity: &Identity) -> Streaming<LifeAnswer> {
    let tls = for_life_signs(&client_config(identity).unwrap());
    let lane = channel(address, tls, &ChannelOptions::default()).unwrap();
    let (tell, signs) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut beat = interval(Duration::from_millis(200));
        for sequence in 1.. {
            beat.tick().await;
            let sign = LifeSign {
                sequence,
                ..LifeSign::default()
            };
            if tell.send(sign).await.is_err() {
                return;
            }
        }
    });
    let answers = LifeClient::new(lane)
        .signs(ReceiverStream::new(signs))
        .await;
    answers.unwrap().into_inner()
}

pub async fn answer(answers: &mut Streaming<LifeAnswer>) -> LifeAnswer {
    let next = timeout(PATIENCE, answers.message()).await;
    next.expect("an answer")
        .unwrap()
        .expect("the stream goes on")
}

pub struct Agent {
    pub tell: mpsc::Sender<AgentMessage>,
    pub told: Streaming<ManagerMessage>,
}

impl Agent {
    pub async fn connect(manager: &Channel) -> Result<Self, Status> {
        Self::connect_as(manager, Hello::default()).await
    }

    /// With what the agent says of itself, but for its machine.
    pub async fn connect_as(manager: &Channel, hello: Hello) -> Result<Self, Status> {
        let (tell, messages) = mpsc::channel(16);
        let amount = |value: &str| Quantity {
            value: value.to_owned(),
        };
        let status = NodeStatus {
            allocatable: BTreeMap::from([
                ("cpu".to_owned(), amount("4")),
                ("memory".to_owned(), amount("8Gi")),
                ("pods".to_owned(), amount("110")),
            ]),
            ..NodeStatus::default()
        };
        let hello = Hello {
            status: Some(status),
            ..hello
        };
        tell.send(message(FromAgent::Hello(hello))).await.unwrap();
        let told = SessionClient::new(manager.clone())
            .connect(ReceiverStream::new(messages))
            .await?
            .into_inner();
        Ok(Self { tell, told })
    }

    /// Reports, and waits for the answer: why it is refused, if it is.
    pub async fn report(&mut self, report: Report) -> Option<String> {
        let sequence = report.sequence;
        let mut refused = None;
        self.tell
            .send(message(FromAgent::Report(report)))
            .await
            .unwrap();
        loop {
            match self.next().await.unwrap() {
                ToAgent::Refused(why) => refused = Some(why.reason),
                ToAgent::Ack(ack) => {
                    assert_eq!(ack.sequence, sequence);
                    return refused;
                }
                _ => {}
            }
        }
    }

    pub async fn next(&mut self) -> Result<ToAgent, Status> {
        let next = timeout(PATIENCE, self.told.message())
            .await
            .expect("a message");
        Ok(next?.expect("the session goes on").message.unwrap())
    }
}

pub fn message(message: FromAgent) -> AgentMessage {
    AgentMessage {
        message: Some(message),
    }
}

pub fn named(name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        ..ObjectMeta::default()
    })
}

pub fn service(name: &str) -> Object {
    Service {
        metadata: named(name),
        spec: Some(ServiceSpec {
            selector: [("app".to_owned(), name.to_owned())].into(),
            ports: vec![ServicePort {
                port: 80,
                ..ServicePort::default()
            }],
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
    .into()
}

pub async fn apply(leader: &Channel, objects: Vec<Object>) {
    let request = ApplyRequest {
        objects,
        omit_objects: true,
        ..ApplyRequest::default()
    };
    let applied = ApiClient::new(leader.clone()).apply(request).await.unwrap();
    for result in applied.into_inner().results {
        assert_eq!(result.outcome(), ApplyOutcome::Created);
    }
}

pub fn pod(name: &str) -> Object {
    Pod {
        metadata: named(name),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "main".to_owned(),
                image: "web:1".to_owned(),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
    .into()
}

pub async fn phase(leader: &Channel) -> String {
    status(leader).await.phase
}

pub async fn status(leader: &Channel) -> PodStatus {
    let request = GetRequest {
        kind: Kind::Pod.into(),
        name: "one".to_owned(),
        ..GetRequest::default()
    };
    let answer = ApiClient::new(leader.clone()).get(request).await.unwrap();
    match answer.into_inner().object.unwrap().kind {
        Some(object::Kind::Pod(pod)) => pod.status.unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}
