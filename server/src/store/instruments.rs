//! The store's own metrics.

use std::time::SystemTime;

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use super::{Store, propose};
use crate::storage::lock::LockTimes;

/// The store's own instruments; clones share them.
#[derive(Debug, Clone)]
pub struct Instruments {
    /// Writing a batch of the log with its fsync, in seconds.
    pub log_syncs: Histogram,
    /// Leaders that this manager has seen come.
    pub leader_changes: Counter,
    /// Writes that were refused because too many were in progress.
    pub rejected: Counter,
    /// How long the state's lock is held and waited for.
    pub lock: LockTimes,
}

impl Store {
    /// What is measured.
    pub fn instruments(&self) -> Instruments {
        self.0.instruments.clone()
    }

    /// About how many bytes of log there are on disk.
    pub fn log_bytes(&self) -> u64 {
        self.0.log.size()
    }

    /// When the last snapshot was taken or received; absent when there is none.
    pub fn snapshot_taken(&self) -> Option<SystemTime> {
        self.0.state.snapshot_taken()
    }

    /// Bytes of the writes that are in progress.
    pub fn in_flight_bytes(&self) -> u64 {
        propose::ROOM.saturating_sub(self.0.room.available_permits()) as u64
    }
}
