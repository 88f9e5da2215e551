//! A snapshot from the leader: written beside the state, checked, made durable, then handed to Raft.

mod incoming;

use barge_proto::v1::{
    RaftSnapshotAnswer, RaftSnapshotHeader, RaftSnapshotInstalled, RaftSnapshotMessage,
    raft_snapshot_answer::Answer, raft_snapshot_message::Message,
};
use openraft::storage::Snapshot as RaftSnapshot;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tonic::{Status, Streaming};

pub use self::incoming::Incoming;
use super::{RaftService, malformed, stopped};
use crate::storage::{
    codec::{CodecError, meta_from_proto, vote_from_proto, vote_to_proto},
    state_db::StateDb,
};

/// One snapshot is received at a time, and what there is of one that was interrupted is kept for as long as no other one
/// is sent.
type Slot = OwnedMutexGuard<Option<Incoming>>;

impl RaftService {
    /// Receives a snapshot; says first from where it should be sent, and at the end that it is installed.
    pub(super) async fn receive_snapshot(
        self,
        mut messages: Streaming<RaftSnapshotMessage>,
        answers: mpsc::Sender<Result<RaftSnapshotAnswer, Status>>,
    ) {
        let received = async {
            let slot = self
                .receiving
                .clone()
                .try_lock_owned()
                .map_err(|_| Status::aborted("another snapshot is being received"))?;
            let Some(Message::Header(header)) = next(&mut messages).await? else {
                return Err(Status::invalid_argument(
                    "a snapshot begins with its header",
                ));
            };
            self.check(header.to)?;
            self.receive(slot, header, &mut messages, &answers).await
        };
        let answer = received.await.map(|installed| RaftSnapshotAnswer {
            answer: Some(Answer::Installed(installed)),
        });
        if let Err(status) = &answer {
            tracing::warn!(%status, "a snapshot was not received");
        }
        // Whoever has gone asks again.
        answers.send(answer).await.ok();
    }

    async fn receive(
        &self,
        mut slot: Slot,
        header: RaftSnapshotHeader,
        messages: &mut Streaming<RaftSnapshotMessage>,
        answers: &mpsc::Sender<Result<RaftSnapshotAnswer, Status>>,
    ) -> Result<RaftSnapshotInstalled, Status> {
        let vote = vote_from_proto(header.vote.as_ref()).map_err(malformed)?;
        let meta = header
            .meta
            .clone()
            .ok_or(CodecError::Missing("the snapshot's name"));
        let meta = meta.and_then(meta_from_proto).map_err(malformed)?;
        let mut incoming = self.begin(slot.take(), header).await?;
        let resume = RaftSnapshotAnswer {
            answer: Some(Answer::Resume(incoming.resume())),
        };
        let told = answers.send(Ok(resume)).await;
        told.map_err(|_| Status::cancelled("the sender has gone"))?;
        while !incoming.is_whole() {
            let message = match next(messages).await {
                Ok(Some(message)) => message,
                // What has arrived is right so far: the next try goes on from there.
                broken => {
                    *slot = Some(incoming);
                    return Err(broken.err().unwrap_or_else(|| {
                        Status::cancelled("the stream ended before the snapshot")
                    }));
                }
            };
            incoming = blocking(move || {
                match message {
                    Message::Data(data) => incoming.write(&data)?,
                    Message::FileEnd(end) => incoming.end_file(&end.sha256)?,
                    Message::Header(_) => {
                        return Err(Status::invalid_argument("a second header"));
                    }
                }
                Ok(incoming)
            })
            .await?;
        }
        let files = blocking(move || {
            let files = incoming.finish()?;
            // The sender's disk may rot too. Found later, it would end this manager.
            StateDb::open_checkpoint(files.path())
                .and_then(|checkpoint| checkpoint.verify())
                .map_err(|error| Status::data_loss(format!("check a snapshot: {error}")))?;
            Ok(files)
        })
        .await?;
        tracing::info!(snapshot = %meta, "received a snapshot");
        let snapshot = RaftSnapshot {
            meta,
            snapshot: files,
        };
        let response = self
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(stopped)?;
        Ok(RaftSnapshotInstalled {
            vote: Some(vote_to_proto(&response.vote)),
        })
    }

    /// What there is of this snapshot already, or a new beginning, if there is space for the rest.
    async fn begin(
        &self,
        before: Option<Incoming>,
        header: RaftSnapshotHeader,
    ) -> Result<Incoming, Status> {
        let state = self.state.clone();
        let space = *self.space.borrow();
        let incoming = blocking(move || match before {
            Some(before) if before.is_of(&header) => Ok(before),
            other => {
                // Its space is needed first.
                drop(other);
                Incoming::begin(header, state.incoming())
            }
        })
        .await?;
        // The log goes on growing meanwhile: half of what should stay free is left to it.
        if space.free < incoming.missing().saturating_add(space.floor / 2) {
            return Err(Status::resource_exhausted(format!(
                "no space for a snapshot of {} bytes more ({space}): free space on the disk of this manager",
                incoming.missing()
            )));
        }
        Ok(incoming)
    }
}

async fn next(messages: &mut Streaming<RaftSnapshotMessage>) -> Result<Option<Message>, Status> {
    match messages.message().await? {
        None => Ok(None),
        Some(message) => match message.message {
            Some(message) => Ok(Some(message)),
            None => Err(Status::invalid_argument("an empty message")),
        },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(error.to_string()))?
}
