//! Into pods through any manager: programs, output as it comes, ports. What nobody reads, and who goes without a word, harms nobody.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use barge_client::{
    channel::{ChannelOptions, channel},
    config::Config,
    tls::client_config,
};
use barge_proto::v1::{
    AttachRequest, ExecRequest, ExecResponse, ExecStart, PortForwardRequest, PortForwardStart,
    exec_request, exec_response, pod_streams_client::PodStreamsClient, port_forward_request,
    port_forward_response,
};
use barge_tests::{
    Cluster,
    cluster::{Process, kill},
    eventually, eventually_within,
};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

const LONG: Duration = Duration::from_secs(60);
/// Clients that do not read: nearly as many as a node serves for one pod.
const STALLED: usize = 20;
/// How long they do not.
const STANDING: Duration = Duration::from_secs(15);

const PODS: &str = "apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, \"echo hello > /www/page; exec busybox httpd -f -p 8080 -h /www\"]
    livenessProbe: {exec: {command: [busybox, \"true\"]}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5}
    readinessProbe: {httpGet: {path: /page, port: 8080}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5}
---
apiVersion: v1
kind: Pod
metadata:
  name: clock
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, \"until [ -e /tmp/stop ]; do echo tick; busybox sleep 0.2; done; exit 7\"]
";

fn dial(cluster: &Cluster, address: &str) -> Channel {
    let config = Config::load(cluster.config()).expect("a credential");
    let identity = config.context(None).unwrap().identity().unwrap();
    let tls = client_config(&identity).unwrap();
    channel(address, tls, &ChannelOptions::default()).unwrap()
}

/// A program that runs.
struct Running {
    say: mpsc::Sender<ExecRequest>,
    hear: Streaming<ExecResponse>,
}

#[derive(Debug, Default, PartialEq)]
struct Whole {
    stdout: String,
    stderr: String,
    code: i32,
}

impl Running {
    async fn begin(manager: &Channel, pod: &str, command: &[&str]) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(4);
        let start = ExecStart {
            pod: pod.to_owned(),
            command: command.iter().map(|it| (*it).to_owned()).collect(),
            stdin: true,
            ..ExecStart::default()
        };
        let first = ExecRequest {
            what: Some(exec_request::What::Start(start)),
        };
        say.send(first).await.unwrap();
        let mut client = PodStreamsClient::new(manager.clone());
        let hear = client.exec(ReceiverStream::new(said)).await?.into_inner();
        let mut running = Self { say, hear };
        match running.next().await? {
            Some(exec_response::What::Started(true)) => Ok(running),
            other => panic!("{other:?} instead of a start"),
        }
    }

    async fn next(&mut self) -> Result<Option<exec_response::What>, Status> {
        let next = timeout(LONG, self.hear.message()).await;
        let next = next.expect("the program says something in time")?;
        Ok(next.and_then(|it| it.what))
    }

    async fn say(&self, what: exec_request::What) {
        let said = ExecRequest { what: Some(what) };
        self.say.send(said).await.unwrap();
    }

    async fn whole(mut self) -> Whole {
        let mut whole = Whole::default();
        while let Some(what) = self.next().await.unwrap() {
            match what {
                exec_response::What::Stdout(bytes) => {
                    whole.stdout.push_str(&String::from_utf8_lossy(&bytes));
                }
                exec_response::What::Stderr(bytes) => {
                    whole.stderr.push_str(&String::from_utf8_lossy(&bytes));
                }
                exec_response::What::ExitCode(code) => {
                    whole.code = code;
                    return whole;
                }
                exec_response::What::Started(_) => panic!("it starts twice"),
            }
        }
        panic!("no exit code after {whole:?}");
    }
}

async fn run(manager: &Channel, pod: &str, script: &str) -> Whole {
    let running = Running::begin(manager, pod, &["sh", "-c", script]).await;
    running.expect("it runs").whole().await
}

/// Processes of this machine that have this word in their command.
fn processes(word: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let commands = all.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
    commands
        .filter(|command| {
            let mut words = command.split(|byte| *byte == 0);
            words.any(|it| it == word.as_bytes())
        })
        .count()
}

fn until_gone(word: &str) {
    eventually(&format!("nothing runs {word}"), || match processes(word) {
        0 => Ok(()),
        count => Err(format!("{count} processes")),
    });
}

fn restarts(pod: &Value) -> u64 {
    let status = &pod["status"]["containerStatuses"][0];
    status["restartCount"].as_u64().unwrap()
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|it| it["type"] == "Ready" && it["status"] == "True")
    })
}

#[test]
fn into_pods_through_any_manager() {
    let cluster = Cluster::up("into_pods", 3, 1);
    cluster.apply(PODS);
    for pod in ["web", "clock"] {
        eventually(&format!("{pod} is ready"), || {
            let pod = cluster.get("pod", pod);
            match is_ready(&pod) {
                true => Ok(()),
                false => Err(pod["status"].to_string()),
            }
        });
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let managers = cluster.layout().managers;
    let channels: Vec<_> = runtime.block_on(async {
        let all = managers.iter();
        all.map(|it| dial(&cluster, &it.address)).collect()
    });
    for manager in &channels {
        runtime.block_on(programs(manager));
        runtime.block_on(a_port(manager));
    }
    runtime.block_on(output(&channels[0]));
    clients_that_do_not_read(&cluster, &runtime, &managers);
    runtime.block_on(async {
        let running = Running::begin(&channels[1], "web", &["busybox", "sleep", "98761"]).await;
        let running = running.unwrap();
        until_running("98761", 1);
        drop(running);
    });
    until_gone("98761");
    // A manager that dies takes the programs of its clients with it, and no container.
    let running = runtime
        .block_on(Running::begin(
            &channels[2],
            "web",
            &["busybox", "sleep", "98762"],
        ))
        .unwrap();
    until_running("98762", 1);
    kill(managers[2].pid);
    until_gone("98762");
    drop(running);
    assert_eq!(restarts(&cluster.get("pod", "web")), 0);
}

async fn programs(manager: &Channel) {
    let whole = run(manager, "web", "echo out; echo err >&2; exit 3").await;
    let expected = Whole {
        stdout: "out\n".to_owned(),
        stderr: "err\n".to_owned(),
        code: 3,
    };
    assert_eq!(whole, expected);
    let running = Running::begin(manager, "web", &["busybox", "cat"]).await;
    let running = running.unwrap();
    running
        .say(exec_request::What::Stdin(b"question".to_vec()))
        .await;
    running.say(exec_request::What::StdinEnd(true)).await;
    assert_eq!(running.whole().await.stdout, "question");
    let whole = run(manager, "web", "busybox seq 200000").await;
    assert_eq!(whole.stdout.lines().count(), 200_000);
    let Err(refused) = Running::begin(manager, "web", &["nope"]).await else {
        panic!("it runs");
    };
    assert!(refused.message().contains("\"nope\""), "{refused}");
    let Err(refused) = Running::begin(manager, "none", &["sh"]).await else {
        panic!("it runs");
    };
    assert!(refused.message().contains("default/none"), "{refused}");
}

async fn a_port(manager: &Channel) {
    use port_forward_request::What as Said;
    let (say, said) = mpsc::channel(4);
    let start = PortForwardStart {
        pod: "web".to_owned(),
        port: 8080,
        ..PortForwardStart::default()
    };
    let request = b"GET /page HTTP/1.0\r\n\r\n".to_vec();
    for what in [Said::Start(start), Said::Data(request), Said::End(true)] {
        let what = Some(what);
        say.send(PortForwardRequest { what }).await.unwrap();
    }
    let mut client = PodStreamsClient::new(manager.clone());
    let answers = client.port_forward(ReceiverStream::new(said)).await;
    let mut answers = answers.unwrap().into_inner();
    let mut page = Vec::new();
    while let Some(answer) = timeout(LONG, answers.message()).await.unwrap().unwrap() {
        if let Some(port_forward_response::What::Data(data)) = answer.what {
            page.extend(data);
        }
    }
    let page = String::from_utf8_lossy(&page);
    assert!(
        page.starts_with("HTTP/1.") && page.ends_with("hello\n"),
        "{page}"
    );
}

/// From now on, to the container's end.
async fn output(manager: &Channel) {
    let request = AttachRequest {
        pod: "clock".to_owned(),
        ..AttachRequest::default()
    };
    let mut client = PodStreamsClient::new(manager.clone());
    let mut hear = client.attach(request).await.unwrap().into_inner();
    let mut next = async || {
        let next = timeout(LONG, hear.message()).await;
        next.unwrap().unwrap().and_then(|it| it.what)
    };
    let ticks = exec_response::What::Stdout(b"tick\n".to_vec());
    assert_eq!(next().await, Some(ticks));
    let stopped = run(manager, "clock", "echo > /tmp/stop").await;
    assert_eq!(stopped.code, 0);
    loop {
        match next().await.expect("an exit code") {
            exec_response::What::ExitCode(code) => {
                assert_eq!(code, 7);
                break;
            }
            other => assert!(matches!(other, exec_response::What::Stdout(_)), "{other:?}"),
        }
    }
    assert_eq!(next().await, None);
}

/// A process that has been started becomes the program a moment later.
fn until_running(argument: &str, count: usize) {
    eventually_within(LONG, "the programs run", || match processes(argument) {
        all if all == count => Ok(()),
        some => Err(format!("{some} do")),
    });
}

fn clients_that_do_not_read(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    managers: &[Process],
) {
    let stalled: Vec<_> = runtime.block_on(async {
        let mut all = Vec::new();
        for index in 0..STALLED {
            // Each has a connection of its own, as processes have.
            let manager = dial(cluster, &managers[index % managers.len()].address);
            let running = Running::begin(&manager, "web", &["busybox", "yes", "98760"]).await;
            all.push(running.expect("there is room for it"));
        }
        all
    });
    until_running("98760", STALLED);
    let begun = Instant::now();
    while begun.elapsed() < STANDING {
        let nodes = cluster.barge(&["get", "nodes", "-o", "json"]);
        let nodes: Value = serde_json::from_str(&nodes).unwrap();
        let node = match nodes["items"].as_array() {
            Some(all) => &all[0],
            None => &nodes,
        };
        assert!(is_ready(node), "{node}");
        let web = cluster.get("pod", "web");
        assert!(is_ready(&web) && restarts(&web) == 0, "{}", web["status"]);
        thread::sleep(Duration::from_millis(500));
    }
    let log = cluster.barge(&["logs", "clock", "--tail", "1"]);
    assert_eq!(log, "tick\n");
    let whole = runtime.block_on(async {
        let manager = dial(cluster, &managers[0].address);
        run(&manager, "web", "echo soon").await
    });
    assert_eq!(whole.stdout, "soon\n");
    drop(stalled);
    eventually_within(
        LONG,
        "the programs end with their clients",
        || match processes("98760") {
            0 => Ok(()),
            count => Err(format!("{count} run on")),
        },
    );
}
