//! Sends a snapshot to a follower: its files, one after the other, in pieces, from the position that the follower names, at a limited
//! rate.

mod pace;

use std::{
    fs::{self, File},
    io::{self, Read},
    thread,
    time::{Duration, Instant},
};

use barge_proto::v1::{
    RaftSnapshotAnswer, RaftSnapshotFile, RaftSnapshotFileEnd, RaftSnapshotHeader,
    RaftSnapshotInstalled, RaftSnapshotMessage, RaftSnapshotResume, raft_snapshot_answer::Answer,
    raft_snapshot_message::Message,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use self::pace::Pace;
use super::{Peer, malformed, rpc_error};
use crate::storage::{
    codec::{meta_to_proto, vote_from_proto, vote_to_proto},
    snapshot::SnapshotFiles,
    types::{NetworkError, RpcError, Snapshot, SnapshotResponse, StreamingError, Vote},
};

/// The bytes in one message.
const CHUNK: usize = 512 << 10;
/// Messages that are read ahead of the network.
const AHEAD: usize = 2;
/// How long the receiver may take to install a snapshot after all of it was sent.
const INSTALL: Duration = Duration::from_secs(120);
/// How long the network may take for one message, and the receiver to say from where to send.
const STALL: Duration = Duration::from_secs(30);

pub async fn send(
    peer: &Peer,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse, StreamingError> {
    let mut client = peer.client()?;
    let files = snapshot.snapshot;
    let header = RaftSnapshotHeader {
        to: peer.to,
        vote: Some(vote_to_proto(&vote)),
        meta: Some(meta_to_proto(&snapshot.meta)),
        files: list(&files).map_err(|error| NetworkError::new(&error))?,
    };
    let (messages, outgoing) = mpsc::channel(AHEAD);
    let mut source = Source {
        runtime: tokio::runtime::Handle::current(),
        list: header.files.clone(),
        files,
        messages,
        pace: Pace::new(peer.channels.snapshot_rate(), Instant::now()),
    };
    let call = client.install_snapshot(ReceiverStream::new(outgoing));
    let header = RaftSnapshotMessage {
        message: Some(Message::Header(header)),
    };
    // There is room for it: nothing was sent before.
    source.messages.send(header).await.ok();
    let mut answers = timeout(STALL, call)
        .await
        .map_err(|_| NetworkError::from_string("the receiver does not answer"))?
        .map_err(|status| rpc_error(&status))?
        .into_inner();
    let resume = match timeout(STALL, answer(&mut answers)).await {
        Ok(answer) => match answer? {
            Answer::Resume(resume) => resume,
            Answer::Installed(_) => {
                return Err(malformed("it was installed before it was sent").into());
            }
        },
        Err(_) => return Err(NetworkError::from_string("the receiver does not answer").into()),
    };
    if resume.file > 0 || resume.offset > 0 {
        tracing::info!(
            to = peer.to,
            file = resume.file,
            offset = resume.offset,
            "going on with a snapshot where it stopped"
        );
    }
    // Reading ends when the call does, because then nobody takes its messages any more.
    let reading = tokio::task::spawn_blocking(move || source.read(resume));
    let installed = installed(&mut answers);
    tokio::pin!(installed);
    let installed = tokio::select! {
        installed = &mut installed => installed?,
        read = reading => {
            read.map_err(io::Error::other).flatten().map_err(|error| NetworkError::new(&error))?;
            timeout(INSTALL, installed).await.map_err(|_| {
                NetworkError::from_string("the snapshot was sent but not installed in time")
            })??
        }
    };
    let vote = vote_from_proto(installed.vote.as_ref()).map_err(malformed)?;
    Ok(SnapshotResponse::new(vote))
}

async fn answer(answers: &mut Streaming<RaftSnapshotAnswer>) -> Result<Answer, RpcError> {
    let answer = answers.message().await;
    let answer = answer.map_err(|status| rpc_error(&status))?;
    answer
        .and_then(|answer| answer.answer)
        .ok_or_else(|| malformed("the answer is empty"))
}

async fn installed(
    answers: &mut Streaming<RaftSnapshotAnswer>,
) -> Result<RaftSnapshotInstalled, RpcError> {
    match answer(answers).await? {
        Answer::Installed(installed) => Ok(installed),
        Answer::Resume(_) => Err(malformed("the receiver wants it from elsewhere")),
    }
}

/// In the order of their names, so that the same snapshot is announced in the same way again.
fn list(files: &SnapshotFiles) -> io::Result<Vec<RaftSnapshotFile>> {
    let mut list = fs::read_dir(files.path())?
        .map(|entry| {
            let entry = entry?;
            let name = entry.file_name().into_string();
            Ok(RaftSnapshotFile {
                name: name.map_err(|_| io::Error::other("a file name that is no text"))?,
                size: entry.metadata()?.len(),
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Reads the files on a thread that may wait.
struct Source {
    runtime: tokio::runtime::Handle,
    list: Vec<RaftSnapshotFile>,
    files: SnapshotFiles,
    messages: mpsc::Sender<RaftSnapshotMessage>,
    pace: Pace,
}

impl Source {
    fn read(&mut self, resume: RaftSnapshotResume) -> io::Result<()> {
        let list = std::mem::take(&mut self.list);
        let first = usize::try_from(resume.file).unwrap_or(usize::MAX);
        let mut skip = resume.offset;
        for RaftSnapshotFile { name, size } in list.into_iter().skip(first) {
            let mut file = File::open(self.files.path().join(&name))?;
            let mut digest = Sha256::new();
            let mut left = size;
            while left > 0 {
                // The receiver has the beginning, and the checksum is of all.
                let sent = skip.min(left);
                let length = match sent {
                    0 => left,
                    sent => sent,
                };
                let length = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
                let mut chunk = vec![0; length];
                file.read_exact(&mut chunk)?;
                left -= length as u64;
                digest.update(&chunk);
                if sent > 0 {
                    skip -= length as u64;
                    continue;
                }
                self.send(Message::Data(Bytes::from(chunk)))?;
                thread::sleep(self.pace.after(length as u64, Instant::now()));
            }
            skip = 0;
            self.send(Message::FileEnd(RaftSnapshotFileEnd {
                sha256: digest.finalize().to_vec(),
            }))?;
        }
        Ok(())
    }

    fn send(&self, message: Message) -> io::Result<()> {
        let message = RaftSnapshotMessage {
            message: Some(message),
        };
        self.runtime
            .block_on(self.messages.send_timeout(message, STALL))
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the receiver takes no more"))
    }
}
