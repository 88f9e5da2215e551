//! The thread that applies the log. Neither Raft's heartbeats nor TLS handshakes wait for it.

use std::{fs, io, mem, sync::Arc, time::Instant};

use barge_proto::v1::Transaction;
use barge_state::{Changed, LEVEL, State, check_understood};
use openraft::EntryPayload;
use tokio::sync::{mpsc, oneshot};

use super::{
    Context, Point, StorageError,
    codec::entry_size,
    lock::By,
    snapshot::{self, SnapshotFiles},
    state::{Progress, Shared},
    state_db::{StateDb, Writes},
};
use crate::{
    runtime::allocators,
    storage::types::{Decoder, EntryResponder, SnapshotMeta, StoredMembership},
};

/// About so many bytes of transactions are decoded, applied and written at a time: entries that are compressed take much more memory
/// than they have in the log.
const PORTION: usize = 8 << 20;

/// What the thread is asked to do, in order.
pub enum Work {
    /// Applies entries that follow the last one that was applied.
    Apply {
        entries: Vec<EntryResponder>,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Replaces the state by a snapshot.
    Install {
        meta: SnapshotMeta,
        files: SnapshotFiles,
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// Told about every change, on the thread that applies. Must be quick.
pub trait Observer: Send + Sync + 'static {
    /// These changes were applied, in order, and can be read.
    fn applied(&self, changes: Vec<Changed>);
    /// The state was replaced by a newer one, and what happened in between is not known.
    fn replaced(&self, revision: u64);
}

/// Starts the thread. It applies until an entry cannot be applied. It ends when all senders are gone, also then: who waits for the
/// thread's end opens the database again.
pub(super) fn start(
    shared: Arc<Shared>,
    mut work: mpsc::Receiver<Work>,
) -> Result<(), StorageError> {
    let threads = shared.process.threads.clone();
    threads
        .spawn("barge-apply", move || {
            let mut decoder = Decoder::default();
            while let Some(next) = work.blocking_recv() {
                let (result, done) = match next {
                    Work::Apply { entries, done } => (apply(&shared, entries, &mut decoder), done),
                    Work::Install { meta, files, done } => (install(&shared, &meta, files), done),
                };
                let failed = result.is_err();
                if let Err(error) = &result {
                    let reason = match error {
                        StorageError::FeatureLevel(error) => error.to_string(),
                        error => format!("the state cannot be written: {error}"),
                    };
                    shared.process.failure.report(&reason);
                }
                // The receiver is gone only when Raft is being shut down.
                done.send(result.map_err(io::Error::from)).ok();
                if failed {
                    // Callers that wait for later entries see their channels close.
                    while work.blocking_recv().is_some() {}
                }
                allocators::follow();
            }
        })
        .context("start the thread that applies the log")
}

/// The level may rise while a manager that is too old for it runs, or begins on a log in which it rises. Nothing that follows is
/// applied by it, and its portion is not kept.
fn understand(state: &State) -> Result<(), StorageError> {
    Ok(check_understood(state.feature_level(), LEVEL)?)
}

/// Entries, their transactions, and the channels that wait for the outcomes.
#[derive(Default)]
struct Portion {
    entries: Vec<(EntryResponder, Vec<Transaction>)>,
    /// What the entries have in the log.
    log_bytes: u64,
    /// What their transactions have, encoded and not compressed.
    bytes: usize,
}

impl Portion {
    /// Decodes entries until there are enough. None when there are no more.
    fn next(
        entries: &mut impl Iterator<Item = EntryResponder>,
        decoder: &mut Decoder,
    ) -> Result<Option<Self>, StorageError> {
        let mut portion = Self::default();
        while portion.bytes < PORTION
            && let Some(entry) = entries.next()
        {
            portion.log_bytes += entry_size(&entry.0) as u64;
            let (transactions, bytes) = match &entry.0.payload {
                EntryPayload::Normal(command) => decoder
                    .transactions(command)
                    .map_err(|error| StorageError::corrupted("a transaction of the log", error))?,
                EntryPayload::Blank | EntryPayload::Membership(_) => (Vec::new(), 0),
            };
            portion.bytes += bytes;
            portion.entries.push((entry, transactions));
        }
        Ok((!portion.entries.is_empty()).then_some(portion))
    }
}

fn apply(
    shared: &Shared,
    entries: Vec<EntryResponder>,
    decoder: &mut Decoder,
) -> Result<(), StorageError> {
    let mut entries = entries.into_iter();
    // Decoding needs no lock.
    while let Some(portion) = Portion::next(&mut entries, decoder)? {
        apply_portion(shared, portion)?;
    }
    Ok(())
}

fn apply_portion(shared: &Shared, portion: Portion) -> Result<(), StorageError> {
    let mut changes = Vec::new();
    let mut answers = Vec::with_capacity(portion.entries.len());
    let mut position = shared.position();
    // What is put is most of it, and is written as it came.
    let mut writes = Writes::with_capacity(portion.bytes);
    let (revision, feature_level) = shared.state.write(By::Apply, |state| {
        for ((entry, responder), transactions) in portion.entries {
            position.last_log_id = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                position.last_membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            let mut outcomes = Vec::with_capacity(transactions.len());
            for transaction in transactions {
                let applied = state.apply(entry.log_id.leader_id.term, transaction);
                understand(state)?;
                writes.applied(&applied);
                changes.extend(applied.changes);
                outcomes.push(applied.outcome);
            }
            answers.push((responder, outcomes));
        }
        writes.position(state, &position);
        Ok::<_, StorageError>((state.revision(), state.feature_level()))
    })??;
    let points = &shared.process.points;
    points.pass(Point::ApplyBeforeWrite);
    shared.db().write(writes)?;
    points.pass(Point::ApplyBeforeFlush);
    let applied = position.last_log_id.map(|id| id.index);
    shared.set_position(position);
    shared.observer.applied(changes);
    shared.progress.send_modify(|progress| {
        progress.applied = applied;
        progress.revision = revision;
        progress.feature_level = feature_level;
        progress.bytes_since_snapshot += portion.log_bytes;
    });
    // Last, so that a caller with an answer reads and watches what was answered.
    for (responder, outcomes) in answers {
        if let Some(responder) = responder {
            responder.send(outcomes);
        }
    }
    Ok(())
}

/// Each step leaves a folder from which a start goes on: before the state is published the snapshot is newer than the
/// state, and is installed again.
fn install(shared: &Shared, meta: &SnapshotMeta, files: SnapshotFiles) -> Result<(), StorageError> {
    let begun = Instant::now();
    let found = StateDb::open_checkpoint(files.path())?.position()?;
    if found != *meta {
        return Err(StorageError::corrupted(
            "a snapshot",
            format!("it is of {found}, and said to be of {meta}"),
        ));
    }
    let known = shared
        .snapshot()
        .as_ref()
        .is_some_and(|(_, kept)| kept.path() == files.path());
    let points = &shared.process.points;
    let files = if known {
        files
    } else {
        points.pass(Point::SnapshotInstallWritten);
        shared.folder.publish_snapshot(files)?
    };
    points.pass(Point::SnapshotInstallRenamed);
    let state = shared.folder.temporary();
    snapshot::copy(files.path(), state.path())?;
    StateDb::adopt(state.path(), &shared.owner)?;
    snapshot::sync_all(state.path())?;
    points.pass(Point::SnapshotInstallCopied);
    let path = shared.folder.publish_state(state)?;
    points.pass(Point::SnapshotInstallBeforeSweep);
    let db = StateDb::open(&path, &shared.owner)?;
    let state = db.load()?;
    understand(&state)?;
    let (revision, feature_level) = (state.revision(), state.feature_level());
    let old = shared
        .state
        .write(By::Apply, |old| mem::replace(old, state))?;
    // Giving back a large one takes a while; readers do not wait for it.
    drop(old);
    let replaced = shared.replace_db(db, path);
    shared.set_position(meta.clone());
    shared.keep_snapshot(meta.clone(), files);
    shared.observer.replaced(revision);
    shared.progress.send_replace(Progress {
        applied: meta.last_log_id.map(|id| id.index),
        revision,
        feature_level,
        bytes_since_snapshot: 0,
    });
    let took_ms = begun.elapsed().as_millis();
    tracing::info!(snapshot = %meta, took_ms, "installed a snapshot");
    if let Err(error) = fs::remove_dir_all(&replaced) {
        // The sweep at the next start gets it.
        tracing::warn!(path = %replaced.display(), %error, "cannot delete the replaced state");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_state::COMPRESSION;
    use openraft::{entry::RaftEntry as _, vote::RaftLeaderId as _};

    use super::*;
    use crate::storage::types::{Command, Encoder, Entry, LeaderId, LogId};

    #[test]
    fn a_portion_is_bounded_by_what_is_decompressed() {
        let entry = |index| {
            let transaction = Transaction {
                id: vec![7; 3 << 20],
                ..Transaction::default()
            };
            let command = Encoder::default().command(vec![transaction], COMPRESSION);
            let sent = Command::from_encoded(command.encoded().clone());
            let id = LogId::new(LeaderId::new(1, 1), index);
            (Entry::new(id, EntryPayload::Normal(sent)), None)
        };
        let mut entries = (0..7).map(entry);
        let (mut portions, mut decoder) = (Vec::new(), Decoder::default());
        while let Some(portion) = Portion::next(&mut entries, &mut decoder).unwrap() {
            assert!(portion.log_bytes < 100 << 10, "they are compressed");
            portions.push(portion.entries.len());
        }
        assert_eq!(portions, [3, 3, 1]);
    }
}
