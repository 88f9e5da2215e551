//! Writes what managers said to disk, one write at a time, also across sessions.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::AssignmentFiles;
use crate::desired::Desired;

/// The writer.
#[derive(Debug)]
pub struct Keeper {
    files: AssignmentFiles,
    cluster_id: String,
    /// Held while something is written, also when the session that wanted it has ended. Tells whether the files may differ from
    /// what the agent acts on: after such a session, an error, or a start that could not read some of them.
    differs: Arc<Mutex<bool>>,
}

impl Keeper {
    /// Keeps what this cluster assigns in `files`.
    pub fn new(files: AssignmentFiles, cluster_id: String) -> Self {
        Self {
            files,
            cluster_id,
            differs: Arc::new(Mutex::new(true)),
        }
    }

    /// Makes `next` durable, then calls `publish`. `pods` and `network` say what differs from what was published before.
    ///
    /// # Errors
    /// What the file system says, in words.
    pub async fn keep(
        &self,
        next: Arc<Desired>,
        pods: bool,
        network: bool,
        publish: impl FnOnce(),
    ) -> Result<(), String> {
        let mut differs = self.differs.clone().lock_owned().await;
        let (files, cluster_id) = (self.files.clone(), self.cluster_id.clone());
        let write = tokio::task::spawn_blocking(move || {
            let all = std::mem::replace(&mut *differs, true);
            let saved = files.save(&cluster_id, &next, pods || all, network || all);
            (saved, differs)
        });
        let (saved, mut differs) = write.await.map_err(|error| error.to_string())?;
        saved.map_err(|error| error.to_string())?;
        publish();
        *differs = false;
        Ok(())
    }

    /// Runs something else that waits for the disk.
    ///
    /// # Errors
    /// It panicked.
    pub async fn run(&self, write: impl FnOnce() + Send + 'static) -> Result<(), String> {
        let turn = self.differs.clone().lock_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            write();
            drop(turn);
        });
        written.await.map_err(|error| error.to_string())
    }
}
