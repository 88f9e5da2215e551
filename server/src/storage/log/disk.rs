//! The log's database: its keys, what a batch of writes consists of, and reading it back.

use std::{
    mem,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use barge_proto::v1;
use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DB, DBCompressionType, DBRecoveryMode, DEFAULT_COLUMN_FAMILY_NAME, FlushOptions,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::wal;
use crate::storage::{
    Context, StorageError,
    codec::{self, CodecError},
    rocks::{self, Identity, Usage},
    types::{Entry, LogId, Vote},
};

const VOTE: &[u8] = b"m/vote";
const COMMITTED: &[u8] = b"m/committed";
const PURGED: &[u8] = b"m/purged";

/// The column family of the entries; everything else is in the default one. So each of their files has entries between two indexes and
/// nothing else: unless the log was truncated, no two have to be merged, and one whose entries are all purged is deleted as it is.
const ENTRIES: &str = "entries";

/// The write buffer, in bytes.
const WRITE_BUFFER: usize = 16 << 20;
/// So many files may have come out of it before RocksDB looks at them; only then can they be deleted.
const FLUSHED: i32 = 4;

/// Entries that are moved are written together up to so many bytes.
const MOVED: usize = 4 << 20;

/// What a batch holds besides entries, and more.
const ROOM: usize = 4 << 10;

/// `e`, then the index with the most significant byte first, so that keys sort as the log does.
pub(super) fn entry_key(index: u64) -> [u8; 9] {
    let mut key = *b"e\0\0\0\0\0\0\0\0";
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(super) fn options() -> Options {
    let mut options = rocks::options(WRITE_BUFFER);
    options.set_level_zero_file_num_compaction_trigger(FLUSHED);
    // RocksDB takes up one database at a time, and may be busy with the state for long.
    options.set_level_zero_slowdown_writes_trigger(64);
    options.set_level_zero_stop_writes_trigger(96);
    // What is in an entry is compressed where that is worth it.
    options.set_compression_type(DBCompressionType::None);
    // What may be missing was cut off already.
    options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
    options.set_track_and_verify_wals_in_manifest(true);
    // A file of the write-ahead log stays until both column families are flushed.
    options.set_atomic_flush(true);
    options
}

fn entries(db: &DB) -> Result<&ColumnFamily, StorageError> {
    let family = db.cf_handle(ENTRIES);
    family.ok_or_else(|| StorageError::corrupted("the log", "its entries are not there"))
}

/// Moves the entries out of the default column family, where they were before they had one of their own. All of them stay there until
/// all are moved, so it may be interrupted anywhere.
fn move_entries(db: &DB) -> Result<(), StorageError> {
    let (first, end) = (entry_key(0), entry_key(u64::MAX));
    let mut options = ReadOptions::default();
    options.set_iterate_range(first..end);
    let mut found = db.iterator_opt(IteratorMode::Start, options).peekable();
    if found.peek().is_none() {
        return Ok(());
    }
    let mut batch = WriteBatch::default();
    for item in found {
        let (key, value) = item.context("read the log")?;
        batch.put_cf(entries(db)?, key, value);
        if batch.size_in_bytes() >= MOVED {
            let moved = mem::take(&mut batch);
            db.write(moved).context("move the log's entries")?;
        }
    }
    batch.delete_range(first, end);
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(batch, &options)
        .context("move the log's entries")?;
    // Gives back their space; nothing else would for long.
    db.compact_range(Some(first), Some(end));
    Ok(())
}

/// The log's database.
pub struct Disk {
    db: DB,
    /// The sequence number up to which everything is on disk.
    durable: AtomicU64,
}

/// What a log consists of besides its entries.
#[derive(Debug, Default)]
pub struct Loaded {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// About how many bytes the entries have that are not purged.
    pub bytes: u64,
}

/// Writes that reach the disk together or not at all.
pub struct Writes<'a> {
    batch: WriteBatch,
    entries: &'a ColumnFamily,
    /// Whether it was reported as durable.
    pub sync: bool,
}

impl Writes<'_> {
    /// Adds entries; durable when the batch is written.
    pub fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            let value = codec::encode(&codec::entry_to_proto(entry));
            self.batch
                .put_cf(self.entries, entry_key(entry.log_id.index), value);
        }
        self.sync = true;
    }

    /// Replaces the vote; durable when the batch is written.
    pub fn vote(&mut self, vote: &Vote) {
        self.batch
            .put(VOTE, codec::encode(&codec::vote_to_proto(vote)));
        self.sync = true;
    }

    /// Notes how far the log is known to be committed. Losing it costs time at the next start, nothing else.
    pub fn committed(&mut self, committed: Option<LogId>) {
        match committed {
            Some(id) => self
                .batch
                .put(COMMITTED, codec::encode(&codec::log_id_to_proto(&id))),
            None => self.batch.delete(COMMITTED),
        }
    }

    /// Removes all entries from `first` on. What was removed may come back at a power cut, as if it had never been
    /// removed; what is appended after it is written after it.
    pub fn truncate_from(&mut self, first: u64) {
        self.batch
            .delete_range_cf(self.entries, entry_key(first), entry_key(u64::MAX));
    }

    /// Notes that the entries up to `upto` are not needed any more.
    pub fn purge(&mut self, upto: &LogId) {
        self.batch
            .put(PURGED, codec::encode(&codec::log_id_to_proto(upto)));
        // Their files are deleted next, which cannot be undone by a power cut.
        self.sync = true;
    }
}

impl Disk {
    /// Opens the log of `owner`, or makes an empty one.
    ///
    /// # Errors
    /// [`StorageError::Corrupted`] when something that was acknowledged is not there or cannot be read.
    pub fn open(path: &Path, owner: &Identity) -> Result<Self, StorageError> {
        let files = wal::files(path)?;
        rocks::check_current(path, &files)?;
        rocks::check_wal(path, &files)?;
        let last = wal::inspect(path)?.cut()?;
        let db = rocks::open(path, options(), &[ENTRIES], owner)?;
        let found = db.latest_sequence_number();
        if last.is_some_and(|last| last > found) {
            let detail = format!("it ends at write {last:?}, of which {found} were recovered");
            return Err(StorageError::corrupted("the write-ahead log", detail));
        }
        move_entries(&db)?;
        let disk = Self {
            durable: AtomicU64::new(db.latest_sequence_number()),
            db,
        };
        // The new write-ahead log begins with something that is known to be on disk.
        let mut first = disk.begin(0)?;
        first.sync = true;
        disk.write(first)?;
        Ok(disk)
    }

    /// Opens the log of `owner` to look at it; nothing in it is changed.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn look(path: &Path, owner: &Identity) -> Result<Self, StorageError> {
        let found = wal::inspect(path)?;
        // An unfinished end is found, and not cut off.
        let mut options = options();
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_track_and_verify_wals_in_manifest(false);
        Ok(Self {
            db: rocks::look(path, &options, &[ENTRIES], owner)?,
            durable: AtomicU64::new(found.last.unwrap_or(0)),
        })
    }

    /// An empty batch, with room for about so many bytes.
    pub fn begin(&self, bytes: usize) -> Result<Writes<'_>, StorageError> {
        let mut batch = WriteBatch::with_capacity_bytes(bytes + ROOM);
        let durable = self.durable.load(Ordering::Relaxed);
        batch.put(wal::DURABLE, durable.to_be_bytes());
        Ok(Writes {
            batch,
            entries: self.entries()?,
            sync: false,
        })
    }

    /// Reads everything but the entries, and checks that these begin where they should, have no hole, and are intact.
    pub fn load(&self) -> Result<Loaded, StorageError> {
        let log_id = |value: Option<v1::RaftLogId>| value.as_ref().map(codec::log_id_from_proto);
        let vote: Option<v1::RaftVote> = self.get(VOTE)?;
        let purged = log_id(self.get(PURGED)?);
        let committed = log_id(self.get(COMMITTED)?);
        let (last, bytes) = self.verify(purged)?;
        // It was written after the entries, and what is committed is never truncated.
        if let Some(committed) = committed
            && last.is_none_or(|last: LogId| last.index < committed.index)
        {
            let detail = format!("{committed} was committed, but it ends at {}", shown(last));
            return Err(StorageError::corrupted("the log", detail));
        }
        Ok(Loaded {
            vote: vote
                .map(|vote| codec::vote_from_proto(Some(&vote)))
                .transpose()
                .map_err(|error| StorageError::corrupted("the vote", error))?,
            committed,
            purged,
            last,
            bytes,
        })
    }

    /// Writes a batch, and waits for the disk if it has to.
    pub fn write(&self, writes: Writes) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.set_sync(writes.sync);
        self.db
            .write_opt(writes.batch, &options)
            .context("write to the log")?;
        if writes.sync {
            let now = self.db.latest_sequence_number();
            self.durable.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives back the space of entries up to `index`, file by file.
    pub fn reclaim_upto(&self, index: u64) -> Result<(), StorageError> {
        self.db
            .delete_file_in_range_cf(self.entries()?, entry_key(0), entry_key(index))
            .context("reclaim the space of purged entries")
    }

    /// About how many bytes the entries take that have left the write buffer, with those that are purged and share a file with others.
    pub fn size(&self) -> u64 {
        let size = |family| {
            self.db
                .property_int_value_cf(family, "rocksdb.estimate-live-data-size")
        };
        let size = self.entries().ok().and_then(|family| size(family).ok());
        size.flatten().unwrap_or(0)
    }

    /// What it takes in memory.
    pub fn usage(&self) -> Usage {
        Usage::of(&self.db, &[ENTRIES])
    }

    /// Moves what is in the write buffers to files, and begins another write-ahead log. Writes go on meanwhile; the next one should follow
    /// soon, so that the new write-ahead log says up to where everything is on disk.
    pub fn flush(&self) -> Result<(), StorageError> {
        let default = self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
        let families: Vec<_> = default.into_iter().chain([self.entries()?]).collect();
        self.db
            .flush_cfs_opt(&families, &FlushOptions::default())
            .context("flush the log")
    }

    fn entries(&self) -> Result<&ColumnFamily, StorageError> {
        entries(&self.db)
    }

    /// The files of the entries, when RocksDB has no more to do with what was written.
    #[cfg(test)]
    pub fn files(&self) -> Result<Vec<rocksdb::LiveFile>, StorageError> {
        let mut all = rocksdb::WaitForCompactOptions::default();
        all.set_flush(true);
        self.db
            .wait_for_compact(&all)
            .context("wait for the log's files")?;
        let mut files = self.db.live_files().context("list the log's files")?;
        files.retain(|file| file.column_family_name == ENTRIES);
        Ok(files)
    }

    /// The entries within `from..to`, up to about `limit` bytes but at least one. An error if one is missing between
    /// others.
    pub fn read(&self, from: u64, to: u64, limit: usize) -> Result<Vec<Entry>, StorageError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(entry_key(from));
        options.set_iterate_upper_bound(entry_key(to));
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for item in self
            .db
            .iterator_cf_opt(self.entries()?, options, IteratorMode::Start)
        {
            let (_, value) = item.context("read the log")?;
            let entry = decode_entry(value.into_vec().into())?;
            if let Some(before) = entries.last()
                && before.log_id.index + 1 != entry.log_id.index
            {
                return Err(StorageError::corrupted(
                    "the log",
                    format!("{} follows {}", entry.log_id, before.log_id),
                ));
            }
            bytes += codec::entry_size(&entry);
            entries.push(entry);
            if bytes >= limit {
                break;
            }
        }
        Ok(entries)
    }

    /// Reads every entry, which also checks the blocks they are in, and answers where the log ends and about how many bytes it has.
    fn verify(&self, purged: Option<LogId>) -> Result<(Option<LogId>, u64), StorageError> {
        // What was purged goes with its file, which may have entries that were not.
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(entry_key(purged.map_or(0, |id| id.index + 1)));
        options.set_iterate_upper_bound(entry_key(u64::MAX));
        options.fill_cache(false);
        let (mut last, mut bytes) = (purged, 0);
        for item in self
            .db
            .iterator_cf_opt(self.entries()?, options, IteratorMode::Start)
        {
            let (key, value) = item.context("read the log")?;
            let entry = decode_entry(value.into_vec().into())?;
            let id = entry.log_id;
            let follows = match last {
                Some(last) => id.index == last.index + 1 && id >= last,
                None => id.index == 0,
            };
            if *key != entry_key(id.index) || !follows {
                let detail = format!("{id} follows {}", shown(last));
                return Err(StorageError::corrupted("the log", detail));
            }
            last = Some(id);
            bytes += codec::entry_size(&entry) as u64;
        }
        Ok((last, bytes))
    }

    fn get<M: prost::Message + Default>(&self, key: &[u8]) -> Result<Option<M>, StorageError> {
        let value = self.db.get(key).context("read the log's metadata")?;
        value
            .map(|value| codec::decode(value.into()))
            .transpose()
            .map_err(|error| StorageError::corrupted("the log's metadata", error))
    }
}

fn shown(id: Option<LogId>) -> String {
    id.map_or_else(|| "its beginning".to_owned(), |id| id.to_string())
}

fn decode_entry(value: Bytes) -> Result<Entry, StorageError> {
    codec::decode(value)
        .and_then(codec::entry_from_proto)
        .map_err(|error: CodecError| StorageError::corrupted("an entry of the log", error))
}
