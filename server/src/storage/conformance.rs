//! openraft's own test suite of a log and a state machine, against ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use barge_state::Changed;
use openraft::{
    StorageError as RaftStorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::{LogStore, Process, StateStore, applier::Observer, rocks::Identity};
use crate::raft::types::TypeConfig;

struct Nobody;

impl Observer for Nobody {
    fn applied(&self, _: Vec<Changed>) {}
    fn replaced(&self, _: u64) {}
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateStore, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateStore), RaftStorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let owner = Identity {
            cluster_id: "c".into(),
            raft_id: 0,
        };
        let process = Process::default();
        let log = LogStore::open(&dir.path().join("log"), &owner, &process).unwrap();
        let state = dir.path().join("state");
        let state = StateStore::open(&state, owner, Arc::new(Nobody), &process).unwrap();
        Ok((dir, log, state))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}
