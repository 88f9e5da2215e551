//! A snapshot from the leader: written beside the state, checked, made durable, then handed to Raft.

mod incoming;

use std::{sync::Arc, time::Duration};

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

/// How long what there is of a snapshot waits for the rest. Its sender tries again at once when it can; one that needs not do
/// so any more should not cost space.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// One snapshot is received at a time, and what there is of one that was interrupted is kept until another one is sent, and
/// for [`KEPT`].
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
        let received = tokio::select! {
            received = received => received,
            () = self.stop.cancelled() => Err(Status::unavailable("this manager is stopping")),
        };
        let broken = received.is_err();
        if let Err(status) = &received {
            tracing::warn!(%status, "a snapshot was not received");
        }
        let answer = received.map(|installed| RaftSnapshotAnswer {
            answer: Some(Answer::Installed(installed)),
        });
        // A sender that has hung up sends again.
        answers.send(answer).await.ok();
        if broken {
            self.forget_later().await;
        }
    }

    /// Deletes interrupted transfers that were not resumed in time.
    async fn forget_later(self) {
        let (receiving, stop) = (Arc::downgrade(&self.receiving), self.stop.clone());
        // It must not keep the databases open meanwhile.
        drop(self);
        stop.run_until_cancelled(tokio::time::sleep(KEPT)).await;
        if let Some(receiving) = receiving.upgrade()
            && let Ok(mut slot) = receiving.try_lock()
            && slot.as_ref().is_some_and(|partial| partial.idle() >= KEPT)
        {
            slot.take();
        }
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
        let announced = meta.clone();
        let files = blocking(move || {
            let files = incoming.finish()?;
            // The sender's disk may rot too. Found later, it would end this manager.
            let wrong = |what: String| Status::data_loss(format!("check a snapshot: {what}"));
            let found = StateDb::open_checkpoint(files.path())
                .and_then(|checkpoint| checkpoint.verify().and_then(|()| checkpoint.position()))
                .map_err(|error| wrong(error.to_string()))?;
            match found == announced {
                true => Ok(files),
                false => Err(wrong(format!("it is of {found}, not of {announced}"))),
            }
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
