//! The data folder of a manager: its lock, and the paths of its files.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use barge_client::files;

use crate::pki::{Keyring, SealingKey, keyring::KeyFile};

/// A data folder that this process holds alone, until it ends.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process holds it.
    #[error(
        "the data folder {} is in use by another barge-server: stop it first, or choose another --data-dir",
        .0.display()
    )]
    InUse(PathBuf),
    /// The log or the state was deleted.
    #[error(
        "the log or the state of this manager is missing from {}: with them it has lost its votes, so it must not go on under \
         its old identity; remove it from the cluster on another manager (barge cluster remove), delete its data folder and join \
         it again; if no other manager is left, restore a backup",
        .0.display()
    )]
    StoreGone(PathBuf),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Folder {
    /// Takes the folder, and makes it when there is none.
    ///
    /// # Errors
    /// [`FolderError::InUse`] while another process has it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        files::create_private_dir(path).map_err(failed(path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(&lock_path)(source)),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Key and certificate of this manager. The folder has a cluster when there is an identity in it.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        identity_in(&self.path)
    }

    /// The credential of the first administrator, for people to take.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.path.join("admin.toml")
    }

    /// Raft's log and the state.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// There once the store was opened: from then on it holds what this manager voted and promised.
    fn used(&self) -> PathBuf {
        self.path.join("used")
    }

    /// Checks that the store is there if it ever was: a manager that begins anew under its old identity has forgotten its
    /// votes, and could help to lose what was acknowledged.
    ///
    /// # Errors
    /// [`FolderError::StoreGone`].
    pub fn check_store(&self) -> Result<(), FolderError> {
        let store = self.store();
        let gone = !store.join("log").exists() || !store.join("state").exists();
        match self.used().exists() && gone {
            true => Err(FolderError::StoreGone(store)),
            false => Ok(()),
        }
    }

    /// Remembers that the store was opened.
    ///
    /// # Errors
    /// What the file system says.
    pub fn mark_used(&self) -> Result<(), FolderError> {
        match self.used().exists() {
            true => Ok(()),
            false => self.write(&self.used(), b""),
        }
    }

    /// The first transaction of a cluster that begins here, until it is committed.
    #[must_use]
    pub fn genesis(&self) -> PathBuf {
        self.path.join("genesis")
    }

    /// There once this manager was told that it was removed from its cluster.
    fn removed(&self) -> PathBuf {
        self.path.join("removed")
    }

    /// Remembers that this manager was removed from its cluster: its identity is of no use any more.
    ///
    /// # Errors
    /// What the file system says.
    pub fn mark_removed(&self) -> Result<(), FolderError> {
        self.write(&self.removed(), b"")
    }

    /// Whether this manager was removed from its cluster.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed().exists()
    }

    /// The CA's digest by which the cluster was joined or bootstrapped.
    fn origin(&self) -> PathBuf {
        self.path.join("origin")
    }

    fn sealing_key(&self) -> PathBuf {
        self.path.join("sealing.key")
    }

    /// Remembers by which CA the cluster was found.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save_origin(&self, ca_digest: &str) -> Result<(), FolderError> {
        self.write(&self.origin(), ca_digest.as_bytes())
    }

    /// The CA's digest by which the cluster was found, in hex.
    ///
    /// # Errors
    /// What the file system says.
    pub fn load_origin(&self) -> Result<Option<String>, FolderError> {
        let path = self.origin();
        files::read_optional(&path).map_err(failed(&path))
    }

    /// Keeps the sealing key.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save_sealing_key(&self, key: &SealingKey) -> Result<(), FolderError> {
        self.write(&self.sealing_key(), key.as_bytes())
    }

    /// Reads the sealing key, which may be under a passphrase.
    ///
    /// # Errors
    /// It is missing or damaged; without it this manager can neither sign nor read what is sealed.
    pub fn load_keyring(&self) -> Result<Keyring, FolderError> {
        let path = self.sealing_key();
        let bytes = fs::read(&path).map_err(failed(&path))?;
        match KeyFile::decode(&bytes) {
            Ok(kept) => Ok(Keyring::new(&path, kept)),
            Err(error) => Err(FolderError::Damaged {
                path,
                what: error.to_string(),
            }),
        }
    }

    /// Writes a file, 0600, whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<(), FolderError> {
        files::write_private(path, content).map_err(failed(path))
    }

    /// Removes a file, durably; one that is not there is no error.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, path: &Path) -> Result<(), FolderError> {
        match fs::remove_file(path) {
            Ok(()) => File::open(&self.path)
                .and_then(|folder| folder.sync_all())
                .map_err(failed(&self.path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(path)(error)),
        }
    }
}

/// Where the manager of a data folder keeps its identity.
#[must_use]
pub fn identity_in(data_dir: &Path) -> PathBuf {
    data_dir.join("identity")
}

/// An error of the file system about this file.
pub fn failed(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        assert!(matches!(
            Folder::open(dir.path()),
            Err(FolderError::InUse(_))
        ));
        drop(first);
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn a_store_that_was_deleted_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        // Before the first start there is none.
        folder.check_store().unwrap();
        fs::create_dir_all(folder.store().join("log")).unwrap();
        fs::create_dir_all(folder.store().join("state")).unwrap();
        folder.mark_used().unwrap();
        folder.mark_used().unwrap();
        folder.check_store().unwrap();
        fs::remove_dir_all(folder.store().join("log")).unwrap();
        assert!(matches!(
            folder.check_store(),
            Err(FolderError::StoreGone(_))
        ));
    }

    #[test]
    fn keeps_the_sealing_key_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let key = SealingKey::generate();
        folder.save_sealing_key(&key).unwrap();
        assert_eq!(
            folder.load_keyring().unwrap().key().unwrap().as_bytes(),
            key.as_bytes()
        );
        let mode = fs::metadata(dir.path().join("sealing.key")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        fs::write(dir.path().join("sealing.key"), b"short").unwrap();
        assert!(folder.load_keyring().is_err());
    }
}
