//! Keeping on disk what probes have found, before anybody is told.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Prober;

/// At least, between two writes of what is known.
const SAVE_EVERY: Duration = Duration::from_millis(20);
/// For how long a container that became ready waits for the disk before that is told all the same.
const WRITE: Duration = Duration::from_secs(1);
/// Between two tries after a write failed.
const SAVE_AGAIN: Duration = Duration::from_secs(30);

impl Prober {
    /// Keeps on disk what is known, and then tells it. A disk that fails or hangs holds up nobody for long.
    pub(super) async fn save(&self, stop: &CancellationToken) {
        let mut saved = None;
        loop {
            self.0.learnt.notified().await;
            let known = self.known();
            // Workers that end take their containers off the board, and these run on.
            if stop.is_cancelled() {
                return;
            }
            let mut pause = SAVE_EVERY;
            if saved.as_ref() != Some(&known) {
                let begun = Instant::now();
                let mut saving = std::pin::pin!(self.0.file.save(known.clone()));
                let written = match timeout(WRITE, &mut saving).await {
                    Ok(written) => written,
                    Err(_) => self.publish_until(saving).await,
                };
                // A slow disk is left to others for most of the time, and holds up what comes next no longer than one write.
                pause = (4 * begun.elapsed()).clamp(SAVE_EVERY, WRITE);
                match written {
                    Ok(()) => saved = Some(known.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "cannot save which containers are ready; an agent that starts now asks them anew");
                        self.publish_until(sleep(SAVE_AGAIN)).await;
                        self.0.learnt.notify_one();
                    }
                }
            }
            self.board().publish(&known);
            sleep(pause).await;
        }
    }

    /// Tells what is known, although it is not on disk, until then.
    async fn publish_until<T>(&self, until: impl Future<Output = T>) -> T {
        let mut until = std::pin::pin!(until);
        loop {
            let known = self.known();
            self.board().publish(&known);
            tokio::select! {
                biased;
                done = &mut until => {
                    // What came last may have been taken for what is on disk.
                    self.0.learnt.notify_one();
                    return done;
                }
                () = self.0.learnt.notified() => {}
            }
        }
    }
}
