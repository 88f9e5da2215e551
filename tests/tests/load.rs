//! Those who ask for too much, read nothing or send slowly: a manager goes on for the others, and its memory stays bounded.
//! Each prints the manager's memory; the ceilings are far above what is measured, for what they are to find grows without end.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use barge_client::{
    Client, ClientOptions,
    config::Config,
    v1::{Kind, ListRequest, api_client::ApiClient},
};
use barge_tests::{
    Cluster, eventually,
    raw::{self, apply, channels, namespace, pss, random, watch},
};
use futures::{StreamExt, stream};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt;

const PATIENCE: Duration = Duration::from_secs(60);

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// A cluster of one manager, to see all of a load in one process.
struct Manager {
    cluster: Cluster,
    address: String,
    pid: u32,
    before: f64,
}

impl Manager {
    fn up(name: &'static str, agents: usize) -> Self {
        let cluster = Cluster::up(name, 1, agents);
        let manager = cluster.layout().managers.remove(0);
        Self {
            address: manager.address,
            pid: manager.pid,
            before: pss(manager.pid).unwrap(),
            cluster,
        }
    }

    fn channels(&self, count: usize) -> Vec<Channel> {
        channels(self.cluster.config(), &self.address, count).unwrap()
    }

    /// The client library, as a person's programs use it.
    fn client(&self) -> Client {
        let config = Config::load(self.cluster.config()).unwrap();
        Client::from_context(config.context(None).unwrap(), ClientOptions::default()).unwrap()
    }

    /// Prints what the manager holds, and fails above so many MB more than before.
    fn assert_memory(&self, when: &str, more: f64) {
        let now = pss(self.pid).unwrap();
        println!(
            "memory (PSS): {:.1} MB before, {now:.1} MB {when}",
            self.before
        );
        assert!(now - self.before < more, "{now} MB {when}");
    }

    /// It is the same process, and it answers.
    fn assert_well(&self) {
        assert_eq!(self.cluster.layout().managers[0].pid, self.pid);
        self.cluster.barge(&["get", "namespaces", "default"]);
    }
}

#[test]
fn watchers_that_never_read_are_cut_off_and_cost_little() {
    const WATCHERS: usize = 100;
    let manager = Manager::up("never-reads", 0);
    runtime().block_on(async {
        let channel = manager.channels(2);
        let mut streams = Vec::new();
        for _ in 0..WATCHERS {
            let opened = watch(channel[0].clone(), Kind::Namespace, "").await;
            streams.push(opened.unwrap());
        }
        // More than the history holds, of a few objects: what grows is not the state.
        for number in 0..400 {
            let objects = vec![namespace(
                &format!("n-{}", number % 4),
                random(100_000 + number),
            )];
            apply(channel[1].clone(), objects).await.unwrap();
        }
        manager.assert_memory("with 100 watchers that read nothing of 40 MB", 300.0);
        // They share a connection, and what one does not read stands in the way of the others.
        let ends = streams.into_iter().map(|mut stream| async move {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the end of a watch is no clean end"),
                    Err(status) => return status,
                }
            }
        });
        let ends = tokio::time::timeout(PATIENCE, futures::future::join_all(ends));
        for status in ends.await.expect("all are cut off") {
            assert_eq!(status.code(), Code::OutOfRange, "{status}");
            let info = status.get_details_error_info().expect("a reason");
            assert_eq!(info.reason, "EXPIRED");
        }
    });
    manager.assert_well();
}

#[test]
fn ten_thousand_idle_watchers_leave_a_manager_well() {
    const WATCHERS: usize = 10_000;
    let manager = Manager::up("idle-watchers", 0);
    runtime().block_on(async {
        let channels = manager.channels(8);
        let channel = |number: usize| channels[number % channels.len()].clone();
        let mut streams: Vec<_> = stream::iter(0..WATCHERS)
            .map(|number| watch(channel(number), Kind::Service, "elsewhere"))
            .buffer_unordered(64)
            .map(Result::unwrap)
            .collect()
            .await;
        let now = pss(manager.pid).unwrap();
        let each = (now - manager.before) * 1_000_000.0 / WATCHERS as f64;
        println!("{each:.0} bytes per watcher");
        manager.assert_memory("with 10,000 idle watchers", 1000.0);
        // One that is concerned hears of it all the same.
        let mut concerned = watch(channel(0), Kind::Namespace, "").await.unwrap();
        apply(channel(1), vec![namespace("here", "")])
            .await
            .unwrap();
        let told = loop {
            let message = concerned.message().await.unwrap().expect("it lasts");
            if let Some(object) = message.object {
                break object;
            }
        };
        assert_eq!(told.name(), "here");
        manager.assert_well();
        // All of them last.
        for stream in &mut streams {
            assert!(!matches!(
                futures::poll!(std::pin::pin!(stream.message())),
                std::task::Poll::Ready(Ok(None) | Err(_))
            ));
        }
    });
    manager.assert_well();
}

#[test]
fn slow_senders_are_closed_and_hold_up_nobody() {
    let manager = Manager::up("slow", 0);
    // A handshake that never comes to its end: the head of a record, and then a byte now and then.
    let mut slow: Vec<_> = (0..200)
        .map(|_| {
            let mut tcp = TcpStream::connect(&manager.address).unwrap();
            tcp.write_all(&[0x16, 3, 1, 1, 0]).unwrap();
            tcp.set_nonblocking(true).unwrap();
            tcp
        })
        .collect();
    eventually("slow handshakes are closed", || {
        // Whoever is honest gets in all the while.
        manager.assert_well();
        slow.retain_mut(is_open);
        match slow.len() {
            0 => Ok(()),
            left => Err(format!("{left} are open")),
        }
    });
    manager.assert_memory("after 200 slow handshakes", 100.0);

    // More than one address may have: refused at once or in time, none stays.
    let mut many: Vec<_> = (0..600)
        .filter_map(|_| TcpStream::connect(&manager.address).ok())
        .inspect(|tcp| tcp.set_nonblocking(true).unwrap())
        .collect();
    eventually("silent connections are closed", || {
        many.retain_mut(is_open);
        match many.len() {
            0 => Ok(()),
            left => Err(format!("{left} are open")),
        }
    });

    // A head that is larger than any.
    runtime().block_on(async {
        let channel = manager.channels(1).remove(0);
        let mut request = tonic::Request::new(ListRequest {
            kind: Kind::Namespace.into(),
            ..ListRequest::default()
        });
        let value = "x".repeat(100_000).parse().unwrap();
        request.metadata_mut().insert("large", value);
        assert!(ApiClient::new(channel).list(request).await.is_err());
    });
    manager.assert_well();
}

/// Sends one more byte; whether the other side still takes part.
fn is_open(tcp: &mut TcpStream) -> bool {
    let mut byte = [0];
    if tcp.write(&[0]).is_err_and(|error| !is_pending(&error)) {
        return false;
    }
    match tcp.read(&mut byte) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => is_pending(&error),
    }
}

fn is_pending(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
}

#[test]
fn a_manifest_of_twenty_megabytes_is_applied_in_parts_or_refused_with_its_limit() {
    let manager = Manager::up("20-mb", 0);
    let cluster = &manager.cluster;
    let one = |name: &str, bytes: usize| {
        let value = "v".repeat(bytes);
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  annotations:\n    value: {value}\n"
        )
    };
    let apply_file = |name: &str, text: &str| {
        let file = cluster.write(name, text);
        cluster.try_barge(&["apply", "-f", file.to_str().unwrap()])
    };

    // Many small ones are many requests.
    let many: String = (0..2_500).map(|n| one(&format!("n-{n}"), 8_000)).collect();
    assert!(many.len() > 20_000_000);
    let applied = apply_file("many.yaml", &many);
    assert!(applied.status.success(), "{}", said(&applied));
    assert!(said(&applied).contains("each whole or not at all"));
    assert_eq!(said(&applied).matches(" created").count(), 2_500);
    manager.assert_memory("with 20 MB of objects", 400.0);

    // One that is too large is named, with its line, its size and the limit.
    for (bytes, words) in [
        (
            2_000_000,
            &["namespace/large", "at most 1572864", "move what is large"][..],
        ),
        (20_000_000, &["at most 4194304"]),
    ] {
        let refused = apply_file("large.yaml", &one("large", bytes));
        assert_eq!(refused.status.code(), Some(1));
        for word in words {
            assert!(said(&refused).contains(word), "{word}: {}", said(&refused));
        }
    }
    // Whoever does not ask first is told the same by the manager.
    runtime().block_on(async {
        let channel = manager.channels(1).remove(0);
        let large = vec![namespace("large", random(20_000_000))];
        let status = apply(channel, large).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "request");
        assert!(violations[0].description.contains("4194304 bytes"));
    });
    manager.assert_memory("after what was too large", 500.0);
    manager.assert_well();
}

#[test]
fn a_greedy_client_starves_neither_agents_nor_others() {
    const GREEDY: usize = 3_000;
    let manager = Manager::up("greedy", 1);
    let nodes = manager.cluster.barge(&["get", "nodes", "-o", "json"]);
    let nodes: serde_json::Value = serde_json::from_str(&nodes).unwrap();
    // One object is printed without a list around it.
    let node = nodes["items"].get(0).unwrap_or(&nodes);
    let node = node["metadata"]["name"].as_str().unwrap();
    let config = manager.cluster.dir().join("other.toml");
    let path = config.to_str().unwrap();
    let create = ["credential", "create", "other", "--admin", "--out", path];
    manager.cluster.barge(&create);
    let [done, refused] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let runtime = runtime();
    let flood: Vec<_> = {
        let _inside = runtime.enter();
        let channels = manager.channels(4);
        (0..GREEDY)
            .map(|number| {
                let channel = channels[number % channels.len()].clone();
                let (done, refused) = (done.clone(), refused.clone());
                runtime.spawn(async move {
                    for round in 0.. {
                        match greedy(channel.clone(), number, round).await {
                            Ok(()) => done.fetch_add(1, Relaxed),
                            Err(status) => {
                                // A refusal of a load says when to come back, and nothing else happens.
                                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                                let retry = status.get_details_retry_info();
                                let retry = retry.unwrap_or_else(|| panic!("{status:?}"));
                                tokio::time::sleep(retry.retry_delay.unwrap()).await;
                                refused.fetch_add(1, Relaxed)
                            }
                        };
                    }
                })
            })
            .collect()
    };
    let other = Config::load(&config).unwrap();
    let other = other.context(None).unwrap();
    let inside = runtime.enter();
    let other = Client::from_context(other, ClientOptions::default()).unwrap();
    drop(inside);
    let (mut small, mut longest) = (0, Duration::ZERO);
    let begun = Instant::now();
    // Long enough for a node that is not heard to be given up twice.
    while begun.elapsed() < Duration::from_secs(20) {
        let asked = Instant::now();
        runtime.block_on(async {
            let name = format!("small-{small}");
            let options = barge_client::ApplyOptions::default();
            let objects = vec![namespace(&name, "")];
            other.apply(objects, &options).await.expect("a small write");
            let found = other.get(Kind::Node, "", node).await;
            let found = serde_json::to_value(found.expect("a small read")).unwrap();
            assert!(is_ready(&found), "the node was lost: {found}");
        });
        small += 1;
        longest = longest.max(asked.elapsed());
    }
    println!(
        "{} greedy requests done, {} refused; {small} small ones beside them, the longest pair took {longest:?}",
        done.load(Relaxed),
        refused.load(Relaxed)
    );
    manager.assert_memory("under 3,000 requests at a time", 1_000.0);
    assert!(done.load(Relaxed) > 0 && refused.load(Relaxed) > 0);
    for task in flood {
        assert!(!task.is_finished(), "a greedy task met something else");
        task.abort();
    }
    // The client library waits as it is told to, and gets through.
    runtime.block_on(async {
        let client = manager.client();
        client.get(Kind::Namespace, "", "default").await.unwrap()
    });
    manager.assert_well();
}

/// What a careless program does all the time.
async fn greedy(channel: Channel, number: usize, round: usize) -> Result<(), tonic::Status> {
    match number % 3 {
        0 => {
            let request = ListRequest {
                kind: Kind::Namespace.into(),
                ..ListRequest::default()
            };
            raw_list(channel, request).await
        }
        _ => {
            // Of its own, and another one every time.
            let object = namespace(&format!("g-{number}"), random(1 + round % 100));
            raw::apply(channel, vec![object]).await
        }
    }
}

async fn raw_list(channel: Channel, request: ListRequest) -> Result<(), tonic::Status> {
    ApiClient::new(channel).list(request).await.map(drop)
}

fn is_ready(node: &serde_json::Value) -> bool {
    node["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
}
