//! Where states and snapshots live in a manager's folder.
//!
//! A snapshot is a folder with a checkpoint of the state's database. Folders are numbered; one comes into being under a
//! name that ends in `.tmp` and is renamed when all of it is durable, so the highest number is always whole.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Context, StorageError};

const TEMPORARY: &str = ".tmp";
const STATE: &str = "state-";
const SNAPSHOT: &str = "snapshot-";

/// A snapshot's folder. It is deleted when it was discarded and has no reader left.
#[derive(Debug, Clone)]
pub struct SnapshotFiles(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    discarded: AtomicBool,
}

impl SnapshotFiles {
    fn new(path: PathBuf, discarded: bool) -> Self {
        Self(Arc::new(Folder {
            path,
            discarded: AtomicBool::new(discarded),
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Deletes the folder once the last reader is done.
    pub fn discard(&self) {
        self.0.discarded.store(true, Ordering::Relaxed);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.discarded.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            // The sweep at the next start gets it.
            tracing::warn!(path = %self.path.display(), %error, "cannot delete an old snapshot");
        }
    }
}

/// The folder that holds the state and its snapshots.
#[derive(Debug, Clone)]
pub struct StateFolder {
    root: PathBuf,
    next: Arc<Mutex<u64>>,
}

impl StateFolder {
    /// Opens the folder, and deletes what an interrupted or finished step left behind: all but the newest state and
    /// the newest snapshot.
    pub fn open(root: &Path) -> Result<Self, StorageError> {
        fs::create_dir_all(root).context("make the state's folder")?;
        let mut states = Vec::new();
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(root).context("list the state's folder")? {
            let path = entry.context("list the state's folder")?.path();
            if name(&path).ends_with(TEMPORARY) {
                remove(&path)?;
            } else if let Some(number) = number(&path, STATE) {
                states.push((number, path));
            } else if let Some(number) = number(&path, SNAPSHOT) {
                snapshots.push((number, path));
            }
        }
        let newest = states
            .iter()
            .chain(&snapshots)
            .map(|(number, _)| *number)
            .max();
        for list in [&mut states, &mut snapshots] {
            list.sort();
            list.pop();
            for (_, path) in list {
                remove(path)?;
            }
        }
        let next = Arc::new(Mutex::new(newest.unwrap_or(0) + 1));
        Ok(Self {
            root: root.to_owned(),
            next,
        })
    }

    /// The state, where it is or should come into being.
    pub fn state(&self) -> Result<PathBuf, StorageError> {
        Ok(newest(&self.root, STATE)?.unwrap_or_else(|| first_state(&self.root)))
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Result<Option<SnapshotFiles>, StorageError> {
        Ok(newest(&self.root, SNAPSHOT)?.map(|path| SnapshotFiles::new(path, false)))
    }

    /// A name for a folder that does not exist yet; it is deleted with the handle unless it is published.
    pub fn temporary(&self) -> SnapshotFiles {
        let path = self
            .root
            .join(format!("incoming-{:010}{TEMPORARY}", self.number()));
        SnapshotFiles::new(path, true)
    }

    /// Makes a whole and durable folder the newest snapshot.
    pub fn publish_snapshot(&self, files: SnapshotFiles) -> Result<SnapshotFiles, StorageError> {
        Ok(SnapshotFiles::new(self.publish(files, SNAPSHOT)?, false))
    }

    /// Makes a whole and durable folder the newest state.
    pub fn publish_state(&self, files: SnapshotFiles) -> Result<PathBuf, StorageError> {
        self.publish(files, STATE)
    }

    fn publish(&self, files: SnapshotFiles, prefix: &str) -> Result<PathBuf, StorageError> {
        let path = self.root.join(format!("{prefix}{:010}", self.number()));
        fs::rename(files.path(), &path).context("put a snapshot in its place")?;
        sync(&self.root)?;
        Ok(path)
    }

    fn number(&self) -> u64 {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        *next
    }
}

/// Where the state of a fresh folder comes into being.
pub fn first_state(root: &Path) -> PathBuf {
    root.join(format!("{STATE}{:010}", 0))
}

/// The newest state and the newest snapshot of a folder that nobody has open; nothing is swept.
pub fn look(root: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let both = [newest(root, STATE)?, newest(root, SNAPSHOT)?];
    Ok(both.into_iter().flatten().collect())
}

fn newest(root: &Path, prefix: &str) -> Result<Option<PathBuf>, StorageError> {
    let mut newest = None;
    for entry in fs::read_dir(root).context("list the state's folder")? {
        let path = entry.context("list the state's folder")?.path();
        newest = newest.max(number(&path, prefix).map(|number| (number, path)));
    }
    Ok(newest.map(|(_, path)| path))
}

/// Copies a checkpoint: what never changes by hard link, the rest byte by byte, durably.
pub fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::create_dir(to).context("make a folder")?;
    for entry in fs::read_dir(from).context("list a snapshot")? {
        let source = entry.context("list a snapshot")?.path();
        let target = to.join(name(&source));
        if source
            .extension()
            .is_some_and(|extension| extension == "sst")
        {
            fs::hard_link(&source, &target).context("link a file")?;
        } else {
            fs::copy(&source, &target).context("copy a file")?;
        }
    }
    sync_all(to)
}

/// Makes a folder and all files in it durable.
pub fn sync_all(folder: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(folder).context("list a folder")? {
        sync(&entry.context("list a folder")?.path())?;
    }
    sync(folder)
}

/// Makes one file or folder durable.
pub fn sync(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .context("sync to the disk")
}

fn remove(path: &Path) -> Result<(), StorageError> {
    tracing::info!(path = %path.display(), "removing what is not needed any more");
    fs::remove_dir_all(path).context("remove an old folder")
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn number(path: &Path, prefix: &str) -> Option<u64> {
    name(path).strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn sweeps_all_but_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "state-0000000000",
            "state-0000000003",
            "snapshot-0000000001",
            "incoming-0000000004.tmp",
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let folder = StateFolder::open(dir.path()).unwrap();
        assert_eq!(name(&folder.state().unwrap()), "state-0000000003");
        assert_eq!(
            name(folder.snapshot().unwrap().unwrap().path()),
            "snapshot-0000000001"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_temporary_folder_goes_with_its_handle_unless_published() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(dir.path()).unwrap();
        let dropped = folder.temporary();
        fs::create_dir(dropped.path()).unwrap();
        let kept = folder.temporary();
        fs::create_dir(kept.path()).unwrap();
        drop(dropped);
        let kept = folder.publish_snapshot(kept).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        kept.discard();
        assert!(kept.path().exists(), "somebody may still be reading it");
        drop(kept);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
