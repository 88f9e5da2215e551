//! An identity in its folder. It changes while the process runs: tasks that renew it replace it, and connections show the current one.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{Identity, IdentityError};
use crate::tls::TlsError;

/// A handle to an identity and its folder. Cheap to clone; all clones see the same identity.
#[derive(Debug, Clone)]
pub struct KeptIdentity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// One change at a time, each made to what the one before left: renewing a certificate and learning of a manager
    /// must not undo each other.
    changing: Mutex<()>,
    current: watch::Sender<Arc<Identity>>,
}

impl KeptIdentity {
    /// The identity that is kept in `dir`.
    #[must_use]
    pub fn new(identity: Identity, dir: PathBuf) -> Self {
        Self(Arc::new(Inner {
            dir,
            changing: Mutex::default(),
            current: watch::Sender::new(Arc::new(identity)),
        }))
    }

    /// The identity as it is now.
    #[must_use]
    pub fn current(&self) -> Arc<Identity> {
        self.0.current.borrow().clone()
    }

    /// Tells of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Identity>> {
        self.0.current.subscribe()
    }

    /// Hands every change to `show`, for as long as there are other handles. What it cannot use is logged.
    pub async fn follow(self, show: impl Fn(&Identity) -> Result<(), TlsError>) {
        let mut changes = self.subscribe();
        drop(self);
        while changes.changed().await.is_ok() {
            let current = changes.borrow_and_update().clone();
            if let Err(error) = show(&current) {
                tracing::error!(%error, "cannot use the renewed certificate; the one before stays in use");
            }
        }
    }

    /// Changes the identity: on disk first, then for all holders. Blocks until the disk has it.
    ///
    /// # Errors
    /// What the file system says; then nothing has changed.
    pub fn change(&self, change: impl FnOnce(&mut Identity)) -> Result<(), IdentityError> {
        let _turn = self
            .0
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let mut identity = Identity::clone(&before);
        change(&mut identity);
        if identity == *before {
            return Ok(());
        }
        identity.save(&self.0.dir)?;
        self.0.current.send_replace(Arc::new(identity));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::tests::identity, v1::Role};

    #[test]
    fn changes_are_kept_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptIdentity::new(identity(Role::Agent), dir.path().to_owned());
        let told = kept.subscribe();
        let members = vec!["10.0.0.2:7101".to_owned()];
        kept.change(|identity| identity.members.clone_from(&members))
            .unwrap();
        assert!(told.has_changed().unwrap());
        let loaded = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded, *kept.current());
        assert_eq!(loaded.members, members);
    }

    #[test]
    fn what_cannot_be_kept_does_not_change() {
        let dir = tempfile::tempdir().unwrap();
        // A file stands where the folder should be.
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let kept = KeptIdentity::new(identity(Role::Agent), path);
        let before = kept.current();
        assert!(kept.change(|identity| identity.members.clear()).is_err());
        assert_eq!(kept.current(), before);
    }
}
