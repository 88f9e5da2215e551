//! A container's output.

use tonic::Streaming;

use super::{Client, MESSAGE_BYTES, attempt::Repeat};
use crate::{
    error::ClientError,
    v1::{LogsRequest, LogsResponse, logs_client::LogsClient},
};

/// The output of a container as it arrives.
#[derive(Debug)]
pub struct LogStream {
    inner: Streaming<LogsResponse>,
}

impl LogStream {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// See [`ClientError`]. The stream is not resumed: what was read until then was whole.
    pub async fn next(&mut self) -> Result<Option<LogsResponse>, ClientError> {
        Ok(self.inner.message().await?)
    }
}

impl Client {
    /// Opens a container's output: first what is kept, then, with `follow`, what comes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn logs(&self, request: LogsRequest) -> Result<LogStream, ClientError> {
        let inner = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move {
                    LogsClient::new(channel)
                        .max_decoding_message_size(MESSAGE_BYTES)
                        .read(request)
                        .await
                }
            })
            .await?;
        Ok(LogStream { inner })
    }
}
