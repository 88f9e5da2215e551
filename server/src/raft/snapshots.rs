//! When to take a snapshot and what to purge: by the bytes of the log, whatever its entries are.
//!
//! The log is purged up to the snapshot before the last one, so a follower that was away for a moment finds at least one
//! snapshot's worth of log, and needs no snapshot itself.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use super::types::Raft;
use crate::storage::state::Progress;

/// How long a snapshot may take before another one is asked for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Takes snapshots until Raft stops. `threshold` is in bytes of log.
pub async fn run(raft: Raft, mut progress: watch::Receiver<Progress>, threshold: u64) {
    loop {
        let grown = progress.wait_for(|progress| progress.bytes_since_snapshot >= threshold);
        if grown.await.is_err() {
            return;
        }
        let before = raft.metrics().borrow_watched().snapshot.map(|id| id.index);
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        let taken = progress.wait_for(|progress| progress.bytes_since_snapshot < threshold);
        match tokio::time::timeout(PATIENCE, taken).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::warn!(?PATIENCE, "a snapshot takes long");
                continue;
            }
        }
        if let Some(before) = before
            && raft.trigger().purge_log(before).await.is_err()
        {
            return;
        }
    }
}
