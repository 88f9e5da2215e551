//! Opens databases: with sizes for a small machine, and a check that they belong to this manager.

use std::{
    fs, io, iter,
    ops::Add,
    path::{Path, PathBuf},
};

use barge_proto::v1;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DEFAULT_COLUMN_FAMILY_NAME, Options,
};

use super::{
    Context, StorageError,
    codec::{self, CodecError},
};

/// The key of the identity in every database; sorts before all others.
pub const IDENTITY: &[u8] = b"\0identity";

/// Memory for blocks read from disk, indexes of files among them, per database. Reads of the state never touch the disk and the log's recent
/// entries are in memory, so this hardly matters.
const BLOCK_CACHE: usize = 4 << 20;

/// Write buffers of a column family: one that is written to, and one that is on its way to its file.
const WRITE_BUFFERS: i32 = 2;

/// What is read, and in the state compressed, together, in bytes: records resemble each other more than themselves, and hardly any is read alone.
const BLOCK: usize = 32 << 10;

/// Whom a database belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's uid.
    pub cluster_id: String,
    /// The manager's Raft id.
    pub raft_id: u64,
}

/// What a database takes in memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What was written and is not in a file yet.
    pub write_buffers: u64,
    /// Blocks that were read, and the indexes of files.
    pub block_cache: u64,
    /// What open files take besides.
    pub table_readers: u64,
}

impl Usage {
    /// What a database takes with these column families besides the default one. What RocksDB does not tell counts as nothing.
    pub fn of(db: &DB, families: &[&str]) -> Self {
        let value = |family: &ColumnFamily, name: &str| {
            let value = db.property_int_value_cf(family, name);
            value.ok().flatten().unwrap_or_default()
        };
        let mut usage = Self::default();
        let families = iter::once(&DEFAULT_COLUMN_FAMILY_NAME).chain(families);
        for family in families.filter_map(|name| db.cf_handle(name)) {
            usage.write_buffers += value(family, "rocksdb.size-all-mem-tables");
            usage.table_readers += value(family, "rocksdb.estimate-table-readers-mem");
            // They share it.
            usage.block_cache = value(family, "rocksdb.block-cache-usage");
        }
        usage
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            write_buffers: self.write_buffers + other.write_buffers,
            block_cache: self.block_cache + other.block_cache,
            table_readers: self.table_readers + other.table_readers,
        }
    }
}

/// Options that both databases share. `write_buffer` is in bytes.
pub fn options(write_buffer: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE));
    table.set_block_size(BLOCK);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(write_buffer);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    // Merging fewer files less often costs reads, which are rare here, and spares writes, which are not.
    options.set_level_zero_file_num_compaction_trigger(8);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_max_open_files(256);
    // Wrong data must not be taken for right data.
    options.set_paranoid_checks(true);
    options
}

/// Refuses a database without the file `CURRENT`: RocksDB would begin an empty one and delete all other files.
pub fn check_current(path: &Path, wal: &[PathBuf]) -> Result<(), StorageError> {
    let current = path.join("CURRENT");
    let is_there = fs::exists(&current).context("look for the file CURRENT")?;
    match !is_there && (!wal.is_empty() || has_tables(path)?) {
        true => Err(StorageError::corrupted(
            "the database",
            "the file CURRENT is missing, all others are there",
        )),
        false => Ok(()),
    }
}

/// Refuses a database without its write-ahead log: it would open as of its last flush.
pub fn check_wal(path: &Path, wal: &[PathBuf]) -> Result<(), StorageError> {
    /// What `CURRENT` names while a database comes into being; the first start replaces it, after it made a log.
    const NEWBORN: &str = "MANIFEST-000001";
    match fs::read_to_string(path.join("CURRENT")) {
        Ok(current) if wal.is_empty() && current.trim_end() != NEWBORN => Err(
            StorageError::corrupted("the database", "its write-ahead log is missing"),
        ),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("read the file CURRENT"),
    }
}

fn has_tables(path: &Path) -> Result<bool, StorageError> {
    let listed = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        listed => listed.context("list the database's folder")?,
    };
    for entry in listed {
        let path = entry.context("list the database's folder")?.path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens a database for its owner, with these column families besides the default one, and makes what is not there.
pub fn open(
    path: &Path,
    mut options: Options,
    families: &[&str],
    owner: &Identity,
) -> Result<DB, StorageError> {
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let db = DB::open_cf_descriptors(&options, path, described(&options, families))
        .context("open the database")?;
    match identity(&db, path)? {
        Some(found) if found == *owner => Ok(db),
        Some(found) => Err(foreign(path, found, owner)),
        None => {
            // Only a database that nobody has written to may be claimed.
            if db.iterator(rocksdb::IteratorMode::Start).next().is_some() {
                return Err(StorageError::corrupted(
                    "the database",
                    "it does not say whose it is",
                ));
            }
            let mut write = rocksdb::WriteOptions::default();
            write.set_sync(true);
            db.put_opt(IDENTITY, owner.encode(), &write)
                .context("write the identity")?;
            Ok(db)
        }
    }
}

/// All column families have the database's options; the default one would have RocksDB's.
fn described(options: &Options, families: &[&str]) -> Vec<ColumnFamilyDescriptor> {
    let families = iter::once(&DEFAULT_COLUMN_FAMILY_NAME).chain(families);
    families
        .map(|name| ColumnFamilyDescriptor::new(*name, options.clone()))
        .collect()
}

/// Opens a database of its owner to look at it; nothing in it is changed.
pub fn look(
    path: &Path,
    options: &Options,
    families: &[&str],
    owner: &Identity,
) -> Result<DB, StorageError> {
    let there = DB::list_cf(options, path).context("open the database")?;
    if families.iter().any(|name| !there.iter().any(|n| n == name)) {
        let layout =
            "it has the layout of an earlier version: start the manager once, that changes it";
        return Err(io::Error::other(layout)).context("open the database");
    }
    let db = DB::open_cf_descriptors_read_only(options, path, described(options, families), false)
        .context("open the database")?;
    match identity(&db, path)? {
        Some(found) if found == *owner => Ok(db),
        Some(found) => Err(foreign(path, found, owner)),
        None => Err(StorageError::corrupted(
            "the database",
            "it does not say whose it is",
        )),
    }
}

impl Identity {
    /// As a value on disk.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&v1::RaftIdentity {
            cluster_id: self.cluster_id.clone(),
            raft_id: self.raft_id,
        })
    }
}

/// Reads whose database this is.
pub fn identity(db: &DB, path: &Path) -> Result<Option<Identity>, StorageError> {
    let Some(value) = db.get(IDENTITY).context("read the identity")? else {
        return Ok(None);
    };
    match codec::decode::<v1::RaftIdentity>(value.into()) {
        Ok(found) => Ok(Some(Identity {
            cluster_id: found.cluster_id,
            raft_id: found.raft_id,
        })),
        Err(CodecError::Format(found)) => Err(StorageError::Format {
            path: path.to_owned(),
            found,
            supported: codec::FORMAT,
        }),
        Err(error) => Err(StorageError::corrupted("the identity", error)),
    }
}

/// The error for a database of another manager.
pub fn foreign(path: &Path, found: Identity, owner: &Identity) -> StorageError {
    StorageError::Foreign {
        path: path.to_owned(),
        found_cluster: found.cluster_id,
        found_id: found.raft_id,
        cluster: owner.cluster_id.clone(),
        id: owner.raft_id,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn me() -> Identity {
        Identity {
            cluster_id: "c1".into(),
            raft_id: 1,
        }
    }

    #[test]
    fn opens_again_for_the_same_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), options(1 << 20), &[], &me()).unwrap());
        drop(open(dir.path(), options(1 << 20), &[], &me()).unwrap());
        let other = Identity {
            cluster_id: "c2".into(),
            raft_id: 1,
        };
        let error = open(dir.path(), options(1 << 20), &[], &other)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("belongs to manager 1 of cluster c1"),
            "{error}"
        );
    }

    #[test]
    fn refuses_another_format() {
        for found in [1, 9] {
            let dir = tempfile::tempdir().unwrap();
            let db = open(dir.path(), options(1 << 20), &[], &me()).unwrap();
            let mut identity = me().encode();
            identity[0] = found;
            db.put(IDENTITY, identity).unwrap();
            drop(db);
            let error = open(dir.path(), options(1 << 20), &[], &me()).unwrap_err();
            let expected = format!(
                "{} has format {found}, this version reads format 2: run the version that wrote it, or take a backup with \
                 that and restore it with this one",
                dir.path().display()
            );
            assert_eq!(error.to_string(), expected);
        }
    }
}
