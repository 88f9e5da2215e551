//! Telling a write that was never finished from one that was acknowledged and then damaged.
//!
//! RocksDB ends its recovery at the first record of the write-ahead log that it cannot read, whatever follows, and
//! skips over blocks of zeros. A power cut leaves an unreadable end, which is no loss: nothing is acknowledged before it
//! is synced. Rot in the middle looks the same to RocksDB, and would take acknowledged entries and votes away in silence.
//! So the file is read before RocksDB sees it. Every batch begins with the position up to which the log was durable when the batch was
//! written ([`DURABLE`]). When a readable batch behind the damage testifies to more than can be read, the manager refuses
//! the log. Without such a testimony it cuts the unreadable end off, and RocksDB finds a whole log.

mod crc32c;
mod records;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use self::records::{Fault, testimony};
use crate::storage::{Context, StorageError};

/// The key that each batch writes first: the sequence number up to which everything was on disk by then.
pub const DURABLE: &[u8; 9] = b"m/durable";

/// What was found in a write-ahead log that nothing acknowledged is missing from.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The sequence number of the last write.
    pub last: Option<u64>,
    /// Files with more than was acknowledged, and what is right of them, in bytes.
    unfinished: Vec<(PathBuf, u64)>,
}

/// Reads the write-ahead log of a database that is not open; nothing is changed.
///
/// # Errors
/// [`StorageError::Corrupted`] when something that was acknowledged cannot be read.
pub fn inspect(folder: &Path) -> Result<Inspection, StorageError> {
    let mut found = Inspection::default();
    let mut files = files(folder)?.into_iter();
    while let Some(path) = files.next() {
        let bytes = fs::read(&path).context("read the write-ahead log")?;
        let scan = records::scan(&bytes, found.last);
        found.last = scan.sequence;
        let Some(fault) = scan.fault else { continue };
        let mut durable = testimony(bytes.get(fault.offset..).unwrap_or_default());
        found.unfinished.push((path.clone(), scan.end));
        for later in files {
            let bytes = fs::read(&later).context("read the write-ahead log")?;
            durable = durable.max(testimony(&bytes));
            found.unfinished.push((later, 0));
        }
        // A log whose very beginning is gone has no number to compare with; any testimony is of something lost.
        if let Some(durable) = durable
            && found.last.is_none_or(|last| durable > last)
        {
            return Err(lost(&path, &fault, found.last, durable));
        }
        break;
    }
    Ok(found)
}

impl Inspection {
    /// Cuts off what was never acknowledged, the oldest of it first: what is left of the rest then has a gap before it.
    /// Answers the sequence number of the last write.
    ///
    /// # Errors
    /// What the file system says.
    pub fn cut(self) -> Result<Option<u64>, StorageError> {
        for (path, length) in &self.unfinished {
            tracing::warn!(
                file = %path.display(), length,
                "cutting off what was not finished and never acknowledged"
            );
            OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|file| {
                    file.set_len(*length)?;
                    file.sync_all()
                })
                .context("cut the unfinished end off the write-ahead log")?;
        }
        Ok(self.last)
    }
}

fn lost(path: &Path, fault: &Fault, last: Option<u64>, durable: u64) -> StorageError {
    let readable = last.map_or_else(
        || "no write before it can be read".to_owned(),
        |last| format!("only those up to {last} can be read"),
    );
    StorageError::corrupted(
        "the write-ahead log",
        format!(
            "{} at byte {} of {}; writes up to number {durable} were acknowledged and {readable}",
            fault.what,
            fault.offset,
            path.display(),
        ),
    )
}

/// The files of the write-ahead log, oldest first.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("list the log's folder"),
    };
    for entry in listed {
        let path = entry.context("list the log's folder")?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".log")?.parse().ok());
        files.extend(number.map(|number| (number, path)));
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}
