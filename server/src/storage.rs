//! A manager's data on disk: Raft's log and vote, the applied state, and snapshots.
//!
//! Two databases, because their lives differ: [`log`] is synced with every batch and purged all the time, [`state`]
//! has no write-ahead log at all, since the Raft log is one, and is flushed as a whole.

pub mod applier;
pub mod codec;
pub mod command;
#[cfg(test)]
mod conformance;
pub mod failure;
pub mod lock;
pub mod log;
pub mod offline;
pub mod points;
pub mod rocks;
pub mod snapshot;
pub mod space;
pub mod state;
pub mod state_db;
pub mod types;

use std::{
    io,
    path::{Path, PathBuf},
};

use barge_state::NotUnderstood;

use crate::runtime::Threads;
pub use failure::Failure;
pub use log::LogStore;
pub use points::{Point, Points};
pub use state::{Pinned, StateStore};

/// The process around the stores.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Learns that storage cannot go on.
    pub failure: Failure,
    /// Has to outlive the stores' threads.
    pub threads: Threads,
    /// Dies where a test says so.
    pub points: Points,
}

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
    /// It was written by a version that this one cannot read. Backups have a format of their own, which does not change with it.
    #[error(
        "{path} has format {found}, this version reads format {supported}: run the version that wrote it, or take a backup with \
         that and restore it with this one"
    )]
    Format {
        /// The database's folder.
        path: PathBuf,
        /// What it says.
        found: u8,
        /// What is understood.
        supported: u8,
    },
    /// Managers of a newer version have made use of what this one does not know. What follows would be misunderstood.
    #[error(transparent)]
    FeatureLevel(#[from] NotUnderstood),
    /// The state in memory cannot be gone on with.
    #[error(transparent)]
    Broken(#[from] lock::Broken),
    /// What is on disk does not make sense.
    #[error("{what} is corrupted: {detail}")]
    Corrupted {
        /// Which part.
        what: &'static str,
        /// What was found.
        detail: String,
    },
    /// A database that was acknowledged to be there is damaged or incomplete. Nothing was changed.
    #[error(
        "{} is damaged and was left as it is: {source}. Do not go on with it: remove this manager from the cluster, delete \
         its data folder and join it again; if no other manager is left, restore a backup",
        path.display()
    )]
    Damaged {
        /// The database's folder.
        path: PathBuf,
        /// What was found, and in which file.
        source: Box<StorageError>,
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

    /// Says what to do about damage in the database at `path`; other errors stay as they are.
    pub(crate) fn damaged(self, path: &Path) -> Self {
        let is_damage = match &self {
            Self::Corrupted { .. } => true,
            Self::Database { source, .. } => match source.kind() {
                rocksdb::ErrorKind::Corruption => true,
                // A file that the database has in its books.
                rocksdb::ErrorKind::IOError => source.as_ref().contains("No such file"),
                _ => false,
            },
            _ => false,
        };
        match is_damage {
            true => Self::Damaged {
                path: path.to_owned(),
                source: Box::new(self),
            },
            false => self,
        }
    }
}

/// Checks that a log and a state are of one life: that nothing is missing between the state and the log's beginning,
/// and that the log was not replaced by an empty one, which would forget this manager's votes.
///
/// # Errors
/// [`StorageError::Corrupted`] with what does not fit.
pub fn agree(log: &LogStore, state: &StateStore) -> Result<(), StorageError> {
    let applied = state.progress().borrow().applied;
    match (log.span(), applied) {
        (None, Some(applied)) => Err(StorageError::corrupted(
            "the log",
            format!("it is empty, but entries up to {applied} were applied to the state"),
        )),
        (Some((Some(purged), _)), applied) if applied < Some(purged.index) => {
            Err(StorageError::corrupted(
                "the state",
                format!(
                    "entries up to {} were applied to it, and those up to {} are not in the log any more",
                    applied.map_or_else(|| "none".to_owned(), |index| index.to_string()),
                    purged.index
                ),
            ))
        }
        _ => Ok(()),
    }
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        let kind = match &error {
            StorageError::Io { source, .. } => source.kind(),
            StorageError::Corrupted { .. }
            | StorageError::Damaged { .. }
            | StorageError::Format { .. } => io::ErrorKind::InvalidData,
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
