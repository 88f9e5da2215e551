//! Proposals travel in batches: those that come in while entries are on their way to a quorum go into the next entry
//! together. An entry costs every manager an fsync's worth of work and several wake-ups, however little is in it.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use barge_proto::v1::{Outcome, Transaction};
use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{async_runtime::watch::WatchReceiver, errors::ForwardReason};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::{Duration, Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Leadership, StoreError, propose, room::Place};
use crate::storage::{
    state::Progress,
    types::{Command, Encoder, ForwardToLeader, Raft, RaftWriteError, WriteError},
};

/// Proposals that may wait; they have no more [room](propose::ROOM) than that.
pub(super) const QUEUE: usize = propose::ROOM / propose::OVERHEAD;
/// Entries on their way.
const IN_FLIGHT: usize = 2;
/// An entry that has as many bytes does not wait for the one before it. A smaller one does, and what comes in meanwhile goes with it:
/// it would cost every manager as much as a large one.
const LARGE: usize = 192 << 10;
/// An entry that has as many bytes takes no further transaction.
const ENTRY: usize = 1 << 20;
/// How long a fresh leader is left alone that waits for its first answer from a quorum.
const LEASE_POLL: Duration = Duration::from_millis(20);

type Answer = Result<Outcome, StoreError>;

/// A transaction to be written.
pub(super) struct Proposal {
    pub transaction: Transaction,
    /// Its size in bytes, encoded.
    pub size: usize,
    /// When its caller gives up.
    pub deadline: Instant,
    /// Whether its fate is settled: it was proposed, or its caller gave up before.
    pub taken: Arc<AtomicBool>,
    /// The caller that waits.
    pub answer: oneshot::Sender<Answer>,
    /// What it takes of the room for proposals.
    pub _room: (OwnedSemaphorePermit, Option<Place>),
}

/// Proposes what comes in, until `stop`.
pub(super) async fn run(
    raft: Raft,
    mut leadership: watch::Receiver<Leadership>,
    progress: watch::Receiver<Progress>,
    mut proposals: mpsc::Receiver<Proposal>,
    stop: CancellationToken,
) {
    let mut staged = Staged::default();
    let mut encoder = Encoder::default();
    let mut writes = FuturesUnordered::new();
    // Entries of an earlier leadership: they may take long to be committed, and no caller waits for them.
    let mut undecided = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(()) = writes.next() => undecided = writes.len().min(undecided),
            Ok(()) = leadership.changed() => undecided = writes.len(),
            next = proposals.recv(), if staged.has_room() => match next {
                Some(next) => staged.add(next, &mut proposals),
                None => break,
            },
        }
        // A manager that does not lead refuses at once.
        let leads = leadership.borrow().is_leader;
        while !staged.proposals.is_empty()
            && (!leads || staged.may_follow(writes.len() - undecided))
        {
            let mut batch = staged.take();
            if !batch.is_empty() {
                let transactions = batch.iter_mut();
                let transactions =
                    transactions.map(|proposal| mem::take(&mut proposal.transaction));
                let level = progress.borrow().feature_level;
                let command = encoder.command(transactions.collect(), level);
                writes.push(write(&raft, batch, command));
            }
        }
    }
    proposals.close();
    let waiting = staged.proposals.into_iter().chain(staged.next);
    waiting.for_each(stopped);
    while let Some(proposal) = proposals.recv().await {
        stopped(proposal);
    }
    while writes.next().await.is_some() {}
}

fn stopped(proposal: Proposal) {
    // A caller that gave up needs no answer.
    proposal.answer.send(Err(StoreError::Stopped)).ok();
}

/// What goes into the next entry: in order, as much as there is and fits.
#[derive(Default)]
struct Staged {
    proposals: Vec<Proposal>,
    bytes: usize,
    /// What did not fit: the first of the entry after it.
    next: Option<Proposal>,
}

impl Staged {
    fn has_room(&self) -> bool {
        self.next.is_none()
    }

    /// Whether it may be proposed while so many entries are on their way.
    fn may_follow(&self, entries: usize) -> bool {
        entries == 0 || entries < IN_FLIGHT && self.bytes >= LARGE
    }

    /// Adds a proposal, and those that wait behind it.
    fn add(&mut self, proposal: Proposal, waiting: &mut mpsc::Receiver<Proposal>) {
        self.push(proposal);
        while self.has_room()
            && let Ok(next) = waiting.try_recv()
        {
            self.push(next);
        }
    }

    fn push(&mut self, proposal: Proposal) {
        let bytes = proposal.size;
        match self.bytes > 0 && self.bytes + bytes > ENTRY {
            true => self.next = Some(proposal),
            false => {
                self.bytes += bytes;
                self.proposals.push(proposal);
            }
        }
    }

    /// The proposals for the next entry, without those whose callers gave up.
    fn take(&mut self) -> Vec<Proposal> {
        self.bytes = 0;
        let mut batch = mem::take(&mut self.proposals);
        if let Some(next) = self.next.take() {
            self.push(next);
        }
        batch.retain(|proposal| !proposal.taken.swap(true, Ordering::AcqRel));
        batch
    }
}

/// Writes an entry, and answers all whose transactions are in it.
async fn write(raft: &Raft, batch: Vec<Proposal>, command: Command) {
    let deadlines = batch.iter().map(|proposal| proposal.deadline);
    let (first, last) = deadlines.fold(None, bounds).unwrap_or_else(|| {
        let now = Instant::now();
        (now, now)
    });
    match propose(raft, command, first, last).await {
        Ok(outcomes) => {
            let mut outcomes = outcomes.into_iter();
            for proposal in batch {
                // `apply` gives an outcome for each transaction.
                let outcome = outcomes.next().ok_or(StoreError::Unknown);
                proposal.answer.send(outcome).ok();
            }
        }
        Err(error) => {
            for proposal in batch {
                proposal.answer.send(Err(error.clone())).ok();
            }
        }
    }
}

fn bounds(bounds: Option<(Instant, Instant)>, next: Instant) -> Option<(Instant, Instant)> {
    let (first, last) = bounds.unwrap_or((next, next));
    Some((first.min(next), last.max(next)))
}

/// `first` and `last` are the times at which the first and the last waiting caller give up.
async fn propose(
    raft: &Raft,
    command: Command,
    first: Instant,
    last: Instant,
) -> Result<Vec<Outcome>, StoreError> {
    let mut metrics = raft.metrics();
    loop {
        let write = raft.client_write(command.clone());
        let error = match timeout_at(last, write).await {
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
                // It was refused, so trying again is safe, and so is answering that while the caller waits.
                if Instant::now() + LEASE_POLL >= first {
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

pub(super) fn not_leader(forward: &ForwardToLeader) -> StoreError {
    let leader = match forward.reason {
        // The new leader has not taken over yet.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::Semaphore;

    use super::*;

    fn proposal(room: &Arc<Semaphore>, size: usize) -> Proposal {
        Proposal {
            transaction: Transaction::default(),
            size,
            deadline: Instant::now() + Duration::from_secs(5),
            taken: Arc::default(),
            answer: oneshot::channel().0,
            _room: (room.clone().try_acquire_owned().unwrap(), None),
        }
    }

    #[tokio::test]
    async fn an_entry_takes_what_fits_and_what_is_still_wanted() {
        let room = Arc::new(Semaphore::new(100));
        let (send, mut queue) = mpsc::channel(100);
        for waiting in [
            proposal(&room, ENTRY - 20),
            proposal(&room, 10),
            proposal(&room, 10),
            proposal(&room, 2 * ENTRY),
            proposal(&room, 1),
        ] {
            send.try_send(waiting).unwrap();
        }
        drop(send);
        let mut staged = Staged::default();
        let mut entries: Vec<Vec<usize>> = Vec::new();
        while let Some(first) = queue.recv().await {
            staged.add(first, &mut queue);
            if let Some(second) = staged.proposals.get(1) {
                // The caller gives up while the entry before this one is on its way.
                second.taken.store(true, Ordering::Release);
            }
            while !staged.proposals.is_empty() {
                let batch = staged.take();
                entries.push(batch.iter().map(|p| p.size).collect());
            }
        }
        // One that is larger than an entry should be is one of its own.
        assert_eq!(entries, [vec![ENTRY - 20, 10], vec![2 * ENTRY], vec![1]]);
        assert_eq!(room.available_permits(), 100);
    }
}
