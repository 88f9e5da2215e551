//! Streams into pods, as a manager sees them, with programs in memory.
#![allow(clippy::unwrap_used, clippy::panic)]

use barge_proto::v1::{
    self as api, AttachOptions, ExecOptions, ForwardOptions, ObjectMeta, Pod, PodSpec,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, sleep},
};
use tokio_util::sync::DropGuard;

use super::*;
use crate::{
    carrier::cri,
    clock::SystemClock,
    life,
    managers::Managers,
    runtime::{Container, ContainerState},
    testing::{
        Scripted,
        managers::{Known, Manager, Tunnel},
    },
};

const LONG: Duration = Duration::from_secs(30);

/// A node with a pod whose container `a` runs and whose container `b` has ended, and a manager that takes streams.
struct Node {
    runtime: Arc<Scripted>,
    server: StreamServer,
    managers: Arc<Known>,
    manager: Manager,
    stop: CancellationToken,
    _desired: watch::Sender<Arc<Desired>>,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Scripted::new(Arc::new(SystemClock));
        runtime.keep_logs_in(folder.path());
        for name in ["a", "b"] {
            runtime.put(Container {
                id: format!("p-{name}-0"),
                pod_uid: "p".into(),
                name: name.into(),
                attempt: 0,
                image_id: "i@d".into(),
                image: "i".into(),
                state: ContainerState::Running {
                    pid: 7,
                    started_at_ms: 1,
                },
            });
        }
        runtime.exit("p-b-0", 1);
        let container = |name: &str| api::Container {
            name: name.into(),
            ..Default::default()
        };
        let pod = Pod {
            metadata: Some(ObjectMeta {
                namespace: "shop".into(),
                name: "web".into(),
                ..Default::default()
            }),
            spec: Some(PodSpec {
                containers: ["a", "b", "c"].map(container).to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let (sender, desired) = watch::channel(Arc::new(Desired {
            pods: [("p".to_owned(), Arc::new(pod))].into(),
            ..Default::default()
        }));
        let stop = CancellationToken::new();
        let manager = Manager::start().await;
        let measured = Measured {
            store: Default::default(),
            clock: Arc::new(crate::clock::SystemClock),
        };
        Self {
            server: StreamServer::new(runtime.clone(), desired, measured, stop.clone()),
            runtime,
            managers: Known::new([&manager]),
            manager,
            _desired: sender,
            _folder: folder,
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Nothing is what an agent sees of a question that it does not know.
    async fn open(&mut self, what: impl Into<Option<What>>) -> Tunnel {
        let request = OpenStream {
            stream_id: "s".into(),
            what: what.into(),
        };
        let channel = self.managers.channel(&self.manager.address.to_string());
        self.server.open(channel.unwrap(), request);
        let tunnel = timeout(LONG, self.manager.tunnels.recv()).await;
        let mut tunnel = tunnel.unwrap().unwrap();
        assert_eq!(tunnel.next().await.unwrap().stream_id, "s");
        tunnel
    }

    async fn exec(&mut self, options: ExecOptions) -> Tunnel {
        self.open(What::Exec(options)).await
    }

    /// Opens a stream that says nothing but what went wrong.
    async fn refusal(&mut self, what: impl Into<Option<What>>) -> TunnelChunk {
        let mut tunnel = self.open(what).await;
        let last = tunnel.next().await.unwrap();
        assert!(tunnel.next().await.is_none(), "{last:?}");
        last
    }

    async fn until_no_program_runs(&self) {
        let begun = Instant::now();
        while self.runtime.talk.running() > 0 {
            assert!(begun.elapsed() < LONG, "a program runs on");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn options(container: &str, command: &str) -> ExecOptions {
    ExecOptions {
        pod_uid: "p".into(),
        container: container.into(),
        command: command.split(' ').map(str::to_owned).collect(),
        ..Default::default()
    }
}

fn says(text: &str) -> TunnelChunk {
    TunnelChunk {
        data: text.into(),
        ..Default::default()
    }
}

fn ends() -> TunnelChunk {
    TunnelChunk {
        end: true,
        ..Default::default()
    }
}

/// What comes on each channel, and the last chunk.
async fn rest(tunnel: &mut Tunnel) -> ([String; 3], TunnelChunk) {
    let mut text = [const { Vec::new() }; 3];
    while let Some(chunk) = tunnel.next().await {
        if chunk.exit_code.is_some() || !chunk.error.is_empty() {
            assert!(tunnel.next().await.is_none());
            return (text.map(|it| String::from_utf8(it).unwrap()), chunk);
        }
        text[chunk.channel as usize].extend(chunk.data);
    }
    panic!("no last chunk after {text:?}");
}

#[tokio::test]
async fn a_program_hears_its_input_to_the_end_and_says_its_exit_code() {
    let mut node = Node::start().await;
    let mut tunnel = node
        .exec(ExecOptions {
            stdin: true,
            ..options("a", "cat")
        })
        .await;
    assert!(tunnel.next().await.unwrap().begun);
    tunnel.say(says("one\n")).await;
    tunnel.say(says("two\n")).await;
    tunnel.say(ends()).await;
    let (text, last) = rest(&mut tunnel).await;
    assert_eq!(text, ["", "one\ntwo\n", ""]);
    assert_eq!(last.exit_code, Some(0));
    node.until_no_program_runs().await;
    assert_eq!(node.runtime.talk.done(), ["close", "end"]);
}

#[tokio::test]
async fn sizes_and_signals_reach_the_program() {
    let mut node = Node::start().await;
    let mut tunnel = node.exec(options("a", "sleep")).await;
    assert!(tunnel.next().await.unwrap().begun);
    let size = api::TerminalSize {
        columns: 80,
        rows: 24,
    };
    tunnel
        .say(TunnelChunk {
            size: Some(size),
            ..Default::default()
        })
        .await;
    tunnel
        .say(TunnelChunk {
            signal: 2,
            ..Default::default()
        })
        .await;
    let (_, last) = rest(&mut tunnel).await;
    assert_eq!(last.exit_code, Some(130));
    node.until_no_program_runs().await;
    assert_eq!(
        node.runtime.talk.done(),
        ["resize 80x24", "signal 2", "end"]
    );
}

#[tokio::test]
async fn outputs_that_somebody_holds_on_to_end_soon_after_the_program() {
    let mut node = Node::start().await;
    let mut tunnel = node.exec(options("a", "leave")).await;
    assert!(tunnel.next().await.unwrap().begun);
    let (text, last) = rest(&mut tunnel).await;
    assert_eq!(text, ["", "out\n", "err\n"]);
    assert_eq!(last.exit_code, Some(3));
}

#[tokio::test]
async fn the_output_of_a_program_that_has_ended_is_whole_however_slow_its_shim() {
    let mut node = Node::start().await;
    let mut tunnel = node.exec(options("a", "stuck")).await;
    assert!(tunnel.next().await.unwrap().begun);
    let (text, last) = rest(&mut tunnel).await;
    assert_eq!(text, ["", "out\nmore\n", ""]);
    assert_eq!(last.exit_code, Some(4));
}

#[tokio::test]
async fn what_cannot_be_run_is_said_in_a_sentence() {
    let mut node = Node::start().await;
    for (options, why, code) in [
        (
            ExecOptions {
                pod_uid: "q".into(),
                ..options("a", "cat")
            },
            "the pod is not on this node",
            None,
        ),
        (
            options("", "cat"),
            "the pod has several containers, choose one of [\"a\", \"b\", \"c\"]",
            None,
        ),
        (
            options("x", "cat"),
            "the pod has no container \"x\", only [\"a\", \"b\", \"c\"]",
            None,
        ),
        (
            options("b", "cat"),
            "container b of pod shop/web is not running: it ended with exit code 1",
            None,
        ),
        (
            options("c", "cat"),
            "container c of pod shop/web is not running: it has not been started yet",
            None,
        ),
        (options("a", ""), "no program is named", None),
        (
            options("a", "nope"),
            "\"nope\" was not found in the container",
            Some(127),
        ),
    ] {
        let last = node.refusal(What::Exec(options)).await;
        assert_eq!((last.error.as_str(), last.exit_code), (why, code));
    }
    let last = node.refusal(None).await;
    assert!(last.error.contains("does not know"), "{last:?}");
    assert_eq!(node.runtime.talk.running(), 0);
}

#[tokio::test]
async fn a_program_ends_when_its_client_goes_or_the_agent_stops() {
    let mut node = Node::start().await;
    for command in ["sleep", "yes", "cat"] {
        let mut tunnel = node
            .exec(ExecOptions {
                stdin: true,
                ..options("a", command)
            })
            .await;
        assert!(tunnel.next().await.unwrap().begun);
        assert_eq!(node.runtime.talk.running(), 1);
        drop(tunnel);
        node.until_no_program_runs().await;
    }
    // The input of this one stands still with all that a manager may have on its way.
    let mut tunnel = node
        .exec(ExecOptions {
            stdin: true,
            ..options("a", "yes")
        })
        .await;
    assert!(tunnel.next().await.unwrap().begun);
    let piece = "x".repeat(64 << 10);
    for _ in 0..4 {
        let said = timeout(LONG, tunnel.say(says(&piece))).await;
        said.expect("the agent takes it");
    }
    drop(tunnel);
    node.until_no_program_runs().await;

    let mut tunnel = node.exec(options("a", "sleep")).await;
    assert!(tunnel.next().await.unwrap().begun);
    node.stop.cancel();
    let ended = timeout(LONG, node.server.clone().ended()).await;
    ended.expect("all streams end");
    assert_eq!(node.runtime.talk.running(), 0);
    assert_eq!(node.runtime.talk.done().last().unwrap(), "end");
}

#[tokio::test]
async fn a_program_is_not_begun_for_a_client_that_has_gone() {
    let mut node = Node::start().await;
    let tunnel = node.exec(options("a", "late")).await;
    drop(tunnel);
    let begun = Instant::now();
    while node.runtime.talk.done() != ["not begun"] {
        assert!(begun.elapsed() < LONG, "{:?}", node.runtime.talk.done());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_nothing() {
    let mut node = Node::start().await;
    let life = life::thread(node.stop.clone()).unwrap();
    life::start(
        &life,
        node.managers.clone(),
        Default::default(),
        node.stop.clone(),
        std::future::ready(()),
    );
    node.manager.life.until_signed().await;
    let begin = Instant::now();
    let mut unread = Vec::new();
    for _ in 0..20 {
        let mut tunnel = node.exec(options("a", "yes")).await;
        assert!(tunnel.next().await.unwrap().begun);
        unread.push(tunnel);
    }
    // Each stands still by itself: another one is served at once.
    for _ in 0..4 {
        let mut tunnel = node.exec(options("a", "leave")).await;
        assert!(tunnel.next().await.unwrap().begun);
        assert_eq!(rest(&mut tunnel).await.1.exit_code, Some(3));
    }
    assert_eq!(node.runtime.talk.running(), 20);
    let signs = node.manager.life.signs();
    let mut signs: Vec<_> = signs.iter().map(|(at, _)| *at).collect();
    signs.retain(|at| *at >= begin);
    signs.push(Instant::now());
    let gap = signs.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(gap.unwrap() < Duration::from_secs(2), "{gap:?}");
    drop(unread);
    node.until_no_program_runs().await;
}

#[tokio::test]
async fn who_attaches_sees_what_comes_and_the_exit_code() {
    let mut node = Node::start().await;
    let path = node.runtime.log_path("p", "a", 0);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let add = move |text: &[u8]| {
        let mut lines = Vec::new();
        let now = jiff::Timestamp::now();
        cri::encode(&mut lines, now, cri::Channel::Stdout, text, false);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.append(true).create(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, &lines).unwrap();
    };
    add(b"before\n");
    let attach = |container: &str| {
        What::Attach(AttachOptions {
            pod_uid: "p".into(),
            container: container.into(),
        })
    };
    let last = node.refusal(attach("b")).await;
    assert!(last.error.contains("is not running"), "{last:?}");
    let mut tunnel = node.open(attach("a")).await;
    // From where it reads is known only once something has come.
    let writer = tokio::spawn(async move {
        for _ in 0..20 {
            sleep(Duration::from_millis(100)).await;
            add(b"now\n");
        }
    });
    let first = tunnel.next().await.unwrap();
    assert!(first.data.starts_with(b"now\n"), "{first:?}");
    writer.await.unwrap();
    node.runtime.exit("p-a-0", 4);
    assert_eq!(rest(&mut tunnel).await.1.exit_code, Some(4));
}

#[tokio::test]
async fn a_connection_is_closed_half_by_half() {
    let mut node = Node::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let forward = |port: u16| {
        What::Forward(ForwardOptions {
            pod_uid: "p".into(),
            port: port.into(),
        })
    };
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        stream.write_all(b"answer").await.unwrap();
        // Nobody listens any more.
        drop(listener);
        heard
    });
    let mut tunnel = node.open(forward(port)).await;
    assert!(tunnel.next().await.unwrap().begun);
    tunnel.say(says("question")).await;
    tunnel.say(ends()).await;
    let mut heard = Vec::new();
    loop {
        let chunk = tunnel.next().await.unwrap();
        heard.extend(chunk.data);
        if chunk.end {
            break;
        }
    }
    assert_eq!(heard, b"answer");
    assert!(tunnel.next().await.is_none());
    assert_eq!(served.await.unwrap(), "question");
    let last = node.refusal(forward(port)).await;
    assert_eq!(
        last.error,
        format!("nothing listens on port {port} of pod shop/web: connection refused")
    );
}
