//! Streams a backup to the caller.

use std::{io, time::Duration};

use barge_proto::v1::BackupChunk;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Parts;
use crate::{error::ApiError, recovery::backup};

/// The bytes in one message.
const CHUNK: usize = 256 << 10;
/// Messages that wait for the network.
const AHEAD: usize = 4;
/// How long the receiver may take for one message.
const STALL: Duration = Duration::from_secs(30);

/// The messages of a backup.
pub type Chunks = ReceiverStream<Result<BackupChunk, Status>>;

/// Begins a backup; only one is taken from a manager at a time.
///
/// # Errors
/// NO_QUORUM when it cannot be known what was acknowledged; EXHAUSTED while another one is taken.
pub async fn send(parts: &Parts, passphrase: String) -> Result<Chunks, ApiError> {
    let permit = parts.backups.clone().try_acquire_owned().map_err(|_| {
        ApiError::Exhausted("another backup is being taken from this manager".into())
    })?;
    let pinned = parts.store.pin().await?;
    let keyring = parts.issuer.keyring().clone();
    if !passphrase.is_empty() {
        keyring.key()?;
    }
    let (chunks, messages) = mpsc::channel(AHEAD);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _one = permit;
        let sink = Sink {
            runtime,
            chunks: chunks.clone(),
        };
        let sink = io::BufWriter::with_capacity(CHUNK, sink);
        let passphrase = Some(passphrase.as_str()).filter(|text| !text.is_empty());
        if let Err(error) = backup::take(&pinned, &keyring, passphrase, sink) {
            tracing::warn!(%error, "a backup was not finished");
            // A receiver that is gone needs no reason.
            let _ = chunks.try_send(Err(Status::aborted(error.to_string())));
        }
    });
    Ok(ReceiverStream::new(messages))
}

/// Sends what is written to it.
struct Sink {
    runtime: Handle,
    chunks: mpsc::Sender<Result<BackupChunk, Status>>,
}

impl io::Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let chunk = BackupChunk {
            data: data.to_vec(),
        };
        self.runtime
            .block_on(self.chunks.send_timeout(Ok(chunk), STALL))
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the receiver takes no more"))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
