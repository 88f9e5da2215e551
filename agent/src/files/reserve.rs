//! Room on the disk for what has to be saved when there is no other.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{fcntl::posix_fallocate, sys::statvfs::statvfs};

use super::{remove_if_there, write_atomic};

/// Size of the file that keeps the room, in bytes: several times what the records and the assignment of a node with 110 pods take.
pub const RESERVE_BYTES: u64 = 8 << 20;
/// The file is made only while so much is available, in bytes: it must not fill the disk itself.
const NEEDED: u64 = 4 * RESERVE_BYTES;

/// A file in the data folder that takes room. The first write that finds the disk full removes it, and has that room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve of a data folder. There is no file before [`Reserve::keep`].
    pub fn of(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join("reserve"),
        }
    }

    /// Makes the file when there is none and room enough. Answers whether the reserve is there. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn keep(&self) -> io::Result<bool> {
        let there = fs::metadata(&self.path).is_ok_and(|file| file.len() >= RESERVE_BYTES);
        if there {
            return Ok(true);
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let disk = statvfs(folder)?;
        let available = disk.blocks_available().saturating_mul(disk.fragment_size());
        if available < NEEDED {
            return Ok(false);
        }
        let made = self.make();
        if made.is_err() {
            remove_if_there(&self.path)?;
        }
        made.map(|()| true)
    }

    fn make(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        let bytes = i64::try_from(RESERVE_BYTES).map_err(io::Error::other)?;
        posix_fallocate(&file, 0, bytes)?;
        file.sync_all()
    }

    /// As [`write_atomic`]; when the disk is full, the reserve is released and the file written once more. Blocks.
    pub fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.with(|| write_atomic(path, bytes))
    }

    /// Does work that may find the disk full; then the reserve is released and the work done once more. Blocks.
    pub fn with<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if is_full(&error) && self.release() => work(),
            done => done,
        }
    }

    /// Whether there was a reserve to release.
    fn release(&self) -> bool {
        match fs::remove_file(&self.path) {
            Ok(()) => {
                tracing::warn!(path = %self.path.display(), "the disk is full; its reserve is used now");
                true
            }
            Err(_) => false,
        }
    }
}

/// Whether there is no room on the disk.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
