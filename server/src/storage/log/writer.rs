//! The one thread that writes the log: it gathers queued writes, writes and syncs them at once, and only then
//! reports them, in order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{Shared, disk::Disk};
use crate::{
    runtime::allocators,
    storage::{
        Point, Points, StorageError,
        codec::entry_size,
        types::{Entry, IoFlushed, LogId, Vote},
    },
};

/// A batch is closed when it has this many bytes.
const BATCH_BYTES: usize = 8 << 20;

/// What the log is asked to do, in order.
pub enum Command {
    /// `epoch` is the tail's when they were appended.
    Append {
        entries: Vec<Entry>,
        epoch: u64,
        done: IoFlushed,
    },
    /// Answered when it is durable.
    Vote {
        vote: Vote,
        done: oneshot::Sender<()>,
    },
    Committed(Option<LogId>),
    /// Removes everything from this index on.
    TruncateFrom(u64),
    /// Removes everything up to this entry.
    Purge(LogId),
    /// Writes up to where everything is on disk: a write-ahead log that was just begun says nothing of that yet.
    Testify,
}

/// Writes until a write fails. Returns when all senders are gone, also then: who waits for the thread's end opens the database
/// again.
pub fn run(mut commands: mpsc::Receiver<Command>, shared: &Arc<Shared>) {
    while let Some(first) = commands.blocking_recv() {
        let mut bytes = first.size();
        let mut gathered = vec![first];
        while bytes < BATCH_BYTES
            && let Ok(next) = commands.try_recv()
        {
            bytes += next.size();
            gathered.push(next);
        }
        let batch = Batch {
            commands: gathered,
            bytes,
        };
        if let Err(error) = batch.commit(shared) {
            // Later batches must not be written: their success would hide this one's failure.
            shared
                .process
                .failure
                .report(&format!("the log cannot be written: {error}"));
            while let Some(command) = commands.blocking_recv() {
                command.fail(&error);
            }
        }
        allocators::follow();
    }
}

impl Command {
    /// About how many bytes it writes.
    fn size(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(entry_size).sum(),
            _ => 0,
        }
    }

    fn fail(self, error: &StorageError) {
        // A caller that waits for a vote sees its channel close.
        if let Self::Append { done, .. } = self {
            done.io_completed(Err(std::io::Error::other(error.to_string())));
        }
    }
}

struct Batch {
    commands: Vec<Command>,
    /// About how many bytes they write.
    bytes: usize,
}

impl Batch {
    /// Writes all of them at once, and answers how long that took if it waited for the disk.
    fn write(&self, disk: &Disk) -> Result<Option<Duration>, StorageError> {
        let mut writes = disk.begin(self.bytes)?;
        for command in &self.commands {
            match command {
                Command::Append { entries, .. } => writes.append(entries),
                Command::Vote { vote, .. } => writes.vote(vote),
                Command::Committed(id) => writes.committed(*id),
                Command::TruncateFrom(first) => writes.truncate_from(*first),
                Command::Purge(upto) => writes.purge(upto),
                Command::Testify => writes.sync = true,
            }
        }
        let (synced, begun) = (writes.sync, Instant::now());
        disk.write(writes)?;
        // Entries are soon followed by how far they are committed; a vote may stay the last write for long, and rot
        // in the last write cannot be told from a power cut.
        let voted = |command: &Command| matches!(command, Command::Vote { .. });
        if self.commands.iter().any(voted) {
            disk.write(disk.begin(0)?)?;
        }
        Ok(synced.then(|| begun.elapsed()))
    }

    fn commit(self, shared: &Arc<Shared>) -> Result<(), StorageError> {
        let points = &shared.process.points;
        pass(points, &self.commands, false);
        let written = self.write(&shared.disk);
        if let Ok(Some(took)) = written {
            shared.syncs.observe(took.as_secs_f64());
        }
        let commands = self.commands;
        if let Err(error) = written {
            for command in commands {
                command.fail(&error);
            }
            return Err(error);
        }
        pass(points, &commands, true);
        for command in commands {
            match command {
                Command::Append {
                    entries,
                    epoch,
                    done,
                } => {
                    if let Some(last) = entries.last() {
                        shared.tail().written(epoch, last.log_id.index);
                    }
                    done.io_completed(Ok(()));
                }
                Command::Vote { vote, done } => {
                    *shared.vote() = Some(vote);
                    // The receiver is gone only when Raft is being shut down.
                    done.send(()).ok();
                }
                Command::Purge(upto) => {
                    if let Err(error) = shared.disk.reclaim_upto(upto.index) {
                        tracing::warn!(%error, "purged entries still take space");
                    }
                }
                Command::Committed(_) | Command::TruncateFrom(_) | Command::Testify => {}
            }
        }
        Ok(())
    }
}

/// Names the moments before or after the sync of a batch.
fn pass(points: &Points, commands: &[Command], synced: bool) {
    for command in commands {
        match (command, synced) {
            (Command::Append { .. }, false) => points.pass(Point::AppendBeforeSync),
            (Command::Append { .. }, true) => points.pass(Point::AppendAfterSync),
            (Command::Vote { .. }, false) => points.pass(Point::VoteBeforeSync),
            (Command::Vote { .. }, true) => points.pass(Point::VoteAfterSync),
            (Command::Purge(_), false) => points.pass(Point::PurgeBeforeSync),
            (Command::Purge(_), true) => points.pass(Point::PurgeBeforeReclaim),
            (Command::Committed(_) | Command::TruncateFrom(_) | Command::Testify, _) => {}
        }
    }
}
