//! The threads that own databases: the process must not end before they have.
//!
//! When a database is open while the process runs its exit handlers, RocksDB's own threads go on using data that the handlers
//! have destroyed.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Counts threads that run. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Threads(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    count: Mutex<usize>,
    ended: Condvar,
}

impl Threads {
    /// Starts a thread. What the function owns is dropped before it counts as ended.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let guard = Guard::new(self.0.clone());
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Dropped last, also when the function panics.
                let _guard = guard;
                run();
            })?;
        Ok(())
    }

    /// Waits until all have ended, for at most this long. Answers whether they have.
    #[must_use]
    pub fn wait(&self, within: Duration) -> bool {
        let count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .0
            .ended
            .wait_timeout_while(count, within, |count| *count > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

struct Guard(Arc<Running>);

impl Guard {
    fn new(running: Arc<Running>) -> Self {
        *running.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(running)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn waits_for_what_runs_and_not_for_ever() {
        let threads = Threads::default();
        assert!(threads.wait(Duration::ZERO), "nothing was started");
        let (stop, stopped) = mpsc::channel::<()>();
        threads
            .spawn("t", move || {
                stopped.recv().ok();
            })
            .unwrap();
        assert!(!threads.wait(Duration::from_millis(10)));
        drop(stop);
        assert!(threads.wait(Duration::from_secs(30)));
    }
}
