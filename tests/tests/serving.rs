//! Any manager serves: what is connected to one that lives goes on when the leader dies, and a client that knew one knows them all.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use barge_client::{
    channel::{ChannelOptions, channel},
    config::Config,
    identity::Identity,
    join::{JoinOptions, join},
    tls::{client_config, for_life_signs},
};
use barge_proto::v1::{
    self, AgentMessage, Hello, LifeSign, ManagerMessage, NodeStatus, Quantity, WatchRequest,
    agent_message::Message as FromAgent, api_client::ApiClient, life_client::LifeClient,
    manager_message::Message as ToAgent, session_client::SessionClient,
};
use barge_tests::{
    Managers, eventually, said,
    writer::{Writer, runtime},
};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{interval, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// Between life signs.
const BEAT: Duration = Duration::from_millis(500);

/// What a stream has brought, and why it ended, if it did.
struct Followed<T> {
    seen: Arc<Mutex<(Vec<T>, Option<String>)>>,
    task: JoinHandle<()>,
    /// Who speaks on the other half of the stream; it lives until that ends.
    speaks: Option<JoinHandle<()>>,
}

impl<T: Clone + Send + 'static> Followed<T> {
    fn new<M: Send + 'static>(
        mut stream: Streaming<M>,
        pick: impl Fn(M) -> Vec<T> + Send + 'static,
    ) -> Self {
        let seen: Arc<Mutex<(Vec<T>, Option<String>)>> = Arc::default();
        let into = seen.clone();
        let task = runtime().spawn(async move {
            loop {
                match stream.message().await {
                    Ok(Some(message)) => into.lock().unwrap().0.extend(pick(message)),
                    Ok(None) => break into.lock().unwrap().1 = Some("it was closed".into()),
                    Err(status) => break into.lock().unwrap().1 = Some(status.to_string()),
                }
            }
        });
        Self {
            seen,
            task,
            speaks: None,
        }
    }

    /// What came so far.
    ///
    /// # Panics
    /// When the stream has ended.
    fn so_far(&self) -> Vec<T> {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.1, None, "it goes on");
        seen.0.clone()
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(speaks) = &self.speaks {
            speaks.abort();
        }
    }
}

/// A node without a machine: it sends heartbeats and notes which Services it is told of.
struct Node {
    identity: Identity,
}

impl Node {
    fn join(managers: &Managers, index: usize, name: &str) -> Self {
        let options = JoinOptions {
            managers: vec![managers.address(index)],
            token: managers.token("agent").parse().expect("a token"),
            dir: managers.dir().join(name),
            address: "127.0.0.1".to_owned(),
            name: name.to_owned(),
            feature_level: 0,
            deadline: Duration::from_secs(30),
            previous: None,
        };
        let joined = runtime().block_on(join(&options)).expect("join");
        Self {
            identity: joined.identity,
        }
    }

    /// A session with one manager, until what is returned is dropped.
    fn connect(&self, manager: &str) -> Followed<String> {
        let (stream, speaks) = runtime()
            .block_on(session(manager, &self.identity))
            .expect("begin a session");
        let mut followed = Followed::new(stream, |message: ManagerMessage| match message.message {
            Some(ToAgent::Assignment(assignment)) => {
                let metadata = assignment.services.into_iter().filter_map(|s| s.metadata);
                metadata.map(|metadata| metadata.name).collect()
            }
            _ => Vec::new(),
        });
        followed.speaks = Some(speaks);
        followed
    }
}

fn dial(address: &str, identity: &Identity) -> Channel {
    let _entered = runtime().enter();
    let tls = client_config(identity).expect("a good identity");
    channel(address, tls, &ChannelOptions::default()).expect("a good address")
}

async fn session(
    manager: &str,
    identity: &Identity,
) -> Result<(Streaming<ManagerMessage>, JoinHandle<()>), Status> {
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
    let message = |message| AgentMessage {
        message: Some(message),
    };
    let hello = Hello {
        status: Some(status),
        ..Hello::default()
    };
    let hello = message(FromAgent::Hello(hello));
    tell.send(hello).await.expect("there is room");
    let tls = for_life_signs(&client_config(identity).expect("a good identity"));
    let lane = channel(manager, tls, &ChannelOptions::default()).expect("a good address");
    let speaks = tokio::spawn(async move {
        // The session ends when this task is aborted.
        let _session = tell;
        loop {
            let (sign, signs) = mpsc::channel(1);
            let mut client = LifeClient::new(lane.clone());
            if let Ok(answers) = client.signs(ReceiverStream::new(signs)).await {
                let mut answers = answers.into_inner();
                let mut beat = interval(BEAT);
                let mut sequence = 0;
                // A sign that is not answered keeps nobody from the next one.
                loop {
                    let goes_on = tokio::select! {
                        _ = beat.tick() => {
                            sequence += 1;
                            let next = LifeSign {
                                sequence,
                                ..LifeSign::default()
                            };
                            sign.send(next).await.is_ok()
                        }
                        answer = answers.message() => matches!(answer, Ok(Some(_))),
                    };
                    if !goes_on {
                        break;
                    }
                }
            }
            sleep(BEAT).await;
        }
    });
    let stream = SessionClient::new(dial(manager, identity))
        .connect(ReceiverStream::new(messages))
        .await?;
    Ok((stream.into_inner(), speaks))
}

/// Every value of the counter's that a manager tells, without any help of the client library's.
fn watch(managers: &Managers, index: usize) -> Followed<u64> {
    let config = Config::load(&managers.config()).expect("read the credential");
    let context = config.context(None).expect("a context");
    let identity = context.identity().expect("a certificate");
    let request = WatchRequest {
        kind: v1::Kind::Deployment.into(),
        namespace: "default".to_owned(),
        ..WatchRequest::default()
    };
    let channel = dial(&managers.address(index), &identity);
    let stream = runtime()
        .block_on(ApiClient::new(channel).watch(request))
        .expect("begin a watch");
    Followed::new(stream.into_inner(), |change: v1::WatchResponse| {
        let deployment = match change.object.and_then(|object| object.kind) {
            Some(v1::object::Kind::Deployment(deployment)) => deployment,
            _ => return Vec::new(),
        };
        let spec = deployment.spec.unwrap_or_default();
        u64::try_from(spec.min_ready_seconds).into_iter().collect()
    })
}

/// Runs `barge` with the managers that outlive the leader only.
fn barge(managers: &Managers, through: &Path, arguments: &[&str]) -> String {
    let output = managers.try_barge_with(through, arguments);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn service(managers: &Managers, through: &Path, name: &str) {
    let file = managers.dir().join(format!("{name}.yaml"));
    let manifest = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: x}}, ports: [{{port: 80}}]}}
"
    );
    fs::write(&file, manifest).expect("write a manifest");
    barge(managers, through, &["apply", "-f", text(&file)]);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The Ready condition of each node.
fn readiness(managers: &Managers, through: &Path) -> BTreeMap<String, String> {
    let list = barge(managers, through, &["get", "nodes", "-o", "json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
        ready["status"].as_str().map(str::to_owned)
    };
    let nodes = list["items"].as_array().expect("a list of nodes").iter();
    nodes
        .map(|node| {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), ready(node).unwrap_or_default())
        })
        .collect()
}

fn wait_for(managers: &Managers, through: &Path, node: &str, status: &str) {
    eventually(&format!("{node} is Ready: {status}"), || {
        let all = readiness(managers, through);
        match all.get(node).is_some_and(|found| found == status) {
            true => Ok(()),
            false => Err(format!("{all:?}")),
        }
    });
}

/// The leader goes as `lose` has it. Who is connected to another manager notices nothing but what happens in the cluster.
fn lose_the_leader(lose: impl FnOnce(&mut Managers, usize)) {
    let mut managers = Managers::up(3);
    let leader = managers.leader();
    let (here, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let through = managers.config_of(&[here, other]);
    let (kept, lost) = (
        Node::join(&managers, here, "kept"),
        Node::join(&managers, here, "lost"),
    );
    let session = kept.connect(&managers.address(here));
    wait_for(&managers, &through, "kept", "True");
    // A node that never spoke shows when a leader begins to judge: by then no process is young any more.
    wait_for(&managers, &through, "lost", "Unknown");
    let brief = lost.connect(&managers.address(here));
    wait_for(&managers, &through, "lost", "True");

    let watched = watch(&managers, here);
    let writer = Writer::start(&through);
    service(&managers, &through, "before");
    writer.wait_for(20);
    drop(brief);
    lose(&mut managers, leader);
    writer.wait_for(20);
    service(&managers, &through, "after");
    let acknowledged = writer.stop();

    eventually("the session tells both Services", || {
        let told = session.so_far();
        let both = ["before", "after"].map(|name| told.iter().any(|told| told == name));
        match both {
            [true, true] => Ok(()),
            _ => Err(format!("{told:?}")),
        }
    });
    eventually("the watch tells the last write", || {
        let told = watched.so_far();
        match told.last() {
            Some(last) if *last == acknowledged => Ok(()),
            last => Err(format!("{last:?} of {acknowledged}")),
        }
    });
    let mut told = watched.so_far();
    // The controller's changes of the status repeat a value.
    told.dedup();
    assert_eq!(told, (1..=acknowledged).collect::<Vec<_>>(), "none missed");

    // The new leader has judged those who are silent, and heard of the other.
    wait_for(&managers, &through, "lost", "Unknown");
    assert_eq!(readiness(&managers, &through)["kept"], "True");
    let events = barge(&managers, &through, &["events"]);
    assert!(!events.contains("Node kept is not ready"), "{events}");
    session.so_far();
    watched.so_far();
}

#[test]
fn a_killed_leader_ends_no_session_and_no_watch_elsewhere() {
    lose_the_leader(Managers::kill);
}

/// Its connections do not break: nobody answers any more.
#[test]
fn a_leader_that_falls_silent_ends_no_session_and_no_watch_elsewhere() {
    lose_the_leader(|managers, leader| {
        managers.signal(leader, "-STOP");
    });
}

/// The credential of the bootstrap names the first manager only.
#[test]
fn a_credential_learns_where_the_other_managers_are() {
    let mut managers = Managers::up(3);
    managers.wait_until_caught_up();
    let config = managers.config();
    let context = || {
        let config = Config::load(&config).expect("read the credential");
        config.context(None).expect("a context").clone()
    };
    let before = context();
    assert_eq!(before.managers, [managers.address(0)]);
    barge(&managers, &config, &["get", "namespaces"]);
    let mut after = context();
    for index in 0..3 {
        assert!(after.managers.contains(&managers.address(index)));
    }
    after.managers.clone_from(&before.managers);
    assert_eq!(after, before, "nothing else has changed");
    managers.kill(0);
    barge(&managers, &config, &["get", "namespaces"]);
}
