//! When to take a snapshot and what to purge: by the bytes of the log, whatever its entries are.
//!
//! The log is purged up to the snapshot before the last one, so a follower that was away for a moment finds at least one
//! snapshot's worth of log, and needs no snapshot itself.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use crate::storage::{state::Progress, types::Raft};

/// How long a snapshot may take before another one is asked for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Takes snapshots until Raft stops. `threshold` is in bytes of log.
pub async fn run(raft: Raft, mut progress: watch::Receiver<Progress>, threshold: u64) {
    loop {
        let grown = progress.wait_for(|progress| progress.bytes_since_snapshot >= threshold);
        if grown.await.is_err() {
            return;
        }
        let before = snapshot(&raft);
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        match tokio::time::timeout(PATIENCE, newer(&raft, before)).await {
            Ok(true) => {}
            Ok(false) => return,
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

/// Up to where Raft's newest snapshot is.
fn snapshot(raft: &Raft) -> Option<u64> {
    raft.metrics().borrow_watched().snapshot.map(|id| id.index)
}

/// Waits until Raft knows of a newer snapshot; that there is one on disk is not enough, because until Raft has heard of it
/// another trigger is ignored. False when Raft has stopped.
async fn newer(raft: &Raft, before: Option<u64>) -> bool {
    let mut metrics = raft.metrics();
    loop {
        if metrics.borrow_watched().snapshot.map(|id| id.index) > before {
            return true;
        }
        if metrics.changed().await.is_err() {
            return false;
        }
    }
}
