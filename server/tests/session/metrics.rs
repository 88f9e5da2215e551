//! What pods and nodes take, asked of a manager that leads while the agents are connected to one that does not.

use std::time::Instant;

use barge_client::{
    config::Config as AdminConfig,
    join::{JoinOptions, join},
};
use barge_proto::v1::{
    AgentMetricsRequest, AgentMetricsResponse, ContainerMetrics, ListMembersRequest, NodeMetrics,
    NodeMetricsRequest, PodMetrics, PodMetricsRequest, PodMetricsResponse, Role, TunnelChunk,
    cluster_client::ClusterClient, manager_message::Message as ToAgent,
    metrics_client::MetricsClient, open_stream::What, session_client::SessionClient,
};
use barge_server::{config::Origin, runtime::Threads};
use prost::Message as _;
use tokio::{runtime::Runtime, sync::mpsc};
use tonic::{Code, transport::Channel};

use super::parties::*;

#[test]
fn agents_are_asked_wherever_they_are_and_a_silent_one_is_named() {
    let threads = Threads::default();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(asked(&threads));
    drop(runtime);
    assert!(threads.wait(PATIENCE), "a database is still open");
}

async fn asked(threads: &Threads) {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (free_address(), free_address());
    let _leader = start(&dir.path().join("m1"), &first, Origin::Bootstrap, threads);
    let admin_file = dir.path().join("m1/admin.toml");
    let admin = until("an admin credential", async || {
        let config = AdminConfig::load(&admin_file).ok()?;
        config.context(None).ok()?.identity().ok()
    })
    .await;
    let leader = dial(&first, &admin);
    members(&leader, 1).await;
    token(&leader, Role::Manager, dir.path()).await;
    let origin = Origin::Join {
        managers: vec![first.clone()],
        token_file: dir.path().join("Manager.token"),
    };
    let _follower = start(&dir.path().join("m2"), &second, origin, threads);
    members(&leader, 2).await;

    let token = token(&leader, Role::Agent, dir.path()).await;
    let options = JoinOptions {
        feature_level: 0,
        managers: vec![second.clone()],
        token: token.parse().unwrap(),
        dir: dir.path().join("n1"),
        address: "127.0.0.1".to_owned(),
        name: "n1".to_owned(),
        deadline: PATIENCE,
        previous: None,
    };
    let identity = join(&options).await.unwrap().identity;
    let follower = dial(&second, &identity);
    let mut agent = Agent::connect(&follower).await.unwrap();
    // Its Welcome says that the follower knows the node by now.
    agent.next().await.unwrap();
    let _signs = sign(&second, &identity).await;
    apply(&leader, vec![pod("one")]).await;
    let uid = loop {
        if let ToAgent::Assignment(assignment) = agent.next().await.unwrap()
            && let Some(pod) = assignment.pods.into_iter().next()
        {
            break pod.metadata.unwrap().uid;
        }
    };

    // Without a session nobody can be asked: a node that is known and away.
    let missing = NodeMetricsRequest {
        name: "n7".to_owned(),
        ..NodeMetricsRequest::default()
    };
    let refused = MetricsClient::new(leader.clone()).nodes(missing).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    let long = PodMetricsRequest {
        window_seconds: 3601,
        ..PodMetricsRequest::default()
    };
    let refused = MetricsClient::new(leader.clone()).pods(long).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);

    // It answers in pieces.
    let (questions, mut heard) = mpsc::channel(8);
    let answering = tokio::spawn(answer_all(agent, follower.clone(), uid.clone(), questions));
    let answer = pods(&leader, "").await;
    assert_eq!(answer.warnings, Vec::<String>::new());
    let [one] = answer.pods.as_slice() else {
        panic!("{answer:?}")
    };
    let named = (one.namespace.as_str(), one.name.as_str(), one.node.as_str());
    assert_eq!(named, ("default", "one", "n1"));
    assert_eq!(one.containers[0].cpu_millis, 250);
    let asked: AgentMetricsRequest = heard.recv().await.unwrap();
    assert_eq!((asked.pod_uids, asked.window_seconds), (vec![uid], 60));
    let nodes = MetricsClient::new(leader.clone())
        .nodes(NodeMetricsRequest::default())
        .await;
    let nodes = nodes.unwrap().into_inner();
    assert_eq!(nodes.warnings, Vec::<String>::new());
    let node = &nodes.nodes[0];
    assert_eq!((node.name.as_str(), node.cpu_millis), ("n1", 700));
    assert_eq!(node.allocatable_cpu_millis, 4000);
    assert_eq!(node.allocatable_memory_bytes, 8 << 30);
    let other = pods(&leader, "app=other").await;
    assert_eq!(other, PodMetricsResponse::default());

    // It is connected, and says nothing.
    answering.abort();
    drop(answering.await);
    let mut silent = Agent::connect(&follower).await.unwrap();
    silent.next().await.unwrap();
    let begin = Instant::now();
    let answer = pods(&leader, "").await;
    assert!(answer.pods.is_empty(), "{answer:?}");
    assert_eq!(answer.warnings, ["node n1 did not answer within 3 s"]);
    assert!(begin.elapsed().as_secs() < 15, "{:?}", begin.elapsed());

    // It is not connected any more.
    drop(silent);
    let gone = "node n1 is not connected to any manager that answers";
    until("its session has ended", async || {
        (pods(&leader, "").await.warnings == [gone]).then_some(())
    })
    .await;
    // Only managers may have others ask their agents.
    let asked = SessionClient::new(leader)
        .ask_metrics(barge_proto::v1::AskMetricsRequest::default())
        .await;
    assert_eq!(asked.unwrap_err().code(), Code::PermissionDenied);
}

async fn members(leader: &Channel, count: usize) {
    until("the managers", async || {
        let mut cluster = ClusterClient::new(leader.clone());
        let members = cluster.list_members(ListMembersRequest {}).await.ok()?;
        let members = members.into_inner().members;
        let work = |state: &str| state == "voter" || state == "learner";
        let working = members.iter().filter(|member| work(&member.state));
        (working.count() == count).then_some(())
    })
    .await;
}

async fn pods(manager: &Channel, labels: &str) -> PodMetricsResponse {
    let request = PodMetricsRequest {
        label_selector: labels.to_owned(),
        window_seconds: 60,
        ..PodMetricsRequest::default()
    };
    let answer = MetricsClient::new(manager.clone()).pods(request).await;
    answer.unwrap().into_inner()
}

/// An agent that answers every question, in two chunks.
async fn answer_all(
    mut agent: Agent,
    manager: Channel,
    uid: String,
    questions: mpsc::Sender<AgentMetricsRequest>,
) {
    while let Ok(told) = agent.next().await {
        let ToAgent::OpenStream(open) = told else {
            continue;
        };
        let Some(What::Metrics(question)) = open.what else {
            panic!("{:?}", open.what)
        };
        let pod = PodMetrics {
            containers: vec![ContainerMetrics {
                name: "main".to_owned(),
                window_ms: 60_000,
                cpu_millis: 250,
                ..ContainerMetrics::default()
            }],
            ..PodMetrics::default()
        };
        let node = NodeMetrics {
            cpu_millis: 700,
            window_ms: 15_000,
            ..NodeMetrics::default()
        };
        let asks_pods = !question.pod_uids.is_empty();
        let answer = AgentMetricsResponse {
            pods: asks_pods.then(|| (uid.clone(), pod)).into_iter().collect(),
            node: (!asks_pods).then_some(node),
        };
        // Nobody may listen any more.
        let _ = questions.send(question).await;
        let bytes = answer.encode_to_vec();
        let (one, two) = bytes.split_at(bytes.len() / 2);
        let chunk = |stream_id: &str, data: &[u8]| TunnelChunk {
            stream_id: stream_id.to_owned(),
            data: data.to_vec(),
            ..TunnelChunk::default()
        };
        let chunks = vec![chunk(&open.stream_id, &[]), chunk("", one), chunk("", two)];
        let mut client = SessionClient::new(manager.clone());
        let tunnel = client.tunnel(tokio_stream::iter(chunks)).await;
        let mut back = tunnel.unwrap().into_inner();
        assert!(back.message().await.unwrap().is_none());
    }
}
