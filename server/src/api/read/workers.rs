//! Threads for long work on lists, so that other calls do not wait for it.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::error::ApiError;

/// Pieces of work that go on at a time; more wait for their turn.
const AT_ONCE: usize = 2;

/// The turns. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Semaphore>);

impl Default for Workers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Workers {
    /// Does a piece of work, first come, first served.
    ///
    /// # Errors
    /// INTERNAL when it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = self.0.clone().acquire_owned().await;
        let done = spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        done.await
            .map_err(|error| ApiError::Internal(format!("make a list: {error}")))
    }
}
