//! Writing.

use std::time::Duration;

use barge_proto::v1::{Outcome, Transaction};
use openraft::{async_runtime::watch::WatchReceiver, errors::ForwardReason};
use prost::Message;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Store, StoreError};
use crate::raft::types::{Command, ForwardToLeader, RaftWriteError, WriteError};

/// A transaction may have this many bytes: an entry of the log is never cut, and a message between managers has to hold it
/// with what belongs to it.
pub const MAX_TRANSACTION: usize = 2 << 20;
/// All proposals in flight together, in bytes.
pub(super) const ROOM: usize = 64 << 20;
/// What a proposal takes of the room besides its bytes.
const OVERHEAD: usize = 512;
/// How long a proposal may take by default.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long a fresh leader is left alone that waits for its first answer from a quorum.
const LEASE_POLL: Duration = Duration::from_millis(20);

impl Store {
    /// Writes, if this manager leads. When it returns `Ok` a majority has the transaction on disk and this manager has
    /// applied it; a refusal is in the outcome. Waits at most [`DEADLINE`].
    ///
    /// # Errors
    /// [`StoreError::Unknown`] alone means that it may have been applied.
    pub async fn propose(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.propose_within(transaction, DEADLINE).await
    }

    /// As [`Store::propose`], with another deadline.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] alone means that it may have been applied.
    pub async fn propose_within(
        &self,
        transaction: Transaction,
        deadline: Duration,
    ) -> Result<Outcome, StoreError> {
        let size = transaction.encoded_len();
        if size > MAX_TRANSACTION {
            return Err(StoreError::TooLarge {
                size,
                max: MAX_TRANSACTION,
            });
        }
        if self.0.stop.is_cancelled() || self.0.failure.reason().is_some() {
            return Err(StoreError::Stopped);
        }
        if *self.0.handing_over.borrow() {
            return Err(StoreError::NotLeader { leader: None });
        }
        if let Some(reason) = &*self.0.refusing.borrow() {
            return Err(StoreError::DiskFull(reason.clone()));
        }
        let permits = u32::try_from(size + OVERHEAD).unwrap_or(u32::MAX);
        let _room = self.0.room.try_acquire_many(permits).map_err(|_| {
            self.0.instruments.rejected.inc();
            StoreError::Full
        })?;
        let command = Command(transaction.encode_to_vec().into());
        let deadline = Instant::now() + deadline;
        loop {
            let mut metrics = self.0.raft.metrics();
            let write = self.0.raft.client_write(command.clone());
            let error = match timeout_at(deadline, write).await {
                Ok(Ok(response)) => return Ok(response.data),
                // In the log of a leader that hears nothing; what becomes of it is for others to decide.
                Err(_) => return Err(StoreError::Unknown),
                Ok(Err(error)) => error,
            };
            match error {
                RaftWriteError::APIError(WriteError::ForwardToLeader(forward)) => {
                    if forward.reason != ForwardReason::LeaseExpired {
                        return Err(not_leader(&forward));
                    }
                    // It was refused, so trying again is safe.
                    if Instant::now() >= deadline {
                        return Err(StoreError::NoQuorum);
                    }
                    timeout(LEASE_POLL, metrics.changed()).await.ok();
                }
                RaftWriteError::APIError(WriteError::LogEntryDiscarded(_)) => {
                    return Err(StoreError::Unknown);
                }
                // It may have reached the others before this manager failed.
                RaftWriteError::Fatal(_) => return Err(StoreError::Unknown),
                RaftWriteError::APIError(error) => {
                    tracing::error!(%error, "a write was refused as if it were a change of members");
                    return Err(StoreError::Unknown);
                }
            }
        }
    }
}

pub(super) fn not_leader(forward: &ForwardToLeader) -> StoreError {
    let leader = match forward.reason {
        // Who is to take over has not done so yet.
        ForwardReason::LeadershipTransfer => None,
        _ => forward.leader_id.zip(
            forward
                .leader_node
                .as_ref()
                .map(|node| node.address.clone()),
        ),
    };
    StoreError::NotLeader { leader }
}
