//! A state in memory that can be proposed to and watched, and loses or refuses what a test wants it
//! to.

use crate::controllers::{
    replica::{Changes, Gap, NoOutcome, Replica},
    testing::TERM,
};
use barge_proto::v1::{Outcome, Transaction};
use barge_state::{Changed, History, RecordKind, State};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::sync::watch;

/// The state; clones share it.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Mutex<(State, History)>>,
    head: watch::Sender<u64>,
    /// Proposals that get no answer although they are applied.
    pub unanswered: Arc<AtomicUsize>,
    /// Watches that lose track.
    pub gaps: Arc<AtomicUsize>,
    /// Transactions that were refused.
    pub refused: Arc<AtomicUsize>,
    /// The term in which transactions are applied.
    pub term: Arc<AtomicUsize>,
    /// Whether nothing that is proposed is decided.
    pub stalled: Arc<AtomicBool>,
    /// Whether nothing is taken to be proposed.
    pub closed: Arc<AtomicBool>,
    /// Proposals so far.
    pub proposed: Arc<AtomicUsize>,
}

impl Memory {
    pub fn new(state: State) -> Self {
        let revision = state.revision();
        Self {
            inner: Arc::new(Mutex::new((
                state,
                History::new(revision, 1 << 30, 1 << 20),
            ))),
            head: watch::Sender::new(revision),
            unanswered: Arc::default(),
            gaps: Arc::default(),
            refused: Arc::default(),
            stalled: Arc::default(),
            closed: Arc::default(),
            proposed: Arc::default(),
            term: Arc::new(AtomicUsize::new(usize::try_from(TERM).unwrap())),
        }
    }

    pub fn apply(&self, transaction: &Transaction) -> Outcome {
        let term = self.term.load(Ordering::SeqCst) as u64;
        let mut inner = self.inner.lock().unwrap();
        let applied = inner.0.apply(term, transaction.clone());
        inner.1.push(&applied.changes);
        let revision = inner.0.revision();
        drop(inner);
        self.head.send_replace(revision);
        applied.outcome
    }
}

/// Takes one from a counter, if there is any.
fn take(counter: &AtomicUsize) -> bool {
    let less = |count: usize| count.checked_sub(1);
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
}

impl Replica for Memory {
    type Changes = MemoryWatch;

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.lock().unwrap().0)
    }

    async fn propose(&self, transaction: Transaction) -> Result<Outcome, NoOutcome> {
        tokio::task::yield_now().await;
        self.proposed.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            return Err(NoOutcome::NotProposed("the disk is full".to_owned()));
        }
        if self.stalled.load(Ordering::SeqCst) {
            return Err(NoOutcome::Unknown("no quorum".to_owned()));
        }
        let outcome = self.apply(&transaction);
        if outcome.refusal.is_some() {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        if take(&self.unanswered) {
            return Err(NoOutcome::Unknown("lost".to_owned()));
        }
        Ok(outcome)
    }

    fn watch(&self, after: u64, kinds: &[RecordKind]) -> Result<MemoryWatch, Gap> {
        if take(&self.gaps) {
            return Err(Gap);
        }
        Ok(MemoryWatch {
            memory: self.clone(),
            head: self.head.subscribe(),
            seen: after,
            kinds: kinds.to_vec(),
        })
    }
}

pub struct MemoryWatch {
    memory: Memory,
    head: watch::Receiver<u64>,
    seen: u64,
    kinds: Vec<RecordKind>,
}

impl Changes for MemoryWatch {
    async fn next(&mut self) -> Result<Vec<Changed>, Gap> {
        loop {
            let seen = self.seen;
            self.head
                .wait_for(|head| *head > seen)
                .await
                .map_err(|_| Gap)?;
            if take(&self.memory.gaps) {
                return Err(Gap);
            }
            let inner = self.memory.inner.lock().unwrap();
            let mut changes: Vec<_> = inner.1.since(seen).map_err(|_| Gap)?.cloned().collect();
            self.seen = inner.0.revision();
            drop(inner);
            changes.retain(|change| change.kind().is_some_and(|kind| self.kinds.contains(&kind)));
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}
