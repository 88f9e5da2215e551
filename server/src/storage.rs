//! What a manager keeps on disk: the log and vote of Raft, the state with what was applied to it, and snapshots.
//!
//! Two databases, because their lives differ: [`log`] is synced with every batch and purged all the time, [`state`]
//! has no write-ahead log at all, since the Raft log is one, and is flushed as a whole.

pub mod applier;
pub mod codec;
#[cfg(test)]
mod conformance;
pub mod failure;
pub mod log;
pub mod offline;
pub mod rocks;
pub mod snapshot;
pub mod state;
pub mod state_db;

use std::{io, path::PathBuf};

pub use failure::Failure;
pub use log::LogStore;
pub use state::{Pinned, StateStore};

/// Why a database could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The folder was made for another cluster or manager. Nothing was changed.
    #[error(
        "{path} belongs to manager {found_id} of cluster {found_cluster}, not to manager {id} of cluster {cluster}: \
         use the data folder that belongs to this manager, or an empty one to join anew"
    )]
    Foreign {
        /// The database's folder.
        path: PathBuf,
        /// Whose it is.
        found_cluster: String,
        /// Whose it is.
        found_id: u64,
        /// Who tried to open it.
        cluster: String,
        /// Who tried to open it.
        id: u64,
    },
    /// It was written by a version that this one cannot read.
    #[error(
        "{path} has format {found}, this version reads format {supported}: run the version that wrote it"
    )]
    Format {
        /// The database's folder.
        path: PathBuf,
        /// What it says.
        found: u8,
        /// What is understood.
        supported: u8,
    },
    /// What is on disk does not make sense.
    #[error(
        "{what} is corrupted: {detail}: remove this manager from the cluster and join it again with an empty folder"
    )]
    Corrupted {
        /// Which part.
        what: &'static str,
        /// What was found.
        detail: String,
    },
    /// The database refused.
    #[error("{verb}: {source}")]
    Database {
        /// What was being done.
        verb: &'static str,
        /// RocksDB's own words.
        source: rocksdb::Error,
    },
    /// The file system refused.
    #[error("{verb}: {source}")]
    Io {
        /// What was being done.
        verb: &'static str,
        /// The system's own words.
        source: io::Error,
    },
    /// The thread that owns the database has ended; the reason was reported when it did.
    #[error("the storage has stopped")]
    Stopped,
}

impl StorageError {
    pub(crate) fn corrupted(what: &'static str, detail: impl ToString) -> Self {
        Self::Corrupted {
            what,
            detail: detail.to_string(),
        }
    }
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        let kind = match &error {
            StorageError::Io { source, .. } => source.kind(),
            StorageError::Corrupted { .. } | StorageError::Format { .. } => {
                io::ErrorKind::InvalidData
            }
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Adds what was being done to an error.
pub(crate) trait Context<T> {
    fn context(self, verb: &'static str) -> Result<T, StorageError>;
}

impl<T> Context<T> for Result<T, rocksdb::Error> {
    fn context(self, verb: &'static str) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Database { verb, source })
    }
}

impl<T> Context<T> for Result<T, io::Error> {
    fn context(self, verb: &'static str) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { verb, source })
    }
}
