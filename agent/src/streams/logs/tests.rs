#![allow(clippy::unwrap_used)]
use barge_proto::v1::{Container, OpenStream, Pod, PodSpec, open_stream::What};
use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tokio_util::sync::DropGuard;

use super::*;
use crate::{
    clock::SystemClock,
    life,
    managers::Managers,
    session::Streams as _,
    streams::{Measured, StreamServer, TRY_AGAIN, places::Sort},
    testing::{
        Scripted,
        managers::{Known, Manager, Tunnel},
    },
};

const LONG: Duration = Duration::from_secs(30);

fn entry(channel: cri::Channel, bytes: &'static str) -> std::io::Result<LogEntry> {
    Ok(LogEntry {
        time: Timestamp::from_second(1).unwrap(),
        channel,
        bytes: Bytes::from_static(bytes.as_bytes()),
        end: Place {
            inode: 1,
            offset: 2,
            time: Timestamp::from_second(1).unwrap(),
        },
    })
}

#[tokio::test]
async fn lines_are_put_together_and_pieces_get_one_timestamp() {
    use cri::Channel::{Stderr, Stdout};
    let entries = [
        entry(Stdout, "a\n"),
        entry(Stdout, "lo"),
        entry(Stderr, "e\n"),
        entry(Stdout, "ng\n"),
    ];
    let (sender, mut chunks) = mpsc::channel(8);
    send_all(
        futures::stream::iter(entries),
        Writer::new(0, true),
        &sender,
    )
    .await
    .unwrap();
    drop(sender);
    let mut seen = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        seen.push((chunk.channel, String::from_utf8(chunk.data).unwrap()));
    }
    let at = "1970-01-01T00:00:01.000000000Z";
    assert_eq!(
        seen,
        [
            (1, format!("{at} a\n{at} lo")),
            (2, format!("{at} e\n")),
            (1, "ng\n".to_owned()),
        ]
    );
}

#[test]
fn the_only_container_needs_no_name() {
    let pod = |names: &[&str]| Pod {
        spec: Some(PodSpec {
            containers: names
                .iter()
                .map(|name| Container {
                    name: (*name).into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(container_name(&pod(&["a"]), "").unwrap(), "a");
    assert!(container_name(&pod(&["a", "b"]), "").is_err());
    assert_eq!(container_name(&pod(&["a", "b"]), "b").unwrap(), "b");
    assert!(container_name(&pod(&["a"]), "b").is_err());
}

const LINE: &[u8] = b"0123456789012345678901234567890123456789012345678901234567890\n";

/// A node with one pod that has written much, and a manager that takes streams.
struct Node {
    runtime: Arc<Scripted>,
    path: PathBuf,
    server: StreamServer,
    managers: Arc<Known>,
    manager: Manager,
    _desired: watch::Sender<Arc<Desired>>,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
    stop: CancellationToken,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Scripted::new(Arc::new(SystemClock));
        runtime.keep_logs_in(folder.path());
        let path = runtime.log_path("p", "a", 0);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut log = Vec::new();
        for second in 0..200_000 {
            let time = Timestamp::from_second(second).unwrap();
            cri::encode(&mut log, time, cri::Channel::Stdout, LINE, false);
        }
        std::fs::write(&path, log).unwrap();
        let container = Container {
            name: "a".into(),
            ..Default::default()
        };
        let pod = Pod {
            spec: Some(PodSpec {
                containers: vec![container],
                ..Default::default()
            }),
            ..Default::default()
        };
        let pods = [("p".to_owned(), Arc::new(pod))].into();
        let (sender, desired) = watch::channel(Arc::new(Desired {
            pods,
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
            path,
            managers: Known::new([&manager]),
            manager,
            _desired: sender,
            _folder: folder,
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    async fn open(&mut self) -> (TunnelChunk, Tunnel) {
        self.open_with(LogOptions::default()).await
    }

    async fn open_with(&mut self, options: LogOptions) -> (TunnelChunk, Tunnel) {
        self.open_what(What::Logs, options).await
    }

    async fn open_what(
        &mut self,
        what: fn(LogOptions) -> What,
        options: LogOptions,
    ) -> (TunnelChunk, Tunnel) {
        let options = LogOptions {
            pod_uid: "p".into(),
            ..options
        };
        let request = OpenStream {
            stream_id: "s".into(),
            what: Some(what(options)),
        };
        let channel = self.managers.channel(&self.manager.address.to_string());
        self.server.open(channel.unwrap(), request);
        let stream = timeout(LONG, self.manager.tunnels.recv()).await;
        let mut stream = stream.unwrap().unwrap();
        let first = stream.chunks.message().await.unwrap().unwrap();
        assert_eq!(first.stream_id, "s");
        let next = stream.chunks.message().await.unwrap().unwrap();
        (next, stream)
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_nothing_and_one_too_many_is_told_so() {
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
    for _ in 0..Sort::Logs.most_of_pod() {
        let (chunk, stream) = node.open().await;
        assert!(chunk.data.len() <= CHUNK + 100 && chunk.error.is_empty());
        unread.push(stream);
    }
    let (refusal, _) = node.open().await;
    assert!(
        refusal
            .error
            .contains("64 streams of logs of this pod already")
            && refusal.exit_code == Some(TRY_AGAIN),
        "{}",
        refusal.error
    );
    // A reader that goes makes room, for one that gets all there is.
    unread.pop();
    let mut bytes = 0;
    let begun = Instant::now();
    while bytes == 0 {
        assert!(begun.elapsed() < LONG, "no room");
        let (chunk, mut stream) = node.open().await;
        if chunk.error.is_empty() {
            bytes = chunk.data.len();
            while let Some(chunk) = stream.chunks.message().await.unwrap() {
                bytes += chunk.data.len();
            }
        }
    }
    assert_eq!(bytes, 200_000 * LINE.len());
    let mut signs: Vec<_> = node
        .manager
        .life
        .signs()
        .iter()
        .map(|(at, _)| *at)
        .collect();
    signs.retain(|at| *at >= begin);
    signs.push(Instant::now());
    let gap = signs.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(gap.unwrap() < Duration::from_secs(2), "{gap:?}");
}

#[tokio::test]
async fn the_last_words_of_a_program_that_is_followed_are_not_cut_off() {
    let mut node = Node::start().await;
    let container = crate::runtime::Container {
        id: "p-a-0".into(),
        pod_uid: "p".into(),
        name: "a".into(),
        attempt: 0,
        image_id: "i@d".into(),
        image: "i".into(),
        state: ContainerState::Running {
            pid: 7,
            started_at_ms: 1,
        },
    };
    node.runtime.put(container);
    let options = LogOptions {
        follow: true,
        tail: Some(1),
        ..Default::default()
    };
    let (chunk, mut stream) = node.open_with(options).await;
    assert_eq!(chunk.data, LINE);
    // Its end is known before its last output is in the log, and the first question fails.
    let path = node.path.clone();
    node.runtime.settle_with(move || {
        let mut lines = Vec::new();
        let now = Timestamp::now();
        cri::encode(&mut lines, now, cri::Channel::Stderr, b"panic: x", true);
        let mut log = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        std::io::Write::write_all(&mut log, &lines).unwrap();
    });
    node.runtime.fail("settle", "RuntimeUnavailable");
    node.runtime.exit("p-a-0", 2);
    let mut rest = Vec::new();
    while let Some(chunk) = timeout(LONG, stream.chunks.message())
        .await
        .unwrap()
        .unwrap()
    {
        rest.extend(chunk.data);
    }
    assert_eq!(String::from_utf8(rest).unwrap(), "panic: x");
}

#[tokio::test]
async fn who_follows_a_container_lists_all_only_when_that_one_changes() {
    let mut node = Node::start().await;
    let container = |id: &str, name: &str| crate::runtime::Container {
        id: id.into(),
        pod_uid: "p".into(),
        name: name.into(),
        attempt: 0,
        image_id: "i@d".into(),
        image: "i".into(),
        state: ContainerState::Running {
            pid: 7,
            started_at_ms: 1,
        },
    };
    node.runtime.put(container("p-a-0", "a"));
    let options = LogOptions {
        follow: true,
        tail: Some(1),
        ..Default::default()
    };
    let (_, mut stream) = node.open_with(options).await;
    let begun = Instant::now();
    let until_listed = async |times| {
        while node.runtime.lists() < times {
            assert!(begun.elapsed() < LONG, "{} lists", node.runtime.lists());
            sleep(Duration::from_millis(5)).await;
        }
    };
    until_listed(1).await;
    for other in 0..40 {
        let id = format!("p-b-{other}");
        node.runtime.put(container(&id, "b"));
        node.runtime.exit(&id, 1);
    }
    // Its own end is seen behind all of these, also when the first list fails.
    node.runtime.fail("list", "RuntimeUnavailable");
    node.runtime.exit("p-a-0", 2);
    while let Some(chunk) = timeout(LONG, stream.chunks.message())
        .await
        .unwrap()
        .unwrap()
    {
        assert!(chunk.error.is_empty(), "{chunk:?}");
    }
    assert_eq!(node.runtime.lists(), 3);
}

#[tokio::test]
async fn the_previous_log_is_of_the_last_attempt_that_has_ended() {
    let mut node = Node::start().await;
    let container = |attempt: u32| crate::runtime::Container {
        id: format!("p-a-{attempt}"),
        pod_uid: "p".into(),
        name: "a".into(),
        attempt,
        image_id: "i@d".into(),
        image: "i".into(),
        state: ContainerState::Running {
            pid: 7,
            started_at_ms: 1,
        },
    };
    let last = LogOptions {
        tail: Some(1),
        ..Default::default()
    };
    node.runtime.put(container(0));
    let (chunk, _) = node.open_what(What::PreviousLogs, last.clone()).await;
    assert!(chunk.error.contains("has not ended yet"), "{}", chunk.error);
    // It ended, and waits for its restart.
    node.runtime.exit("p-a-0", 2);
    let (chunk, _) = node.open_what(What::PreviousLogs, last.clone()).await;
    assert_eq!(chunk.data, LINE, "{}", chunk.error);
    // It runs again.
    let mut text = Vec::new();
    cri::encode(
        &mut text,
        Timestamp::now(),
        cri::Channel::Stdout,
        b"new\n",
        false,
    );
    let path = node.runtime.log_path("p", "a", 1);
    std::fs::write(path, text).unwrap();
    node.runtime.put(container(1));
    let (chunk, _) = node.open_what(What::PreviousLogs, last.clone()).await;
    assert_eq!(chunk.data, LINE, "{}", chunk.error);
    let (chunk, _) = node.open_with(last).await;
    assert_eq!(chunk.data, b"new\n", "{}", chunk.error);
}
