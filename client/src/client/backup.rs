//! Fetching a backup into a file.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
};

use barge_proto::v1::{BackupRequest, cluster_client::ClusterClient};
use tempfile::NamedTempFile;

use super::{Client, attempt::Repeat};
use crate::{
    backup::{self, BackupError, Summary},
    channel::MESSAGE_BYTES,
    error::ClientError,
    files,
};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The cluster did not give it.
    #[error(transparent)]
    Cluster(#[from] ClientError),
    /// What arrived is not what was sent.
    #[error("what arrived is not good: {0}")]
    Backup(#[from] BackupError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

impl Client {
    /// Takes a backup of everything that was acknowledged before the call, and keeps it as `path` (mode 0600) once it has
    /// arrived, is found good and durable. With a passphrase it holds the cluster's sealing key, otherwise a restore needs that.
    ///
    /// # Errors
    /// There is a file of that name, or anything that goes wrong on the way; then there is no file.
    pub async fn backup(&self, path: &Path, passphrase: &str) -> Result<Summary, FetchError> {
        let failed = |source| FetchError::File {
            path: path.to_owned(),
            source,
        };
        if path.exists() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut file = files::temporary_in(folder).map_err(failed)?;
        let summary = self.backup_into(&mut file, passphrase).await?;
        file.persist_noclobber(path)
            .map_err(|error| failed(error.error))?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        Ok(summary)
    }

    /// As [`Client::backup`], into a temporary file; durable and found good on return.
    ///
    /// # Errors
    /// Anything that goes wrong on the way; what the file holds then is of no use.
    pub async fn backup_into(
        &self,
        file: &mut NamedTempFile,
        passphrase: &str,
    ) -> Result<Summary, FetchError> {
        let path = file.path().to_owned();
        let failed = |source| FetchError::File {
            path: path.clone(),
            source,
        };
        let mut chunks = self
            .call(Repeat::Safe, |channel| {
                let request = BackupRequest {
                    passphrase: passphrase.to_owned(),
                };
                async move {
                    ClusterClient::new(channel)
                        .max_decoding_message_size(MESSAGE_BYTES)
                        .backup(request)
                        .await
                }
            })
            .await?;
        while let Some(chunk) = chunks.message().await.map_err(ClientError::from)? {
            file.write_all(&chunk.data).map_err(failed)?;
        }
        file.as_file().sync_all().map_err(failed)?;
        Ok(backup::verify(BufReader::new(
            file.reopen().map_err(failed)?,
        ))?)
    }
}
