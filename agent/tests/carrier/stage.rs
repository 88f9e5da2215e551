//! A data folder with a carrier, and containers that only write.

use std::{
    fs::{self, OpenOptions},
    future::Future,
    io::Write,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use barge_agent::{
    carrier::{
        Carrier, keeper,
        protocol::{Attachment, Request},
    },
    runtime::Paths,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Decides when a test gives up, never whether something was fast.
const DEADLINE: Duration = Duration::from_secs(60);
/// The agent, as it was built.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_barge-agent");
/// A few times what a pipe holds.
pub const LINES: usize = 40_000;

pub struct Stage {
    folder: tempfile::TempDir,
    pub paths: Paths,
    pub carrier: Carrier,
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let command = vec![PROGRAM.into(), "carrier".into()];
        Self {
            carrier: Carrier::new(paths.clone(), command),
            paths,
            folder,
        }
    }

    /// Watches over the carrier, as control does.
    pub fn keep(&self) -> Keeper {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let list = told.clone();
        let tell = move |reason: &str, _| list.lock().unwrap().push(reason.to_owned());
        let task = tokio::spawn(keeper::keep(self.carrier.clone(), tell));
        Keeper { told, task }
    }

    pub async fn attach(&self, pod: &str, container: &str) {
        let attachment = Attachment {
            id: format!("{pod}-{container}-0"),
            pod_uid: pod.into(),
            container: container.into(),
            attempt: 0,
        };
        self.carrier.attach(attachment).await.unwrap();
    }

    pub async fn detach(&self, id: &str) {
        self.carrier.detach(id).await.unwrap();
        assert!(!self.paths.container_io(id).exists());
    }

    /// Waits until all output of a container is in its log. A carrier that dies meanwhile cannot say so: its successor is
    /// asked again.
    pub async fn settle(&self, id: &str) {
        eventually("the output has settled", || async {
            self.carrier.settle(id).await.ok()
        })
        .await;
    }

    /// The carrier's process, once there is one.
    pub async fn pid(&self) -> u32 {
        eventually("a carrier serves", || self.try_pid()).await
    }

    pub async fn try_pid(&self) -> Option<u32> {
        let reply = self.carrier.call(Request::Ping).await;
        reply.ok().map(|reply| reply.pid)
    }

    /// The pipe of a container's standard output. Both ends, as the shim holds them: the reader's death is no SIGPIPE.
    pub fn pipe(&self, id: &str) -> fs::File {
        let path = self.paths.container_io(id).join("stdout");
        let pipe = OpenOptions::new().read(true).write(true).open(path);
        pipe.unwrap()
    }

    /// Numbers in order; a batch may come twice, none may be missing.
    pub fn log_is_complete(&self, pod: &str, container: &str, lines: usize) {
        let path = self.paths.log(pod, container, 0);
        let mut expected = 1;
        for line in fs::read_to_string(path).unwrap().lines() {
            let number: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(number <= expected, "{expected} is missing before {number}");
            expected = expected.max(number + 1);
        }
        assert_eq!(expected, lines + 1);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let ours = self.folder.path().display().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            let is_carrier = command.starts_with(PROGRAM) && command.contains(&ours);
            if let (true, Ok(pid)) = (is_carrier, entry.file_name().to_string_lossy().parse()) {
                signal(pid, Signal::SIGKILL);
            }
        }
    }
}

pub struct Keeper {
    told: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Keeper {
    /// The reasons, in order.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes numbered lines into a container's pipe as fast as they are taken.
pub struct Writer(JoinHandle<Duration>);

impl Writer {
    pub fn start(stage: &Stage, id: &str, lines: usize) -> Self {
        let mut pipe = stage.pipe(id);
        Self(thread::spawn(move || {
            let mut longest = Duration::ZERO;
            for number in 1..=lines {
                let begun = Instant::now();
                pipe.write_all(format!("{number}\n").as_bytes()).unwrap();
                longest = longest.max(begun.elapsed());
                if number % 100 == 0 {
                    thread::sleep(Duration::from_millis(2));
                }
            }
            longest
        }))
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// The longest wait of one write.
    pub async fn finish(self) -> Duration {
        eventually("everything is written", || async {
            self.0.is_finished().then_some(())
        })
        .await;
        self.0.join().unwrap()
    }
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Polls until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = look().await {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
