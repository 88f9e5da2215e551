//! The Raft log and vote.
//!
//! Appends are readable at once, from memory; one thread writes them behind, a whole queue with one sync, and reports
//! them in order when they are durable. Its queue is bounded, so a slow disk slows Raft down and nothing else.

pub(super) mod disk;
mod tail;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, stream};
use openraft::{OptionalSend, RaftLogReader, storage::RaftLogStorage};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{mpsc, oneshot};

use self::{disk::Disk, tail::Tail, writer::Command};
use super::{
    Context, Process, StorageError, codec,
    rocks::{Identity, Usage},
};
use crate::storage::types::{Entry, IoFlushed, LogId, LogState, TypeConfig, Vote};

/// Memory for entries that followers and `apply` read, in bytes.
const TAIL_BYTES: usize = 8 << 20;
/// An append request to a follower is cut at about this many bytes, well below tonic's limit of 4 MiB.
const REQUEST_BYTES: usize = 1 << 20;
/// Writes that may wait for the disk; each is a batch of entries already.
const QUEUE: usize = 1024;

/// A handle to the log. Clones share it; the last one to go ends its thread.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

struct Shared {
    disk: Disk,
    /// About how many bytes of entries there were when it was opened.
    loaded_bytes: u64,
    tail: Mutex<Tail>,
    vote: Mutex<Option<Vote>>,
    committed: Mutex<Option<LogId>>,
    process: Process,
    /// How long batches take that are synced, in seconds.
    syncs: Histogram,
}

impl Shared {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        lock(&self.tail)
    }

    fn vote(&self) -> MutexGuard<'_, Option<Vote>> {
        lock(&self.vote)
    }
}

/// No invariant spans a panic: each critical section is a few assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStore {
    /// Opens the log in `path`, which belongs to `owner`, or makes an empty one. Its thread ends after the last handle; the
    /// database is closed then.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when something that was acknowledged is missing or cannot be read.
    pub fn open(path: &Path, owner: &Identity, process: &Process) -> Result<Self, StorageError> {
        let opened = Disk::open(path, owner).and_then(|disk| Ok((disk.load()?, disk)));
        let (loaded, disk) = opened.map_err(|error| error.damaged(path))?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            disk,
            loaded_bytes: loaded.bytes,
            tail: Mutex::new(Tail::new(loaded.purged, loaded.last, TAIL_BYTES)),
            vote: Mutex::new(loaded.vote),
            committed: Mutex::new(loaded.committed),
            process: process.clone(),
            // From 50 µs to 3 s.
            syncs: Histogram::new(exponential_buckets(0.000_05, 2.0, 17)),
        });
        let written = shared.clone();
        process
            .threads
            .spawn("barge-log", move || writer::run(queue, &written))
            .context("start the log's thread")?;
        Ok(Self { shared, commands })
    }

    /// Where the log lies: what was purged last and what its last entry is; nothing for one that was never written to.
    pub fn span(&self) -> Option<(Option<LogId>, Option<LogId>)> {
        let tail = self.shared.tail();
        let written = tail.last().is_some() || self.shared.vote().is_some();
        written.then(|| (tail.purged(), tail.last()))
    }

    /// How long batches take that are synced, in seconds.
    pub fn syncs(&self) -> Histogram {
        self.shared.syncs.clone()
    }

    /// About how many bytes of entries there were when it was opened.
    pub fn loaded_bytes(&self) -> u64 {
        self.shared.loaded_bytes
    }

    /// About how many bytes of log there are on disk.
    pub fn size(&self) -> u64 {
        self.shared.disk.size()
    }

    /// What the database takes in memory.
    pub fn usage(&self) -> Usage {
        self.shared.disk.usage()
    }

    /// What the entries in memory take, in bytes.
    pub fn tail_bytes(&self) -> usize {
        self.shared.tail().bytes()
    }

    /// Forgets the oldest entries in memory, which are on disk, until the rest fits into so many bytes.
    pub fn forget_tail(&self, bytes: usize) {
        self.shared.tail().shrink(bytes);
    }

    /// Moves what the database holds in memory to files; appends go on meanwhile.
    ///
    /// # Errors
    /// What the database says.
    pub async fn flush(&self) -> io::Result<()> {
        let shared = self.shared.clone();
        let flushed = tokio::task::spawn_blocking(move || shared.disk.flush()).await;
        flushed.map_err(io::Error::other)??;
        self.send(Command::Testify).await
    }

    async fn send(&self, command: Command) -> io::Result<()> {
        // Nothing is written any more.
        if self.shared.process.failure.reason().is_some() {
            return Err(StorageError::Stopped.into());
        }
        self.commands
            .send(command)
            .await
            .map_err(|_| StorageError::Stopped.into())
    }

    /// The entries within `from..to`, up to about `limit` bytes but at least one if there is one.
    async fn read(&self, from: u64, to: u64, limit: usize) -> io::Result<Vec<Entry>> {
        'again: loop {
            let epoch = self.shared.tail().epoch();
            let mut entries = Vec::new();
            let (mut next, mut room) = (from, limit);
            loop {
                let (piece, end) = match self.shared.source(next, to, room) {
                    Source::Memory(piece) => {
                        if self.shared.tail().epoch() != epoch || !follows(&entries, &piece) {
                            continue 'again;
                        }
                        entries.extend(piece);
                        return Ok(entries);
                    }
                    Source::Disk { from, to } => {
                        // Reading the disk must not hold up Raft.
                        let shared = self.shared.clone();
                        let read = move || shared.disk.read(from, to, room);
                        let read = tokio::task::spawn_blocking(read)
                            .await
                            .map_err(io::Error::other)?;
                        match read {
                            Ok(piece) => (piece, to),
                            // Not all of its files go at once, so what was purged meanwhile may have holes.
                            Err(_) if self.shared.tail().first_index() > from => continue 'again,
                            Err(error) => return Err(error.into()),
                        }
                    }
                };
                let first = piece.first().map(|entry| entry.log_id.index);
                if !self.shared.still_valid(epoch, next..end, first)? || !follows(&entries, &piece)
                {
                    continue 'again;
                }
                let Some(last) = piece.last() else {
                    continue 'again;
                };
                next = last.log_id.index + 1;
                room = room.saturating_sub(piece.iter().map(codec::entry_size).sum());
                entries.extend(piece);
                if room == 0 {
                    return Ok(entries);
                }
            }
        }
    }
}

/// Whether a piece goes on where entries end. It does not when what is between has been purged meanwhile.
fn follows(entries: &[Entry], piece: &[Entry]) -> bool {
    let ends = entries.last().map(|entry| entry.log_id.index + 1);
    let begins = piece.first().map(|entry| entry.log_id.index);
    ends.is_none() || begins.is_none() || ends == begins
}

/// Where entries are.
enum Source {
    /// All there are of them.
    Memory(Vec<Entry>),
    /// The next of them, within these indexes.
    Disk { from: u64, to: u64 },
}

impl Shared {
    fn source(&self, from: u64, to: u64, limit: usize) -> Source {
        let tail = self.tail();
        let end = tail.last().map_or(0, |id| id.index + 1);
        let (from, to) = (from.max(tail.first_index()), to.min(end));
        if from < to && from < tail.start() {
            Source::Disk {
                from,
                to: to.min(tail.start()),
            }
        } else {
            Source::Memory(if from < to {
                tail.range(from, to, limit)
            } else {
                Vec::new()
            })
        }
    }

    /// Whether entries that were read from disk for `wanted`, beginning at `first`, are still those of the log. An error
    /// if they should have been there.
    fn still_valid(
        &self,
        epoch: u64,
        wanted: Range<u64>,
        first: Option<u64>,
    ) -> Result<bool, StorageError> {
        let tail = self.tail();
        if tail.epoch() != epoch {
            return Ok(false);
        }
        let start = wanted.start.max(tail.first_index());
        match first {
            Some(first) if first <= start => Ok(true),
            // All of it has been purged since.
            None if start >= wanted.end => Ok(false),
            _ => {
                let detail = format!("entry {start} is missing, the next one is {first:?}");
                Err(StorageError::corrupted("the log", detail))
            }
        }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(from) => from.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(to) => to.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.shared.vote())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, REQUEST_BYTES).await
    }

    /// In pieces: a manager that is far behind applies more than should be in memory at once.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let state = (self.clone(), from, to, Vec::new().into_iter());
        stream::try_unfold(state, |(log, mut next, to, mut piece)| async move {
            if let Some(entry) = piece.next() {
                return Ok(Some((entry, (log, next, to, piece))));
            }
            piece = log.read(next, to, REQUEST_BYTES).await?.into_iter();
            let Some(entry) = piece.next() else {
                return Ok(None);
            };
            next = piece.as_slice().last().unwrap_or(&entry).log_id.index + 1;
            Ok(Some((entry, (log, next, to, piece))))
        })
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState, io::Error> {
        let tail = self.shared.tail();
        Ok(LogState {
            last_purged_log_id: tail.purged(),
            last_log_id: tail.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = oneshot::channel();
        self.send(Command::Vote { vote: *vote, done }).await?;
        saved.await.map_err(|_| StorageError::Stopped.into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        *lock(&self.shared.committed) = committed;
        self.send(Command::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(*lock(&self.shared.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let epoch = {
            let mut tail = self.shared.tail();
            tail.append(&entries);
            tail.epoch()
        };
        self.send(Command::Append {
            entries,
            epoch,
            done: callback,
        })
        .await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.shared.tail().truncate_after(last_log_id);
        let first = last_log_id.map_or(0, |id| id.index + 1);
        self.send(Command::TruncateFrom(first)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.shared.tail().purge(log_id);
        self.send(Command::Purge(log_id)).await
    }
}
