//! `leader-restart`: the longest that a write waits when the leader is stopped as planned, and started again.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use barge_client::{
    ApplyOptions, Client, ClientOptions,
    config::Config,
    v1::{Namespace, Object, ObjectMeta, object},
};
use tokio::{runtime::Runtime, task::JoinHandle};

use super::report::{Row, milliseconds};
use crate::{Managers, eventually};

const RUNS: usize = 20;
const MANAGERS: usize = 3;
/// Writes that each writer has made before and after each restart.
const STEADY: u64 = 20;

/// Restarts whoever leads under a steady stream of writes: one writer for each manager, whose client asks that one first.
///
/// # Errors
/// When a write fails: a planned restart costs none.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let mut managers = Managers::up(MANAGERS);
    let (mut waits, mut quiet, mut stops) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let leader = managers.leader();
        let writers = (0..MANAGERS)
            .map(|first| {
                let order: Vec<_> = (0..MANAGERS).map(|n| (first + n) % MANAGERS).collect();
                Writer::start(&runtime, &managers.config_of(&order), first)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        wait_for_more(&writers);
        let undisturbed = Instant::now();
        wait_for_more(&writers);
        let begin = Instant::now();
        managers.stop(leader);
        stops.push(milliseconds(begin.elapsed()));
        wait_for_more(&writers);
        managers.start(leader, &[]);
        managers.wait_until_caught_up();
        wait_for_more(&writers);
        let mut writes = Vec::new();
        for writer in writers {
            writes.extend(writer.stop(&runtime)?);
        }
        let longest = |from: Instant, to: Instant| {
            let between = writes
                .iter()
                .filter(|write| write.end >= from && write.begin < to);
            let waits = between.map(|write| write.end - write.begin);
            milliseconds(waits.max().unwrap_or_default())
        };
        waits.push(longest(begin, Instant::now()));
        quiet.push(longest(undisturbed, begin));
    }
    Ok(vec![
        Row::least("leader-restart", "ms", &waits),
        Row::least("leader-restart, before it", "ms", &quiet),
        Row::least("leader-restart, SIGTERM to exit", "ms", &stops),
    ])
}

struct Write {
    begin: Instant,
    end: Instant,
}

/// Writes one thing after the other until it is stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    task: JoinHandle<anyhow::Result<Vec<Write>>>,
}

impl Writer {
    fn start(runtime: &Runtime, config: &Path, number: usize) -> anyhow::Result<Self> {
        let config = Config::load(config)?;
        // Connections belong to a runtime.
        let _entered = runtime.enter();
        let client = Client::from_context(config.context(None)?, ClientOptions::default())?;
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (stop.clone(), count.clone());
        let task = runtime.spawn(async move {
            let mut writes = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let value = counted.fetch_add(1, Ordering::SeqCst);
                client
                    .apply(vec![object(number, value)], &ApplyOptions::default())
                    .await?;
                writes.push(Write {
                    begin,
                    end: Instant::now(),
                });
            }
            Ok(writes)
        });
        Ok(Self { stop, count, task })
    }

    fn stop(self, runtime: &Runtime) -> anyhow::Result<Vec<Write>> {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(self.task)?
    }
}

/// Every writer goes on.
fn wait_for_more(writers: &[Writer]) {
    for writer in writers {
        let goal = writer.count.load(Ordering::SeqCst) + STEADY;
        eventually("writes go on", || {
            let count = writer.count.load(Ordering::SeqCst);
            match count >= goal || writer.task.is_finished() {
                true => Ok(()),
                false => Err(format!("{count} of {goal}")),
            }
        });
    }
}

fn object(number: usize, value: u64) -> Object {
    let namespace = Namespace {
        metadata: Some(ObjectMeta {
            name: format!("writer-{number}"),
            annotations: [("value".to_owned(), value.to_string())].into(),
            ..ObjectMeta::default()
        }),
        ..Namespace::default()
    };
    Object {
        kind: Some(object::Kind::Namespace(namespace)),
    }
}
