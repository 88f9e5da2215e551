//! The trait by which loops use the replicated state. The store implements it; tests have one in memory.

use crate::{
    storage::lock::By,
    store::{Scope, Store, StoreError, Watch},
};
use barge_proto::v1::{Outcome, Transaction};
use barge_state::{Changed, RecordKind, State};
use std::future::Future;

/// The watch lost track: what was missed is not known, so everything has to be listed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes were missed")]
pub struct Gap;

/// A transaction has no outcome. Also what comes when this manager doesn't lead any more, in which case the loops are about to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoOutcome {
    /// It was not proposed, and never will be: the cluster takes no writes now. The same may be proposed later.
    #[error("{0}")]
    NotProposed(String),
    /// It was not proposed, and cannot be: it is too large.
    #[error("{0}")]
    Impossible(String),
    /// It may have been applied, or be applied later.
    #[error("{0}")]
    Unknown(String),
}

/// This manager's copy of the state, and the way to change it.
pub trait Replica: Clone + Send + Sync + 'static {
    /// A stream of changes.
    type Changes: Changes;

    /// Looks at what has been applied here. `look` must be quick: nothing is applied meanwhile.
    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T;

    /// Has a transaction applied; when it returns, `read` sees it.
    fn propose(
        &self,
        transaction: Transaction,
    ) -> impl Future<Output = Result<Outcome, NoOutcome>> + Send;

    /// The changes after a revision of records of these kinds.
    fn watch(&self, after: u64, kinds: &[RecordKind]) -> Result<Self::Changes, Gap>;
}

/// A stream of changes, in order.
pub trait Changes: Send + 'static {
    /// The next ones. Dropping the future loses none.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Changed>, Gap>> + Send;
}

impl Replica for Store {
    type Changes = Watch;

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.read_by(By::Controller, look)
    }

    async fn propose(&self, transaction: Transaction) -> Result<Outcome, NoOutcome> {
        let outcome = Store::propose(self, transaction).await;
        outcome.map_err(|error| match error {
            StoreError::Unknown => NoOutcome::Unknown(error.to_string()),
            StoreError::TooLarge { .. } => NoOutcome::Impossible(error.to_string()),
            StoreError::NotLeader { .. }
            | StoreError::NoQuorum
            | StoreError::Full
            | StoreError::DiskFull(_)
            | StoreError::Stopped => NoOutcome::NotProposed(error.to_string()),
        })
    }

    fn watch(&self, after: u64, kinds: &[RecordKind]) -> Result<Watch, Gap> {
        let scope = Scope {
            kinds: kinds.to_vec(),
            ..Scope::default()
        };
        Store::watch(self, after, scope).map_err(|_| Gap)
    }
}

impl Changes for Watch {
    async fn next(&mut self) -> Result<Vec<Changed>, Gap> {
        Watch::next(self).await.map_err(|_| Gap)
    }
}
