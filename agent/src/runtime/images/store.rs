//! containerd's content store.

use std::{collections::HashMap, time::Duration};

use bytes::{Bytes, BytesMut};
use containerd_client::{
    services::v1::{self as api, WriteAction, WriteContentRequest},
    tonic::{Code, Status},
};
use futures::{Stream, StreamExt};
use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    lease::Lease,
    limits::{CALL, COMMIT, MESSAGE, within},
    manifest::{Descriptor, LARGEST_DOCUMENT},
};
use crate::runtime::{client::Client, error::unless_missing};

/// Bytes sent to containerd at a time.
const CHUNK: usize = 128 * 1024;

/// Why a blob was not stored.
#[derive(Debug)]
pub enum WriteError<E> {
    /// The bytes did not come.
    Source(E),
    /// containerd did not take them.
    Store(Status),
}

/// Whether a blob is here; then the lease keeps it.
pub async fn claim(client: &Client, lease: &Lease, digest: &str) -> Result<bool, Status> {
    if info(client, digest).await?.is_none() {
        return Ok(false);
    }
    lease.keep(client, "content", digest).await?;
    // It may have been collected before it was kept.
    Ok(info(client, digest).await?.is_some())
}

/// What is known of a blob.
pub async fn info(client: &Client, digest: &str) -> Result<Option<api::Info>, Status> {
    let request = api::InfoRequest {
        digest: digest.to_owned(),
    };
    let mut content = client.services().content();
    let answer = unless_missing(within(CALL, content.info(client.request(request))).await)?;
    Ok(answer.and_then(|answer| answer.into_inner().info))
}

/// Adds labels to a blob that is here.
pub async fn label(
    client: &Client,
    digest: &str,
    labels: &HashMap<String, String>,
) -> Result<(), Status> {
    let paths = labels
        .keys()
        .map(|label| format!("labels.{label}"))
        .collect();
    let request = api::UpdateRequest {
        info: Some(api::Info {
            digest: digest.to_owned(),
            labels: labels.clone(),
            ..api::Info::default()
        }),
        update_mask: Some(FieldMask { paths }),
    };
    let mut content = client.services().content();
    within(CALL, content.update(client.request(request))).await?;
    Ok(())
}

/// Reads a document that is here; `None` when it is not.
pub async fn read(client: &Client, digest: &str) -> Result<Option<Vec<u8>>, Status> {
    let request = api::ReadContentRequest {
        digest: digest.to_owned(),
        offset: 0,
        size: 0,
    };
    let mut content = client.services().content();
    let answer = within(MESSAGE, content.read(client.request(request))).await;
    let Some(answer) = unless_missing(answer)? else {
        return Ok(None);
    };
    let mut parts = answer.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = unless_missing(within(MESSAGE, parts.message()).await)?.flatten() {
        bytes.extend_from_slice(&part.data);
        if bytes.len() as u64 > LARGEST_DOCUMENT {
            return Err(Status::out_of_range(format!(
                "{digest} is too large for a document"
            )));
        }
    }
    // No document is empty; a missing blob may show only in the stream.
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// Stores a blob. containerd compares its digest before it counts as there.
pub async fn write<E>(
    client: &Client,
    lease: &Lease,
    blob: &Descriptor,
    labels: HashMap<String, String>,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), WriteError<E>> {
    match write_all(client, lease, blob, labels, body).await {
        // Somebody else was faster.
        Err(WriteError::Store(status)) if status.code() == Code::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Removes what was written of a blob and not committed: its bytes do not wait for the next collection.
pub async fn abort(client: &Client, lease: &Lease, digest: &str) -> Result<(), Status> {
    let request = api::AbortRequest {
        r#ref: ingest(lease, digest),
    };
    let mut content = client.services().content();
    let aborted = content.abort(client.leased(lease.header(), request));
    unless_missing(within(CALL, aborted).await)?;
    Ok(())
}

/// Of one lease alone, so that what a dead agent left half written is in nobody's way.
fn ingest(lease: &Lease, digest: &str) -> String {
    format!("{}-{digest}", lease.id())
}

async fn write_all<E>(
    client: &Client,
    lease: &Lease,
    blob: &Descriptor,
    labels: HashMap<String, String>,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), WriteError<E>> {
    let total = i64::try_from(blob.size)
        .map_err(|_| WriteError::Store(Status::out_of_range("the blob's size")))?;
    let message = |action: WriteAction, offset: i64, data: Bytes| WriteContentRequest {
        action: action.into(),
        r#ref: ingest(lease, &blob.digest),
        total,
        expected: blob.digest.to_string(),
        offset,
        data: data.to_vec(),
        labels: HashMap::new(),
    };
    let (sender, receiver) = mpsc::channel(1);
    let mut writer = Writer {
        sender,
        answers: None,
    };
    writer
        .offer(message(WriteAction::Stat, 0, Bytes::new()))
        .await;
    let requests = client.leased(lease.header(), ReceiverStream::new(receiver));
    let mut content = client.services().content();
    let answers = within(MESSAGE, content.write(requests)).await;
    writer.answers = Some(answers.map_err(WriteError::Store)?.into_inner());
    writer.answered(MESSAGE).await.map_err(WriteError::Store)?;

    let mut offset = 0;
    let mut pending = BytesMut::with_capacity(CHUNK);
    let mut body = std::pin::pin!(body);
    loop {
        let chunk = body.next().await.transpose().map_err(WriteError::Source)?;
        let ended = chunk.is_none();
        pending.extend_from_slice(&chunk.unwrap_or_default());
        if pending.len() >= CHUNK || (ended && !pending.is_empty()) {
            let data = pending.split().freeze();
            let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
            writer
                .offer(message(WriteAction::Write, offset, data))
                .await;
            writer.answered(MESSAGE).await.map_err(WriteError::Store)?;
            offset += length;
        }
        if ended {
            break;
        }
    }
    let mut commit = message(WriteAction::Commit, offset, Bytes::new());
    commit.labels = labels;
    writer.offer(commit).await;
    // A stream that ends without a commit looks like success: only the answer to it is one.
    let answer = writer.answered(COMMIT).await.map_err(WriteError::Store)?;
    if answer.action() != WriteAction::Commit {
        return Err(WriteError::Store(Status::internal(
            "the blob was not committed",
        )));
    }
    Ok(())
}

/// One message at a time, each with its answer.
struct Writer {
    sender: mpsc::Sender<WriteContentRequest>,
    answers: Option<containerd_client::tonic::Streaming<api::WriteContentResponse>>,
}

impl Writer {
    async fn offer(&self, message: WriteContentRequest) {
        // When nobody takes it any more, the answer says why, or that there is none.
        let _ = self.sender.send_timeout(message, MESSAGE).await;
    }

    async fn answered(&mut self, limit: Duration) -> Result<api::WriteContentResponse, Status> {
        let missing = || Status::unavailable("containerd ended the transfer");
        let answers = self.answers.as_mut().ok_or_else(missing)?;
        within(limit, answers.message()).await?.ok_or_else(missing)
    }
}
