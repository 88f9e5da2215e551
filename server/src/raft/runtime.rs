//! Raft's own thread. Nothing else runs on it, so a heartbeat waits for nobody's TLS, requests or compaction.

use std::{future::Future, io};

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::storage::Threads;

/// A thread with a runtime; it ends when it is stopped or dropped, and with it all that was spawned on it.
#[derive(Debug)]
pub struct RaftThread {
    handle: Handle,
    stop: CancellationToken,
}

impl RaftThread {
    /// Starts the thread.
    pub fn start(threads: &Threads) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        threads.spawn("barge-raft", move || {
            runtime.block_on(stopped.cancelled());
        })?;
        Ok(Self { handle, stop })
    }

    /// Runs a future on the thread.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }
}

impl Drop for RaftThread {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
