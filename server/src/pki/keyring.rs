//! The sealing key as this manager has it: in memory, and in a file of its own, in clear or under a passphrase.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use barge_client::files;
use barge_proto::v1::PassphraseSealed;
use prost::Message;
use tokio::sync::Notify;

use super::{PkiError, SealingKey};

/// What the file of a key under a passphrase begins with; a key in clear is 32 bytes of anything.
const UNDER_PASSPHRASE: &[u8] = b"barge-sealing-key-under-passphrase-1\n";

/// What is in the file.
#[derive(Debug, Clone)]
pub enum KeyFile {
    /// The key itself.
    Clear(SealingKey),
    /// It takes a passphrase.
    UnderPassphrase(PassphraseSealed),
}

impl KeyFile {
    /// As it is written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Clear(key) => key.as_bytes().to_vec(),
            Self::UnderPassphrase(sealed) => [UNDER_PASSPHRASE, &sealed.encode_to_vec()].concat(),
        }
    }

    /// Reads what [`KeyFile::encode`] wrote.
    ///
    /// # Errors
    /// [`PkiError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PkiError> {
        match bytes.strip_prefix(UNDER_PASSPHRASE) {
            None => SealingKey::try_from(bytes).map(Self::Clear),
            Some(sealed) => PassphraseSealed::decode(sealed)
                .map(Self::UnderPassphrase)
                .map_err(|error| PkiError::Malformed(format!("the sealed key: {error}"))),
        }
    }

    /// The key, when it is in clear.
    ///
    /// # Errors
    /// [`PkiError::Malformed`] when it takes a passphrase.
    pub fn clear(self) -> Result<SealingKey, PkiError> {
        match self {
            Self::Clear(key) => Ok(key),
            Self::UnderPassphrase(_) => Err(PkiError::Malformed(
                "this sealing key is under the passphrase of `barge cluster lock`: unlock a manager with `barge cluster unlock \
                 --forget` and take its file, or restore with a backup that holds the key"
                    .to_owned(),
            )),
        }
    }
}

/// The key of this manager. Cheap to clone: all clones are one.
#[derive(Debug, Clone)]
pub struct Keyring(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    key: RwLock<Option<SealingKey>>,
    kept: Mutex<KeyFile>,
    unlocked: Notify,
}

impl Keyring {
    /// What was read from the file at `path`: locked, when that takes a passphrase.
    #[must_use]
    pub fn new(path: &Path, kept: KeyFile) -> Self {
        let key = match &kept {
            KeyFile::Clear(key) => Some(key.clone()),
            KeyFile::UnderPassphrase(_) => None,
        };
        Self(Arc::new(Inner {
            path: path.to_owned(),
            key: RwLock::new(key),
            kept: Mutex::new(kept),
            unlocked: Notify::new(),
        }))
    }

    /// The key.
    ///
    /// # Errors
    /// [`PkiError::Locked`] until [`Keyring::unlock`].
    pub fn key(&self) -> Result<SealingKey, PkiError> {
        let key = self.0.key.read().unwrap_or_else(PoisonError::into_inner);
        key.clone().ok_or(PkiError::Locked)
    }

    /// Whether the key is not known.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self.key(), Err(PkiError::Locked))
    }

    /// The key as the file has it, when that takes a passphrase.
    #[must_use]
    pub fn under_passphrase(&self) -> Option<PassphraseSealed> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            KeyFile::Clear(_) => None,
            KeyFile::UnderPassphrase(sealed) => Some(sealed.clone()),
        }
    }

    /// From now on the key is known.
    pub fn unlock(&self, key: SealingKey) {
        *self.0.key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
        self.0.unlocked.notify_one();
    }

    /// Waits for [`Keyring::unlock`]; one that was before counts once.
    pub async fn unlocked(&self) {
        self.0.unlocked.notified().await;
    }

    /// Makes the file what it should be: the key under that passphrase, or in clear. A locked manager leaves it alone: it
    /// could not make it again. After a crash there is the old file or the new one. Blocks.
    ///
    /// # Errors
    /// What the file system says; then the old file is still there.
    pub fn keep(&self, wanted: Option<&PassphraseSealed>) -> std::io::Result<()> {
        let Ok(key) = self.key() else {
            return Ok(());
        };
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match wanted {
            Some(sealed) => KeyFile::UnderPassphrase(sealed.clone()),
            None => KeyFile::Clear(key),
        };
        if file.encode() != kept.encode() {
            files::write_private(&self.0.path, &file.encode())?;
            tracing::info!(
                under_passphrase = wanted.is_some(),
                "the sealing key's file was replaced"
            );
            *kept = file;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::pki::passphrase;

    #[test]
    fn a_key_under_a_passphrase_is_locked_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.key");
        let key = SealingKey::generate();
        let read = || {
            Keyring::new(
                &path,
                KeyFile::decode(&std::fs::read(&path).unwrap()).unwrap(),
            )
        };
        files::write_private(&path, &KeyFile::Clear(key.clone()).encode()).unwrap();
        let keyring = read();
        assert!(!keyring.is_locked());
        let sealed = passphrase::seal(&key, "correct horse").unwrap();
        keyring.keep(Some(&sealed)).unwrap();
        // It goes on with what it knows.
        assert_eq!(keyring.key().unwrap().as_bytes(), key.as_bytes());
        assert!(
            !std::fs::read(&path)
                .unwrap()
                .windows(32)
                .any(|w| w == key.as_bytes())
        );

        let again = read();
        assert!(matches!(again.key(), Err(PkiError::Locked)));
        // Not even when it should be in clear: it is not known.
        again.keep(None).unwrap();
        assert!(read().is_locked());
        let kept = again.under_passphrase().unwrap();
        again.unlock(passphrase::open(&kept, "correct horse").unwrap());
        again.keep(None).unwrap();
        assert_eq!(read().key().unwrap().as_bytes(), key.as_bytes());
        assert!(read().under_passphrase().is_none());
    }

    #[test]
    fn a_file_that_is_neither_is_refused() {
        for bytes in [
            &b""[..],
            b"short",
            &[UNDER_PASSPHRASE, b"\xff\xff"].concat(),
        ] {
            assert!(KeyFile::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
