//! When to take a snapshot: when the log has grown by so many bytes, whatever its entries are.

use std::time::Duration;

use tokio::sync::watch;

use super::types::Raft;
use crate::storage::state::Progress;

/// How long a snapshot may take before another one is asked for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Takes snapshots until Raft stops. `threshold` is in bytes of log.
pub async fn run(raft: Raft, mut progress: watch::Receiver<Progress>, threshold: u64) {
    loop {
        let grown = progress.wait_for(|progress| progress.bytes_since_snapshot >= threshold);
        if grown.await.is_err() || raft.trigger().snapshot().await.is_err() {
            return;
        }
        let taken = progress.wait_for(|progress| progress.bytes_since_snapshot < threshold);
        match tokio::time::timeout(PATIENCE, taken).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_) => tracing::warn!(?PATIENCE, "a snapshot takes long"),
        }
    }
}
