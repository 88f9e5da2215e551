//! Threads with a runtime of their own, for work that must not wait for other threads: Raft, and life signs.

use std::{future::Future, io};

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Threads, allocators};

/// For lookups of names, which may hang, and files: threads that are there only while they are needed.
const BLOCKING: usize = 64;

/// A thread with a runtime; it ends when it is stopped or dropped, and with it all that was spawned on it.
#[derive(Debug)]
pub struct RuntimeThread {
    handle: Handle,
    stop: CancellationToken,
}

impl RuntimeThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(name: &str, threads: &Threads) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING)
            .on_thread_park(allocators::follow)
            .build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        threads.spawn(name, move || {
            runtime.block_on(stopped.cancelled());
        })?;
        Ok(Self { handle, stop })
    }

    /// The thread's runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
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

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
