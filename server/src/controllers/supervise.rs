//! Starts a loop of the leader again when it fails.

use super::{
    Context,
    guard::Panicked,
    propose::{Deposed, catch_up},
    replica::Replica,
};
use barge_client::backoff::Backoff;
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// The first pause before a loop that failed begins anew, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A loop that ran for so long begins with the first pause again.
const CALM: Duration = Duration::from_secs(60);

/// The pauses of something that fails again and again.
#[derive(Debug)]
struct Pauses {
    pauses: Backoff,
    began: Instant,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            pauses: Backoff::new(PAUSES.0, PAUSES.1),
            began: Instant::now(),
        }
    }
}

impl Pauses {
    /// Waits after a failure; longer each time, unless it went well for a while.
    async fn wait(&mut self) {
        if self.began.elapsed() > CALM {
            self.pauses.reset();
        }
        sleep(self.pauses.wait()).await;
        self.began = Instant::now();
    }
}

/// Runs a loop in a task of its own until it ends by itself. One that panics begins anew after a pause, with what its last run proposed decided.
pub async fn supervise<R: Replica, F: Future<Output = Result<(), Panicked>> + Send + 'static>(
    name: &'static str,
    replica: &R,
    context: &Context,
    begin: impl Fn() -> F,
) {
    let mut pauses = Pauses::default();
    let work = async {
        loop {
            let task = AbortOnDropHandle::new(tokio::spawn(begin()));
            let panicked = match task.await {
                Ok(Ok(())) => return,
                Ok(Err(panicked)) => panicked,
                Err(error) => match error.try_into_panic() {
                    Ok(payload) => payload.into(),
                    // The runtime ends.
                    Err(_) => return,
                },
            };
            tracing::error!(%panicked, name, "a loop of the leader begins anew");
            context.meters.panicked(name);
            context.meters.restarted(name);
            pauses.wait().await;
            if let Err(Deposed) = catch_up(replica, context).await {
                return;
            }
        }
    };
    tokio::select! {
        () = context.cancel.cancelled() => {}
        () = work => {}
    }
}
