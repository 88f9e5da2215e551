#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! An agent's life on a manager that does not lead: it joins, is told what to run, reports, shows logs, and is revoked. Two
//! managers in this process, and a scripted agent, over real connections.

use std::collections::BTreeSet;

use barge_client::{
    config::Config as AdminConfig,
    error::is_node_deleted,
    join::{JoinOptions, join},
};
use barge_proto::v1::{
    ApplyOutcome, ApplyRequest, DeleteRequest, GetRequest, Held, Hello, Kind, ListMembersRequest,
    LogsRequest, Object, PodReport, PodStatus, Report, Role, Service, StatusVersion, TunnelChunk,
    agent_message::Message as FromAgent, api_client::ApiClient, cluster_client::ClusterClient,
    logs_client::LogsClient, manager_message::Message as ToAgent, session_client::SessionClient,
};
use barge_server::{config::Origin, runtime::Threads};
use prost::Message as _;
use tokio::{runtime::Runtime, time::timeout};
use tonic::{Code, Status, transport::Channel};

#[path = "session/configuration.rs"]
mod configuration;
#[path = "session/into_pods.rs"]
mod into_pods;
#[path = "session/metrics.rs"]
mod metrics;
#[path = "session/parties.rs"]
mod parties;

use parties::*;

#[test]
fn an_agent_lives_on_a_manager_that_does_not_lead() {
    let threads = Threads::default();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(Box::pin(an_agents_life(&threads)));
    // Both managers end with it. Their databases have to be closed before the process runs its exit handlers.
    drop(runtime);
    assert!(threads.wait(PATIENCE), "a database is still open");
}

async fn an_agents_life(threads: &Threads) {
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
    until("the first manager", async || {
        let mut cluster = ClusterClient::new(leader.clone());
        cluster.list_members(ListMembersRequest {}).await.ok()
    })
    .await;
    token(&leader, Role::Manager, dir.path()).await;
    let origin = Origin::Join {
        managers: vec![first.clone()],
        token_file: dir.path().join("Manager.token"),
    };
    let _follower = start(&dir.path().join("m2"), &second, origin, threads);
    // It waits for a third one before it votes.
    until("a second member", async || {
        let mut cluster = ClusterClient::new(leader.clone());
        let members = cluster.list_members(ListMembersRequest {}).await.ok()?;
        let members = members.into_inner().members;
        let mut states = members.iter().map(|member| member.state.as_str());
        (states.any(|state| state == "voter") && states.any(|state| state == "learner"))
            .then_some(())
    })
    .await;

    // The agent only knows the follower: even its joining travels to the leader.
    let token = token(&leader, Role::Agent, dir.path()).await;
    let options = JoinOptions {
        feature_level: 0,
        managers: vec![second.clone()],
        token: token.parse().unwrap(),
        dir: dir.path().join("agent"),
        address: "127.0.0.1".to_owned(),
        name: "n1".to_owned(),
        deadline: PATIENCE,
        previous: None,
    };
    let identity = join(&options).await.unwrap().identity;
    let follower = dial(&second, &identity);
    refused_as_another_life(&follower).await;
    // The leader answers life signs, whichever manager they reach.
    let mut signs = sign(&second, &identity).await;
    let (one, two) = (answer(&mut signs).await, answer(&mut signs).await);
    assert!(
        one.sequence < two.sequence && one.stamp < two.stamp,
        "{one:?} {two:?}"
    );
    assert_eq!(two.node_grace_ms, 4000);
    assert!(two.term > 0 && two.revision > 0, "{two:?}");
    let direct = answer(&mut sign(&first, &identity).await).await;
    assert_eq!(direct.term, two.term);
    let mut agent = Agent::connect(&follower).await.unwrap();
    let ToAgent::Welcome(welcome) = agent.next().await.unwrap() else {
        panic!("a session begins with Welcome");
    };
    let node = welcome.node.unwrap();
    assert_eq!(node.spec.unwrap().pod_cidr, "10.244.0.0/24");
    assert_eq!(welcome.service_cidr, "10.96.0.0/16");
    assert_eq!(welcome.manager_addresses.len(), 2);
    let ToAgent::Assignment(full) = agent.next().await.unwrap() else {
        panic!("then the full set");
    };
    assert!(full.full && full.pods.is_empty());

    // Its life signs make the node ready, so a pod is bound to it.
    let request = ApplyRequest {
        objects: vec![pod("one")],
        omit_objects: true,
        ..ApplyRequest::default()
    };
    let applied = ApiClient::new(leader.clone()).apply(request).await.unwrap();
    let result = applied.into_inner().results.remove(0);
    assert_eq!(result.outcome(), ApplyOutcome::Created);
    assert!(result.object.is_none(), "it was asked to be left out");
    let assigned = loop {
        if let ToAgent::Assignment(assignment) = agent.next().await.unwrap()
            && let Some(pod) = assignment.pods.into_iter().next()
        {
            break pod;
        }
    };
    let pod_uid = assigned.metadata.unwrap().uid;
    let report = Report {
        sequence: 7,
        pods: vec![PodReport {
            uid: pod_uid.clone(),
            status: Some(PodStatus {
                phase: "Running".to_owned(),
                ..PodStatus::default()
            }),
            gone: false,
            version: None,
        }],
        ..Report::default()
    };
    agent
        .tell
        .send(message(FromAgent::Report(report)))
        .await
        .unwrap();
    loop {
        if let ToAgent::Ack(ack) = agent.next().await.unwrap() {
            assert_eq!(ack.sequence, 7);
            break;
        }
    }
    assert_eq!(phase(&leader).await, "Running");

    // Logs are asked of the leader; the agent is at the follower.
    let logs = tokio::spawn(read_logs(leader.clone()));
    let open = loop {
        if let ToAgent::OpenStream(open) = agent.next().await.unwrap() {
            break open;
        }
    };
    let chunk = |stream_id: &str, data: &str| TunnelChunk {
        stream_id: stream_id.to_owned(),
        data: data.as_bytes().to_vec(),
        channel: 1,
        ..TunnelChunk::default()
    };
    let chunks = vec![
        chunk(&open.stream_id, ""),
        chunk("", "one\n"),
        chunk("", "two\n"),
    ];
    let mut tunnel = SessionClient::new(follower.clone())
        .tunnel(tokio_stream::iter(chunks))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(logs.await.unwrap().unwrap(), "one\ntwo\n");
    assert!(
        tunnel.message().await.unwrap().is_none(),
        "nobody reads any more"
    );

    let to = (&leader, &follower);
    into_pods::streams_into_pods(to, &mut agent, (&first, &admin), &pod_uid).await;

    // A stream that nobody asked for.
    let forged = tokio_stream::iter(vec![chunk("made-up", "")]);
    let refused = SessionClient::new(follower.clone()).tunnel(forged).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);

    // An agent's certificate opens nothing else.
    let refused = ApiClient::new(follower.clone())
        .get(GetRequest::default())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);

    a_session_goes_on(&leader, &follower, &mut agent).await;
    let direct = dial(&first, &identity);
    reports_in_any_order(&leader, &direct, &mut agent, &pod_uid).await;

    // Its node deleted, the session ends, and the certificate is worth nothing.
    let request = DeleteRequest {
        kind: Kind::Node.into(),
        name: "n1".to_owned(),
        ..DeleteRequest::default()
    };
    ApiClient::new(leader.clone())
        .delete(request)
        .await
        .unwrap();
    let ended = loop {
        if let Err(status) = agent.next().await {
            break status;
        }
    };
    assert!(is_node_deleted(&ended), "{ended}");
    let end = timeout(PATIENCE, async {
        while let Ok(Some(_)) = signs.message().await {}
    });
    end.await
        .expect("the life signs of a node that is gone are not taken");
    let Err(refused) = Agent::connect(&follower).await else {
        panic!("a revoked agent got in");
    };
    assert!(is_node_deleted(&refused), "{refused}");
}

/// What comes in a session comes in order, however fast things change, and the next session goes on from there.
async fn a_session_goes_on(leader: &Channel, manager: &Channel, agent: &mut Agent) {
    const ROUNDS: usize = 40;
    let churn = async {
        for round in 0..ROUNDS {
            let objects = vec![service(&format!("s{round}")), pod(&format!("p{round}"))];
            apply(leader, objects).await;
        }
    };
    let follow = async {
        let (mut acted, mut seen) = (0, BTreeSet::new());
        while seen.len() < 2 * ROUNDS {
            let ToAgent::Assignment(assignment) = agent.next().await.unwrap() else {
                continue;
            };
            let revision = assignment.revision;
            assert!(revision >= acted, "{revision} after {acted}");
            acted = revision;
            let pods = assignment.pods.into_iter().map(|pod| pod.metadata);
            let services = assignment.services.into_iter().map(|s| s.metadata);
            seen.extend(pods.chain(services).map(|meta| meta.unwrap().name));
        }
        acted
    };
    let ((), acted) = tokio::join!(churn, follow);
    apply(leader, vec![service("late")]).await;
    let is_late = |s: &Service| s.metadata.as_ref().unwrap().name == "late";
    let parts = |held| Hello {
        acted_revision: acted,
        takes_parts: true,
        held,
        ..Hello::default()
    };
    // Below its feature level a cluster gives full sets only.
    let (resumed, difference) = until("a session that goes on", async || {
        let hello = parts(Some(Held::default()));
        let mut agent = Agent::connect_as(manager, hello).await.unwrap();
        let mut bytes = 0;
        loop {
            if let ToAgent::Assignment(assignment) = agent.next().await.unwrap() {
                bytes += assignment.encoded_len();
                assert!(assignment.revision >= acted);
                if assignment.full {
                    return None;
                }
                if assignment.services.iter().any(is_late) {
                    assert!(assignment.pods.is_empty(), "nothing is told twice");
                    return Some((agent, bytes));
                }
            }
        }
    })
    .await;
    let mut anew = Agent::connect_as(manager, parts(None)).await.unwrap();
    let full = loop {
        if let ToAgent::Assignment(assignment) = anew.next().await.unwrap() {
            break assignment;
        }
    };
    assert!(full.full && !full.more && full.services.iter().any(is_late));
    assert!(full.encoded_len() > 5 * difference, "{difference} bytes");
    // In another life of the cluster revisions mean something else.
    let held = Held {
        life: "another".to_owned(),
    };
    let mut other = Agent::connect_as(manager, parts(Some(held))).await.unwrap();
    loop {
        if let ToAgent::Assignment(assignment) = other.next().await.unwrap() {
            assert!(assignment.full);
            break;
        }
    }
    drop(resumed);
    *agent = other;
}

/// Reports that travel through two managers, the later one faster; and one that no manager takes.
async fn reports_in_any_order(leader: &Channel, direct: &Channel, agent: &mut Agent, uid: &str) {
    let report = |sequence, counter, message: String| Report {
        sequence,
        pods: vec![PodReport {
            uid: uid.to_owned(),
            status: Some(PodStatus {
                phase: "Running".to_owned(),
                message,
                ..PodStatus::default()
            }),
            gone: false,
            version: Some(StatusVersion {
                incarnation: 5,
                counter,
            }),
        }],
        ..Report::default()
    };
    let newer = report(1, 2, "newer".to_owned());
    assert_eq!(agent.report(newer).await, None);
    let mut other = Agent::connect(direct).await.unwrap();
    let older = report(1, 1, "older".to_owned());
    assert_eq!(
        other.report(older).await,
        None,
        "there is nothing wrong with it"
    );
    assert_eq!(status(leader).await.message, "newer");
    let large = report(2, 3, "x".repeat(100 << 10));
    let why = agent.report(large).await.unwrap();
    assert!(why.contains("pods[0].status"), "{why}");
    let next = report(3, 4, "the session goes on".to_owned());
    assert_eq!(agent.report(next).await, None);
    assert_eq!(status(leader).await.message, "the session goes on");
}

/// Neither another cluster nor an older copy of this one tells an agent what to run.
async fn refused_as_another_life(manager: &Channel) {
    let another = Hello {
        cluster_id: "another".to_owned(),
        ..Hello::default()
    };
    let later = Hello {
        acted_revision: 1 << 40,
        ..Hello::default()
    };
    for (hello, why) in [
        (another, "belongs to cluster another"),
        (later, "older copy"),
    ] {
        let mut agent = Agent::connect_as(manager, hello).await.unwrap();
        let refused = agent.next().await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(why), "{refused}");
    }
}

async fn read_logs(leader: Channel) -> Result<String, Status> {
    let request = LogsRequest {
        pod: "one".to_owned(),
        ..LogsRequest::default()
    };
    let mut output = LogsClient::new(leader).read(request).await?.into_inner();
    let mut text = String::new();
    while let Some(piece) = output.message().await? {
        text.push_str(std::str::from_utf8(&piece.data).unwrap());
    }
    Ok(text)
}
