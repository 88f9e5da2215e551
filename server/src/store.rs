//! The handle that everything in a manager uses to read, to write and to watch.

mod batch;
pub mod heads;
mod housekeeping;
mod instruments;
mod leadership;
mod members;
mod open;
mod propose;
mod reach;
mod reads;
mod room;
mod space;
mod status;
pub mod transaction;
mod transfer;
pub mod watch;

use std::sync::Arc;

use barge_proto::v1::Transaction;
use barge_state::{Applied, Changed, Expired, State};
use tokio::sync::{Semaphore, mpsc, oneshot, watch as tokio_watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    housekeeping::Memory,
    instruments::Instruments,
    leadership::Leadership,
    members::{MemberChange, MemberError, Members},
    open::{OpenError, Options},
    status::{Member, RaftStatus},
    watch::{Lagged, Scope, Scopes, Watch},
};
use self::{room::ClientRoom, watch::Hub};
use crate::{
    raft::{Channels, Contact, service::RaftService},
    runtime::thread::RuntimeThread,
    storage::{
        Failure, LogStore, Pinned, StateStore,
        lock::By,
        space::Space,
        types::{Node, Raft, RaftId},
    },
};

/// Why a read or a write did not happen, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// This manager does not lead. Nothing was done; ask the leader.
    #[error("this manager does not lead")]
    NotLeader {
        /// Raft id and address of the leader, if it is known.
        leader: Option<(u64, String)>,
    },
    /// No majority of managers could be reached in time. Nothing was done; a retry may help.
    #[error("no majority of managers can be reached")]
    NoQuorum,
    /// The write was sent to the others and its outcome did not become known in time: it may have been or may still be
    /// applied. Only a retry with the same request id is safe.
    #[error("the outcome of the write is not known")]
    Unknown,
    /// Too much is being written at the moment. Nothing was done; retry a little later.
    #[error("too many writes are in progress")]
    Full,
    /// The transaction is larger than what fits into one entry of the log. Nothing was done.
    #[error("the transaction has {size} bytes, at most {max} are possible")]
    TooLarge {
        /// Of this transaction, in bytes.
        size: usize,
        /// In bytes.
        max: usize,
    },
    /// This manager, or too many others, have less space on their disks than they need. Nothing was done; reads go on.
    #[error("the disks of managers run full: {0}")]
    DiskFull(Arc<str>),
    /// This manager is being stopped, or cannot go on. Nothing was done; ask another one.
    #[error("this manager has stopped")]
    Stopped,
}

impl StoreError {
    /// Whether the same call may succeed a little later, here or at the leader, without a risk of doing it twice.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. } | Self::NoQuorum | Self::Full | Self::Stopped
        )
    }
}

/// A manager's replicated state. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    id: RaftId,
    node: Node,
    raft: Raft,
    channels: Channels,
    log: LogStore,
    state: StateStore,
    instruments: Instruments,
    /// Of this manager's disk.
    space: tokio_watch::Receiver<Space>,
    /// Why nothing is written although this manager leads.
    refusing: tokio_watch::Receiver<Option<Arc<str>>>,
    contact: Contact,
    hub: Arc<Hub>,
    failure: Failure,
    leadership: tokio_watch::Receiver<Leadership>,
    members: tokio_watch::Receiver<Members>,
    /// True while leadership is being handed over: nothing is proposed.
    handing_over: tokio_watch::Sender<bool>,
    reads: mpsc::Sender<oneshot::Sender<Result<(), StoreError>>>,
    /// Bytes of proposals in flight.
    room: Arc<Semaphore>,
    client_room: Arc<ClientRoom>,
    proposals: mpsc::Sender<batch::Proposal>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends Raft's thread when the last handle goes.
    _thread: RuntimeThread,
}

impl Store {
    /// Calls `f` with what this manager has applied. Keep it short and without blocking: while it runs nothing is applied.
    pub fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        self.read_by(By::Lookup, f)
    }

    /// As [`Store::read`], measured by what it is for.
    pub fn read_by<T>(&self, by: By, f: impl FnOnce(&State) -> T) -> T {
        self.0.state.read(by, f)
    }

    /// What applying a transaction to this manager's state would answer and change; nothing is changed. Those that are asked for at the
    /// same time wait for each other.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when this manager cannot go on.
    pub async fn rehearse(&self, transaction: Transaction) -> Result<Applied, StoreError> {
        let rehearsed = self.0.state.rehearse(transaction).await;
        rehearsed.map_err(|_| StoreError::Stopped)
    }

    /// Watches what changes after a revision, from what this manager applies.
    ///
    /// # Errors
    /// [`Expired`] when the changes after that revision are not kept any more: list again.
    pub fn watch(&self, after: u64, scopes: impl Into<Scopes>) -> Result<Watch, Expired> {
        self.0.hub.watch(after, scopes)
    }

    /// Calls `look` with what changed after a revision and up to another, in order.
    ///
    /// # Errors
    /// [`Expired`] when the changes after that revision are not kept any more.
    pub fn changes(
        &self,
        after: u64,
        up_to: u64,
        look: impl FnMut(&Changed),
    ) -> Result<(), Expired> {
        self.0.hub.changes(after, up_to, look)
    }

    /// How many watches there are on this manager.
    pub fn watches(&self) -> usize {
        self.0.hub.len()
    }

    /// Waits until this manager's state is at least at this revision; until then for ever.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when that cannot happen any more.
    pub async fn wait_applied(&self, revision: u64) -> Result<(), StoreError> {
        let mut progress = self.0.state.progress();
        tokio::select! {
            reached = progress.wait_for(|progress| progress.revision >= revision) => {
                reached.map(drop).map_err(|_| StoreError::Stopped)
            }
            () = self.0.stop.cancelled() => Err(StoreError::Stopped),
            _ = self.0.failure.wait() => Err(StoreError::Stopped),
        }
    }

    /// The leader, as far as this manager knows, and every change of it.
    pub fn leadership(&self) -> tokio_watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// This manager's Raft id.
    pub fn id(&self) -> RaftId {
        self.0.id
    }

    /// What other managers need to reach this one's Raft; mount it with the other services.
    pub fn service(&self) -> RaftService {
        RaftService::new(
            self.0.id,
            self.0.raft.clone(),
            self.0.state.clone(),
            self.0.space.clone(),
            self.0.contact.clone(),
            self.0.stop.clone(),
        )
    }

    /// The state with everything that was acknowledged before the call, to be read at leisure while this manager goes on.
    ///
    /// # Errors
    /// As [`Store::read_index`]; [`StoreError::Stopped`] when the state cannot be copied, which is logged.
    pub async fn pin(&self) -> Result<Pinned, StoreError> {
        self.read_index().await?;
        self.0.state.pin().await.map_err(|error| {
            tracing::error!(%error, "cannot copy the state");
            StoreError::Stopped
        })
    }

    /// Waits until this manager cannot go on, and says why. The process should exit with the reason then, and be started
    /// afresh.
    pub async fn failed(&self) -> Arc<str> {
        self.0.failure.wait().await
    }
}
