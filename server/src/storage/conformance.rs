//! openraft's own test suite of a log and a state machine, against ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use barge_state::Changed;
use openraft::{
    StorageError as RaftStorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::{LogStore, Process, StateStore, applier::Observer, rocks::Identity};
use crate::storage::types::TypeConfig;

struct Nobody;

impl Observer for Nobody {
    fn applied(&self, _: Vec<Changed>) {}
    fn replaced(&self, _: u64) {}
}

/// Builds in one process, so that its end can be waited for.
struct Builder(Process);

impl StoreBuilder<TypeConfig, LogStore, StateStore, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateStore), RaftStorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let owner = Identity {
            cluster_id: "c".into(),
            raft_id: 0,
        };
        let process = &self.0;
        let log = LogStore::open(&dir.path().join("log"), &owner, process).unwrap();
        let state = dir.path().join("state");
        let state = StateStore::open(&state, owner, Arc::new(Nobody), process).unwrap();
        Ok((dir, log, state))
    }
}

#[test]
fn passes_the_suite_of_openraft() {
    let process = Process::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let suite = Suite::test_all(Builder(process.clone()));
    runtime.block_on(suite).unwrap();
    // A database that is open while the process runs its exit handlers would abort it.
    drop(runtime);
    assert!(process.threads.wait(Duration::from_secs(30)));
}
