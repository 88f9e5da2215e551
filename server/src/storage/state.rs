//! The applied state: in memory for readers, a copy in a database, and snapshots of the database.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use barge_proto::v1::Transaction;
use barge_state::{Applied, LEVEL, State, check_understood};
use futures::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{RaftStateMachine, Snapshot as RaftSnapshot},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Point, Process, StorageError,
    applier::{self, Observer, Work},
    lock::{Broken, By, LockTimes, StateLock},
    rocks::{Identity, Usage},
    snapshot::{self, SnapshotFiles, StateFolder},
    state_db::StateDb,
};
use crate::storage::types::{
    EntryResponder, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};

/// Readers wait at most for this many entries to be applied.
const BATCH: usize = 256;
/// Batches that may wait for the thread that applies; Raft waits for each, so there are few.
const QUEUE: usize = 4;

/// How far this manager has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The index of the last entry that was applied.
    pub applied: Option<u64>,
    /// The revision of the state after it.
    pub revision: u64,
    /// The cluster's feature level after it: what all managers understand.
    pub feature_level: u32,
    /// Bytes of log applied since the last snapshot.
    pub bytes_since_snapshot: u64,
}

/// A state that does not change any more; its files go with it.
pub struct Pinned {
    /// What is in it.
    pub db: StateDb,
    _files: SnapshotFiles,
}

/// A handle to the state. Clones share it; the last one to go ends its thread.
#[derive(Clone)]
pub struct StateStore {
    shared: Arc<Shared>,
    work: mpsc::Sender<Work>,
    /// Whose turn it is to rehearse.
    rehearsing: Arc<tokio::sync::Mutex<()>>,
}

pub(super) struct Shared {
    pub(super) folder: StateFolder,
    pub(super) owner: Identity,
    pub(super) process: Process,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) state: StateLock,
    position: Mutex<SnapshotMeta>,
    db: Mutex<(Arc<StateDb>, PathBuf)>,
    snapshot: Mutex<Option<(SnapshotMeta, SnapshotFiles)>>,
}

impl Shared {
    pub(super) fn position(&self) -> SnapshotMeta {
        lock(&self.position).clone()
    }

    pub(super) fn set_position(&self, position: SnapshotMeta) {
        *lock(&self.position) = position;
    }

    pub(super) fn db(&self) -> Arc<StateDb> {
        lock(&self.db).0.clone()
    }

    /// Returns the folder of the state that was replaced.
    pub(super) fn replace_db(&self, db: StateDb, path: PathBuf) -> PathBuf {
        std::mem::replace(&mut *lock(&self.db), (Arc::new(db), path)).1
    }

    pub(super) fn snapshot(&self) -> MutexGuard<'_, Option<(SnapshotMeta, SnapshotFiles)>> {
        lock(&self.snapshot)
    }

    /// Makes this the snapshot that followers get, unless there is a newer one.
    pub(super) fn keep_snapshot(&self, meta: SnapshotMeta, files: SnapshotFiles) {
        let mut current = self.snapshot();
        match &*current {
            Some((kept, _)) if kept.last_log_id > meta.last_log_id => files.discard(),
            Some((_, kept)) if kept.path() == files.path() => {}
            _ => {
                if let Some((_, old)) = current.replace((meta, files)) {
                    old.discard();
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore {
    /// Opens the state in `path`, which belongs to `owner`, or makes an empty one. Its thread ends after the last handle;
    /// the database is closed then.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when it cannot be read, [`StorageError::FeatureLevel`] when this version is too old for it.
    pub fn open(
        path: &Path,
        owner: Identity,
        observer: Arc<dyn Observer>,
        process: &Process,
    ) -> Result<Self, StorageError> {
        let folder = StateFolder::open(path)?;
        let live = folder.state()?;
        let loaded = StateDb::open(&live, &owner)
            .and_then(|db| Ok((db.load()?, db.position()?, db)))
            .map_err(|error| error.damaged(&live));
        let (state, position, db) = loaded?;
        check_understood(state.feature_level(), LEVEL)?;
        let (revision, feature_level) = (state.revision(), state.feature_level());
        let snapshot = match folder.snapshot()? {
            None => None,
            Some(files) => {
                let opened = StateDb::open_checkpoint(files.path());
                match opened.and_then(|checkpoint| checkpoint.position()) {
                    Ok(meta) => Some((meta, files)),
                    Err(error) => {
                        // Raft takes another one when it needs one.
                        tracing::warn!(%error, "discarding a snapshot that cannot be read");
                        files.discard();
                        None
                    }
                }
            }
        };
        observer.replaced(revision);
        let shared = Arc::new(Shared {
            folder,
            owner,
            process: process.clone(),
            observer,
            progress: watch::Sender::new(Progress {
                applied: position.last_log_id.map(|id| id.index),
                revision,
                feature_level,
                bytes_since_snapshot: 0,
            }),
            state: StateLock::new(state),
            position: Mutex::new(position),
            db: Mutex::new((Arc::new(db), live)),
            snapshot: Mutex::new(snapshot),
        });
        let (work, queue) = mpsc::channel(QUEUE);
        applier::start(shared.clone(), queue)?;
        Ok(Self {
            shared,
            work,
            rehearsing: Arc::default(),
        })
    }

    /// Calls `look` with the state. Keep it short: while it runs nothing is applied.
    pub fn read<T>(&self, by: By, look: impl FnOnce(&State) -> T) -> T {
        self.shared.state.read(by, look)
    }

    /// What applying a transaction now would answer and change; nothing is changed. One goes on at a time, and a pause as long as
    /// it took comes after it, however many wait.
    ///
    /// # Errors
    /// [`Broken`] when the state cannot be gone on with; the process is told.
    pub async fn rehearse(&self, transaction: Transaction) -> Result<Applied, Broken> {
        let turn = self.rehearsing.clone().lock_owned().await;
        let begun = Instant::now();
        // Taken back before anybody else can look. After a panic it is not taken back.
        let rehearsal = || {
            let state = &self.shared.state;
            state.write(By::DryRun, |state| state.rehearse(transaction))
        };
        let applied = catch_unwind(AssertUnwindSafe(rehearsal)).unwrap_or(Err(Broken));
        if let Err(broken) = &applied {
            self.shared.process.failure.report(&broken.to_string());
        }
        let pause = begun.elapsed();
        // Also when nobody waits for the answer any more.
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            drop(turn);
        });
        applied
    }

    /// How long the state's lock is held and waited for.
    pub fn lock_times(&self) -> LockTimes {
        self.shared.state.times()
    }

    /// How far this manager has come, and what comes next.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Counts bytes of log that are there but were applied in an earlier life.
    pub fn add_log_bytes(&self, bytes: u64) {
        self.shared
            .progress
            .send_modify(|progress| progress.bytes_since_snapshot += bytes);
    }

    /// Makes everything that was applied durable, so that the next start replays nothing.
    pub async fn flush(&self) -> io::Result<()> {
        let db = self.shared.db();
        let flushed = tokio::task::spawn_blocking(move || db.flush()).await;
        Ok(flushed.map_err(io::Error::other)??)
    }

    /// What the database takes in memory.
    pub fn usage(&self) -> Usage {
        self.shared.db().usage()
    }

    /// The state as it is now, to be read at leisure while this manager goes on.
    pub async fn pin(&self) -> io::Result<Pinned> {
        let shared = self.shared.clone();
        let pinned = tokio::task::spawn_blocking(move || {
            let files = shared.folder.temporary();
            let db = shared.db();
            db.flush()?;
            db.checkpoint(files.path())?;
            let db = StateDb::open_checkpoint(files.path())?;
            Ok::<_, StorageError>(Pinned { db, _files: files })
        });
        Ok(pinned.await.map_err(io::Error::other)??)
    }

    /// When the snapshot that followers get was made; absent when there is none.
    pub fn snapshot_taken(&self) -> Option<SystemTime> {
        let folder = self.shared.snapshot().as_ref()?.1.path().to_owned();
        folder.metadata().and_then(|data| data.modified()).ok()
    }

    /// Where a snapshot that is being received can be written.
    pub fn incoming(&self) -> SnapshotFiles {
        self.shared.folder.temporary()
    }

    async fn send(
        &self,
        work: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Work,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.work
            .send(work(done))
            .await
            .map_err(|_| StorageError::Stopped)?;
        answer.await.map_err(|_| StorageError::Stopped)?
    }
}

impl RaftStateMachine<TypeConfig> for StateStore {
    type SnapshotData = SnapshotFiles;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.shared.position();
        Ok((position.last_log_id, position.last_membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder, io::Error>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let entries = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.send(|done| Work::Apply { entries, done }).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        Builder {
            shared: self.shared.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFiles,
    ) -> Result<(), io::Error> {
        let meta = meta.clone();
        self.send(|done| Work::Install {
            meta,
            files: snapshot,
            done,
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.shared.snapshot().clone();
        Ok(current.map(|(meta, snapshot)| RaftSnapshot { meta, snapshot }))
    }
}

/// Takes snapshots beside the thread that applies.
pub struct Builder {
    shared: Arc<Shared>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFiles;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let shared = self.shared.clone();
        let built = tokio::task::spawn_blocking(move || build(&shared)).await;
        Ok(built.map_err(io::Error::other)??)
    }
}

fn build(shared: &Shared) -> Result<Snapshot, StorageError> {
    let begun = Instant::now();
    let bytes = shared.progress.borrow().bytes_since_snapshot;
    let db = shared.db();
    // The log is purged up to the snapshot, so the state that a restart loads must be at least as new.
    db.flush()?;
    let points = &shared.process.points;
    points.pass(Point::SnapshotBuildFlushed);
    let files = shared.folder.temporary();
    db.checkpoint(files.path())?;
    snapshot::sync_all(files.path())?;
    points.pass(Point::SnapshotBuildWritten);
    // What is in it is for the checkpoint itself to say: entries were applied while it was taken.
    let meta = StateDb::open_checkpoint(files.path())?.position()?;
    let files = shared.folder.publish_snapshot(files)?;
    points.pass(Point::SnapshotBuildRenamed);
    shared.keep_snapshot(meta.clone(), files.clone());
    shared.progress.send_modify(|progress| {
        progress.bytes_since_snapshot = progress.bytes_since_snapshot.saturating_sub(bytes);
    });
    let took_ms = begun.elapsed().as_millis();
    tracing::info!(snapshot = %meta, took_ms, "took a snapshot");
    Ok(RaftSnapshot {
        meta,
        snapshot: files,
    })
}
