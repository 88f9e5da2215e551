//! One who writes all the time, and how long each write took.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::{runtime::Runtime, task::JoinHandle};

use crate::raw;

/// From when to when a write waited.
pub struct Wait {
    pub begin: Instant,
    pub end: Instant,
}

/// Writes until it is stopped.
pub struct Waits {
    stop: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<Vec<Wait>>>,
}

impl Waits {
    /// Begins to write to one manager.
    pub fn start(runtime: &Runtime, config: &Path, address: &str) -> anyhow::Result<Self> {
        let channels = runtime.block_on(async { raw::channels(config, address, 1) })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = runtime.spawn(async move {
            let mut waits = Vec::new();
            for number in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let begin = Instant::now();
                let object = raw::namespace(&format!("wait-{number}"), "");
                raw::apply(channels[0].clone(), vec![object]).await?;
                let end = Instant::now();
                waits.push(Wait { begin, end });
            }
            Ok(waits)
        });
        Ok(Self { stop, task })
    }

    /// Ends after the write that is under way.
    pub fn stop(self, runtime: &Runtime) -> anyhow::Result<Vec<Wait>> {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(self.task)?
    }
}
