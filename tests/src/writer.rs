//! A steady stream of writes, of which each can be told from the others: what is there afterwards shows whether one was lost,
//! or applied twice.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use barge_client::{ApplyOptions, Client, ClientOptions, config::Config, v1};
use barge_proto::manifest;
use tokio::runtime::Runtime;

use crate::wait::eventually;

/// A client with the current context of a credential.
///
/// # Panics
/// When the credential is of no use.
#[must_use]
pub fn client(config: &Path, deadline: Duration) -> Client {
    let config = Config::load(config).expect("read the credential");
    let context = config.context(None).expect("a current context");
    let options = ClientOptions {
        deadline,
        ..ClientOptions::default()
    };
    // Connections belong to a runtime.
    let _entered = runtime().enter();
    Client::from_context(context, options).expect("make a client")
}

/// One for all tests and threads.
///
/// # Panics
/// When it cannot be started.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("start a runtime"))
}

/// A Deployment without pods, of which each write changes one number of the spec.
///
/// # Panics
/// Never: it is a good manifest.
#[must_use]
pub fn counter(value: u64) -> v1::Object {
    // It has to be more than minReadySeconds.
    let deadline = value + 600;
    let yaml = format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: counter}}
spec:
  replicas: 0
  paused: true
  minReadySeconds: {value}
  progressDeadlineSeconds: {deadline}
  selector: {{matchLabels: {{app: counter}}}}
  template:
    metadata: {{labels: {{app: counter}}}}
    spec: {{containers: [{{name: main, image: 'my-app:1.0'}}]}}
"
    );
    let mut objects =
        manifest::parse([manifest::Source::new("counter.yaml", yaml)]).expect("a good manifest");
    objects.remove(0).object
}

/// What is there: the number written last, and how often it was changed.
///
/// # Errors
/// When it cannot be read.
pub fn read_counter(client: &Client) -> Result<(u64, u64), String> {
    let object = runtime()
        .block_on(client.get(v1::Kind::Deployment, "default", "counter"))
        .map_err(|error| error.to_string())?;
    let Some(v1::object::Kind::Deployment(deployment)) = object.kind else {
        return Err("another kind".into());
    };
    let value = deployment
        .spec
        .map_or(0, |spec| spec.min_ready_seconds as u64);
    Ok((
        value,
        deployment
            .metadata
            .map_or(0, |metadata| metadata.generation as u64),
    ))
}

/// Writes 1, 2, 3, … one after the other until it is stopped. The client repeats what was not answered.
pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    longest: Arc<Mutex<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Begins with 1, so there has to be no counter yet.
    #[must_use]
    pub fn start(config: &Path) -> Self {
        let (stop, acknowledged) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let (config, stopped, count) = (config.to_owned(), stop.clone(), acknowledged.clone());
        let wait = longest.clone();
        let thread = thread::spawn(move || {
            let client = client(&config, Duration::from_secs(60));
            for value in 1.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let begun = Instant::now();
                let written = runtime()
                    .block_on(client.apply(vec![counter(value)], &ApplyOptions::default()));
                written.unwrap_or_else(|error| panic!("write {value}: {error}"));
                count.store(value, Ordering::SeqCst);
                let mut longest = wait.lock().expect("nobody panics with it");
                *longest = longest.max(begun.elapsed());
            }
        });
        Self {
            stop,
            acknowledged,
            longest,
            thread: Some(thread),
        }
    }

    /// How many writes were acknowledged, which is the value of the last one.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The longest that one write has taken.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        *self.longest.lock().expect("nobody panics with it")
    }

    /// Waits for so many more acknowledged writes.
    ///
    /// # Panics
    /// When a write fails.
    pub fn wait_for(&self, more: u64) {
        let goal = self.acknowledged() + more;
        eventually("more acknowledged writes", || {
            assert!(
                self.thread
                    .as_ref()
                    .is_some_and(|thread| !thread.is_finished()),
                "the writer died"
            );
            let now = self.acknowledged();
            if now >= goal {
                Ok(())
            } else {
                Err(format!("{now} of {goal}"))
            }
        });
    }

    /// Ends after the write that is under way; answers how many were acknowledged.
    ///
    /// # Panics
    /// When a write was not acknowledged.
    #[must_use]
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("it was started")
            .join()
            .expect("every write was acknowledged");
        self.acknowledged()
    }
}
