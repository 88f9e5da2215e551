//! The thread that applies the log: neither Raft's heartbeats nor anybody's TLS wait for it.

use std::{fs, io, mem, sync::Arc, time::Instant};

use barge_state::{Changed, LEVEL, State, check_understood};
use openraft::EntryPayload;
use tokio::sync::{mpsc, oneshot};

use super::{
    Context, Point, StorageError,
    codec::entry_size,
    snapshot::{self, SnapshotFiles},
    state::{Progress, Shared},
    state_db::{StateDb, Writes},
};
use crate::raft::types::{EntryResponder, SnapshotMeta, StoredMembership};

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
            while let Some(next) = work.blocking_recv() {
                let (result, done) = match next {
                    Work::Apply { entries, done } => (apply(&shared, entries), done),
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
                // Nobody waits any more only when Raft is being shut down.
                done.send(result.map_err(io::Error::from)).ok();
                if failed {
                    // Whoever waits for anything that follows sees its channel close.
                    while work.blocking_recv().is_some() {}
                }
            }
        })
        .context("start the thread that applies the log")
}

/// The level may rise while a manager that is too old for it runs, or begins on a log in which it rises. Nothing that follows is
/// applied by it, and this batch is not kept.
fn understand(state: &State) -> Result<(), StorageError> {
    Ok(check_understood(state.feature_level(), LEVEL)?)
}

fn apply(shared: &Shared, entries: Vec<EntryResponder>) -> Result<(), StorageError> {
    let mut changes = Vec::new();
    let mut answers = Vec::with_capacity(entries.len());
    let mut bytes = 0;
    let mut position = shared.position();
    // Decoding needs no lock.
    let entries = entries
        .into_iter()
        .map(|(entry, responder)| {
            bytes += entry_size(&entry) as u64;
            let transactions = match &entry.payload {
                EntryPayload::Normal(command) => command
                    .transactions()
                    .map_err(|error| StorageError::corrupted("a transaction of the log", error))?,
                EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
            };
            Ok((entry, transactions, responder))
        })
        .collect::<Result<Vec<_>, StorageError>>()?;
    // What is put is most of it, and is written as it came.
    let mut writes = Writes::with_capacity(usize::try_from(bytes).unwrap_or_default());
    {
        let mut state = shared.write();
        for (entry, transactions, responder) in entries {
            position.last_log_id = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                position.last_membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            let mut outcomes = Vec::with_capacity(transactions.len());
            for transaction in transactions {
                let applied = state.apply(entry.log_id.leader_id.term, transaction);
                understand(&state)?;
                writes.applied(&applied);
                changes.extend(applied.changes);
                outcomes.push(applied.outcome);
            }
            answers.push((responder, outcomes));
        }
        writes.position(&state, &position);
    }
    let points = &shared.process.points;
    points.pass(Point::ApplyBeforeWrite);
    shared.db().write(writes)?;
    points.pass(Point::ApplyBeforeFlush);
    let revision = shared.read().revision();
    let applied = position.last_log_id.map(|id| id.index);
    shared.set_position(position);
    shared.observer.applied(changes);
    shared.progress.send_modify(|progress| {
        progress.applied = applied;
        progress.revision = revision;
        progress.bytes_since_snapshot += bytes;
    });
    // Last, so that whoever is answered reads and watches what was answered.
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
    let revision = state.revision();
    let old = mem::replace(&mut *shared.write(), state);
    // Giving back a large one takes a while; readers do not wait for it.
    drop(old);
    let replaced = shared.replace_db(db, path);
    shared.set_position(meta.clone());
    shared.keep_snapshot(meta.clone(), files);
    shared.observer.replaced(revision);
    shared.progress.send_replace(Progress {
        applied: meta.last_log_id.map(|id| id.index),
        revision,
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
