//! Writing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use barge_proto::v1::{Outcome, Transaction};
use prost::Message;
use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time::{Instant, timeout_at},
};

use super::{Store, StoreError, batch::Proposal, room::NoRoom};

/// A transaction may have this many bytes: an entry of the log is never cut, and a message between managers has to hold it
/// with what belongs to it.
pub const MAX_TRANSACTION: usize = 2 << 20;
/// All proposals in flight together, in bytes.
pub(super) const ROOM: usize = 64 << 20;
/// What a proposal takes of the room besides its bytes.
pub(super) const OVERHEAD: usize = 512;
/// How long a proposal may take by default.
pub const DEADLINE: Duration = Duration::from_secs(5);

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
        let place = self
            .0
            .client_room
            .enter(&transaction.principal, size + OVERHEAD)
            .map_err(|NoRoom| {
                self.0.instruments.rejected.inc();
                StoreError::Full
            })?;
        let permits = u32::try_from(size + OVERHEAD).unwrap_or(u32::MAX);
        let room = self.0.room.clone();
        let room = room.try_acquire_many_owned(permits).map_err(|_| {
            self.0.instruments.rejected.inc();
            StoreError::Full
        })?;
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + deadline;
        let taken = Arc::new(AtomicBool::new(false));
        let proposal = Proposal {
            transaction,
            size,
            deadline,
            taken: taken.clone(),
            answer,
            _room: (room, place),
        };
        self.0.proposals.try_send(proposal).map_err(|error| {
            match error {
                // It has no less room than the proposals in flight.
                TrySendError::Full(_) => StoreError::Full,
                TrySendError::Closed(_) => StoreError::Stopped,
            }
        })?;
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            // Withdrawn in time: it was never proposed.
            _ if !taken.swap(true, Ordering::AcqRel) => Err(StoreError::NoQuorum),
            _ => Err(StoreError::Unknown),
        }
    }
}
