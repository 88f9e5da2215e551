//! A container's output.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Status, Streaming};

use super::{Client, attempt::Repeat};
use crate::{
    backoff::Backoff,
    channel::MESSAGE_BYTES,
    error::{self, ClientError},
    v1::{LogsRequest, LogsResponse, logs_client::LogsClient},
};

/// So many connections in a row may break without a word before a followed log fails.
const BARREN: u32 = 10;
/// How long the container's node may look for a manager, after it lost the one before.
const AWAY: Duration = Duration::from_secs(30);

/// The output of a container as it arrives.
///
/// When a connection breaks on the way while the output is followed, reading goes on where it stopped, with any manager: nothing is
/// missing and nothing comes twice, as long as the node keeps what was written meanwhile.
#[derive(Debug)]
pub struct LogStream {
    client: Client,
    request: LogsRequest,
    inner: Streaming<LogsResponse>,
    /// Something came that cannot be gone on after.
    lost: bool,
    /// Connections in a row that broke before they said anything.
    barren: u32,
}

impl LogStream {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// See [`ClientError`]. What was read until then was whole.
    pub async fn next(&mut self) -> Result<Option<LogsResponse>, ClientError> {
        loop {
            match self.inner.message().await {
                Ok(None) => return Ok(None),
                Ok(Some(piece)) => {
                    self.barren = 0;
                    self.lost = piece.position.is_empty();
                    self.request.after.clone_from(&piece.position);
                    return Ok(Some(piece));
                }
                Err(status) => self.resume(status).await?,
            }
        }
    }

    async fn resume(&mut self, status: Status) -> Result<(), ClientError> {
        self.barren += 1;
        let hopeless = self.lost || self.barren > BARREN;
        if !self.request.follow || hopeless || !error::may_resume(&status) {
            return Err(status.into());
        }
        tracing::debug!(%status, "going on with a log elsewhere");
        self.client.rotate();
        let begun = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            match self.client.open_logs(&self.request).await {
                Ok(inner) => {
                    self.inner = inner;
                    return Ok(());
                }
                Err(error)
                    if error.reason() == Some("NO_SUCH_SESSION") && begun.elapsed() < AWAY =>
                {
                    sleep(backoff.wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Client {
    /// Opens a container's output: first what is kept, then, with `follow`, what comes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn logs(&self, request: LogsRequest) -> Result<LogStream, ClientError> {
        Ok(LogStream {
            inner: self.open_logs(&request).await?,
            client: self.clone(),
            request,
            lost: false,
            barren: 0,
        })
    }

    async fn open_logs(
        &self,
        request: &LogsRequest,
    ) -> Result<Streaming<LogsResponse>, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move {
                LogsClient::new(channel)
                    .max_decoding_message_size(MESSAGE_BYTES)
                    .read(request)
                    .await
            }
        })
        .await
    }
}
