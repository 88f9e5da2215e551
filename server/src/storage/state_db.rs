//! The state's database: records, remembered requests, and the position of the last applied entry.
//!
//! It has no write-ahead log, because the Raft log is one. Everything is in one column family, so a flush is atomic: after a crash the database
//! holds the state exactly as of the log entry that it names.

use std::path::Path;

use barge_proto::v1;
use barge_state::{Applied, Changed, Meta, RecordKind, State, Stored, limits::Limits};
use rocksdb::{
    DB, DBCompactionStyle, IteratorMode, MemtableFactory, Options, PrefixRange, ReadOptions,
    UniversalCompactOptions, WriteBatch, WriteOptions, checkpoint::Checkpoint,
};

use crate::storage::{
    Context, StorageError, codec,
    rocks::{self, Identity, Usage},
    types::SnapshotMeta,
};

/// `r`, then the record's kind and uid.
const RECORD: u8 = b'r';
/// `q`, then the nonce.
const REQUEST: u8 = b'q';
/// Revision and request floor.
const META: &[u8] = b"m/state";
/// Last applied entry and membership: what a snapshot of this state is called.
const POSITION: &[u8] = b"m/position";

/// The write buffer, in bytes. When it is full the state is flushed, so this bounds what a restart replays.
const WRITE_BUFFER: usize = 16 << 20;
/// So many sorted runs of files are merged; each flush makes one.
const RUNS: i32 = 64;

fn options() -> Options {
    let mut options = rocks::options(WRITE_BUFFER);
    // Nothing is looked up in it: sorted when it is flushed, which is cheaper than keeping it sorted.
    options.set_memtable_factory(MemtableFactory::Vector);
    options.set_allow_concurrent_memtable_write(false);
    // It is read when it is opened or backed up only, and its keys come in no order, so each merge by levels would rewrite most of
    // it. By size, what was replaced takes at most twice the space of what was not, once there are that many runs.
    options.set_level_zero_file_num_compaction_trigger(RUNS);
    options.set_level_zero_slowdown_writes_trigger(2 * RUNS);
    options.set_level_zero_stop_writes_trigger(3 * RUNS);
    let mut universal = UniversalCompactOptions::default();
    universal.set_max_size_amplification_percent(200);
    options.set_universal_compaction_options(&universal);
    options.set_compaction_style(DBCompactionStyle::Universal);
    options
}

/// The database of one state.
pub struct StateDb {
    db: DB,
}

/// Writes that reach the disk together or not at all.
#[derive(Default)]
pub struct Writes(WriteBatch);

impl Writes {
    /// No writes, with room for about so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(WriteBatch::with_capacity_bytes(bytes))
    }

    /// Adds what a transaction changed.
    pub fn applied(&mut self, applied: &Applied) {
        for change in &applied.changes {
            self.change(change);
        }
        for nonce in &applied.requests.forgotten {
            self.0.delete(prefixed(REQUEST, nonce));
        }
        if let Some(request) = &applied.requests.remembered {
            self.request(request);
        }
    }

    /// Replaces what is known besides records and requests.
    pub fn position(&mut self, state: &State, position: &SnapshotMeta) {
        let meta = Meta {
            revision: state.revision(),
            request_floor: state.request_floor(),
            requests: Vec::new(),
        };
        self.0.put(META, codec::encode(&meta));
        self.0
            .put(POSITION, codec::encode(&codec::meta_to_proto(position)));
    }

    /// Adds a record.
    pub fn record(&mut self, record: &Stored) {
        let mut value = vec![codec::FORMAT];
        record.encode_to(&mut value);
        self.0.put(prefixed(RECORD, &record.key()), value);
    }

    /// Adds the answer to a request.
    pub fn request(&mut self, request: &v1::RememberedRequest) {
        self.0
            .put(prefixed(REQUEST, &request.nonce), codec::encode(request));
    }

    /// The size of the batch in bytes.
    pub fn size(&self) -> usize {
        self.0.size_in_bytes()
    }

    fn change(&mut self, change: &Changed) {
        match &change.after {
            Some(record) => self.record(record),
            None => self.0.delete(prefixed(RECORD, &change.key())),
        }
    }
}

impl StateDb {
    /// Opens the state of `owner`, or makes an empty one.
    pub fn open(path: &Path, owner: &Identity) -> Result<Self, StorageError> {
        // Its own write-ahead log is never used.
        rocks::check_current(path, &[])?;
        Ok(Self {
            db: rocks::open(path, options(), &[], owner)?,
        })
    }

    /// Opens a checkpoint to look at it; nothing in it is changed.
    pub fn open_checkpoint(path: &Path) -> Result<Self, StorageError> {
        let db = DB::open_for_read_only(&options(), path, false).context("open a snapshot")?;
        Ok(Self { db })
    }

    /// Makes a checkpoint of another manager of the same cluster the state of `owner`.
    pub fn adopt(path: &Path, owner: &Identity) -> Result<(), StorageError> {
        let db = DB::open(&options(), path).context("open a snapshot")?;
        match rocks::identity(&db, path)? {
            Some(found) if found.cluster_id == owner.cluster_id => {}
            Some(found) => return Err(rocks::foreign(path, found, owner)),
            None => {
                return Err(StorageError::corrupted(
                    "a snapshot",
                    "it does not say whose it is",
                ));
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        db.put_opt(rocks::IDENTITY, owner.encode(), &options)
            .context("write the identity")
    }

    /// Writes a batch; durable after the next flush.
    pub fn write(&self, writes: Writes) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db
            .write_opt(writes.0, &options)
            .context("write the state")
    }

    /// Makes everything written so far durable.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.db.flush().context("flush the state")
    }

    /// What it takes in memory.
    pub fn usage(&self) -> Usage {
        Usage::of(&self.db, &[])
    }

    /// Copies the state into a new folder, mostly by hard links, while it is being written to.
    pub fn checkpoint(&self, path: &Path) -> Result<(), StorageError> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(path))
            .context("make a snapshot")
    }

    /// Reads everything in it, which checks every block.
    pub fn verify(&self) -> Result<(), StorageError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let all = self.db.iterator_opt(IteratorMode::Start, options);
        for item in all {
            item.context("read the state")?;
        }
        Ok(())
    }

    /// Up to where the log was applied.
    pub fn position(&self) -> Result<SnapshotMeta, StorageError> {
        let Some(value) = self.db.get(POSITION).context("read the state")? else {
            return Ok(SnapshotMeta::default());
        };
        codec::decode(value.into())
            .and_then(codec::meta_from_proto)
            .map_err(|error| StorageError::corrupted("the state's position", error))
    }

    /// Reads the whole state.
    pub fn load(&self) -> Result<State, StorageError> {
        let mut meta = self.meta()?;
        meta.requests = self.requests().collect::<Result<_, _>>()?;
        // Iterators that stop at the first error, so that no list of all records is made on the way.
        let mut failed = None;
        let records = self
            .records()
            .map(|record| {
                Stored::decode(&record?).map_err(|error| StorageError::corrupted("a record", error))
            })
            .map_while(|record| record.map_err(|error| failed = Some(error)).ok());
        let state = State::restore_stored(records, meta, Limits::default());
        match failed {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }

    /// Revision and request floor, without the requests.
    pub fn meta(&self) -> Result<Meta, StorageError> {
        match self.db.get(META).context("read the state")? {
            None => Ok(Meta::default()),
            Some(value) => codec::decode(value.into())
                .map_err(|error| StorageError::corrupted("the state's revision", error)),
        }
    }

    /// Every record, encoded, by kind and uid.
    pub fn records(&self) -> impl Iterator<Item = Result<Vec<u8>, StorageError>> {
        self.values(&[RECORD]).map(|value| without_format(value?))
    }

    /// Every record of one kind, encoded, by uid.
    pub fn records_of(
        &self,
        kind: RecordKind,
    ) -> impl Iterator<Item = Result<Vec<u8>, StorageError>> {
        self.values(&[RECORD, kind as u8])
            .map(|value| without_format(value?))
    }

    /// Every answer that is remembered.
    pub fn requests(&self) -> impl Iterator<Item = Result<v1::RememberedRequest, StorageError>> {
        self.values(&[REQUEST]).map(|value| {
            codec::decode(value?.into())
                .map_err(|error| StorageError::corrupted("a remembered request", error))
        })
    }

    fn values(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Vec<u8>, StorageError>> + use<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(PrefixRange(prefix));
        options.fill_cache(false);
        self.db
            .iterator_opt(IteratorMode::Start, options)
            .map(|item| {
                item.map(|(_, value)| value.into_vec())
                    .context("read the state")
            })
    }
}

fn without_format(mut value: Vec<u8>) -> Result<Vec<u8>, StorageError> {
    match value.first() {
        Some(&codec::FORMAT) => {
            value.remove(0);
            Ok(value)
        }
        Some(format) => Err(StorageError::corrupted(
            "a record",
            format!(
                "format {format} is unknown, this version reads format {}",
                codec::FORMAT
            ),
        )),
        None => Err(StorageError::corrupted("a record", "it is empty")),
    }
}

fn prefixed(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut prefixed = Vec::with_capacity(1 + key.len());
    prefixed.push(prefix);
    prefixed.extend_from_slice(key);
    prefixed
}
