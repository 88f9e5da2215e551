//! The node's own credentials: a configuration file of Docker, read again when it changes.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    files,
    runtime::keyring::{Keyring, docker_config_of_node},
};

/// Bytes of the file that are read.
const LARGEST: u64 = 1024 * 1024;
/// For a disk that does not answer. Then what was read last counts.
const PATIENCE: Duration = Duration::from_secs(5);

/// The credentials of the node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeLogins {
    path: Option<PathBuf>,
    read: Arc<Mutex<Read>>,
}

/// What was read last.
#[derive(Debug, Clone, Default)]
struct Read {
    /// Which state of the file; `None` before the first one.
    version: Option<Version>,
    keyring: Keyring,
    /// Why the newest state of the file does not count, in one sentence.
    fault: Option<String>,
}

/// Differs between any two states of a file.
type Version = Option<(u64, u64, u64, i64, i64)>;

impl NodeLogins {
    /// Those of a file, or none.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            read: Arc::default(),
        }
    }

    /// The credentials as they are now. When the file has become unusable, those that it had before count, and a sentence says so.
    pub async fn now(&self) -> (Keyring, Option<String>) {
        let Some(path) = self.path.clone() else {
            return (Keyring::default(), None);
        };
        let known = lock(&self.read).version;
        let look = files::reading(move || look(&path, known));
        let looked = timeout(PATIENCE, look).await;
        let mut read = lock(&self.read);
        let fault = match looked {
            Ok(Ok(None)) => read.fault.clone(),
            Ok(Ok(Some((version, parsed)))) => {
                read.version = Some(version);
                match parsed {
                    _ if version.is_none() => {
                        read.keyring = Keyring::default();
                        Some("does not exist".to_owned())
                    }
                    Ok(keyring) => {
                        read.keyring = keyring;
                        None
                    }
                    Err(why) => Some(why),
                }
            }
            Ok(Err(error)) => Some(format!("cannot be read: {error}")),
            Err(_) => Some("cannot be read: the disk does not answer".to_owned()),
        };
        if fault != read.fault
            && let (Some(why), Some(path)) = (&fault, &self.path)
        {
            let path = path.display();
            tracing::warn!(
                "the node's credentials for registries are not up to date: {path} {why}"
            );
        }
        read.fault = fault;
        let sentence = read.fault.as_ref().zip(self.path.as_ref());
        let sentence = sentence.map(|(why, path)| {
            let path = path.display();
            format!("the node's credentials are not up to date, because {path} {why}")
        });
        (read.keyring.clone(), sentence)
    }
}

/// Reads a node's file at the start of the agent. Blocks.
///
/// # Errors
/// A sentence's end that says what is wrong with the file.
pub fn check(path: &Path) -> Result<(), String> {
    match look(path, None) {
        Ok(Some((_, parsed))) => parsed.map(drop),
        Ok(None) => Ok(()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// The file's state and what it has, unless that state is known. A file that is gone has nothing. Blocks.
fn look(
    path: &Path,
    known: Option<Version>,
) -> io::Result<Option<(Version, Result<Keyring, String>)>> {
    let version = match fs::metadata(path) {
        Ok(metadata) => Some(version(&metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if known == Some(version) {
        return Ok(None);
    }
    let Some((_, _, length, _, _)) = version else {
        return Ok(Some((version, Ok(Keyring::default()))));
    };
    if length > LARGEST {
        let why = format!("has more than {LARGEST} bytes");
        return Ok(Some((version, Err(why))));
    }
    Ok(Some((version, docker_config_of_node(&fs::read(path)?))))
}

fn version(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

/// Whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let logins = NodeLogins::new(Some(path.clone()));
        let count = async || logins.now().await.0.find("h.example", "a").len();
        assert_eq!(count().await, 0, "there is no file yet");
        check(&path).unwrap();
        assert!(logins.now().await.1.unwrap().contains("does not exist"));
        let entry = r#"{"auths": {"h.example": {"username": "me", "password": "hunter2"}}}"#;
        files::write_atomic(&path, entry.as_bytes()).unwrap();
        assert_eq!(count().await, 1);
        files::write_atomic(&path, b"{").unwrap();
        assert!(check(&path).is_err());
        let (keyring, fault) = logins.now().await;
        assert_eq!(keyring.find("h.example", "a").len(), 1, "as it was");
        assert!(fault.unwrap().contains("config.json is not JSON"));
        assert!(logins.now().await.1.is_some(), "it is still so");
        files::write_atomic(&path, b"{\"auths\": {}}").unwrap();
        assert_eq!(count().await, 0);
        assert!(logins.now().await.1.is_none());
    }
}
