//! A snapshot to a follower: its files, one after the other, in pieces, and a checksum.

use std::{
    fs::{self, File},
    io::{self, Read},
    time::Duration,
};

use barge_proto::v1::{
    RaftSnapshotFile, RaftSnapshotHeader, RaftSnapshotMessage, RaftSnapshotTrailer,
    raft_snapshot_message::Message,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Peer, malformed, rpc_error};
use crate::{
    raft::types::{NetworkError, Snapshot, SnapshotResponse, StreamingError, Vote},
    storage::{
        codec::{meta_to_proto, vote_from_proto, vote_to_proto},
        snapshot::SnapshotFiles,
    },
};

/// The bytes in one message.
const CHUNK: usize = 512 << 10;
/// Messages that are read ahead of the network.
const AHEAD: usize = 2;
/// How long the receiver may take to install a snapshot after all of it was sent.
const INSTALL: Duration = Duration::from_secs(120);
/// How long the network may take for one message.
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
    // Reading ends when the call does, because then nobody takes its messages any more.
    let reading = tokio::task::spawn_blocking({
        let runtime = tokio::runtime::Handle::current();
        move || read(&runtime, &files, header, &messages)
    });
    let call = client.install_snapshot(ReceiverStream::new(outgoing));
    tokio::pin!(call);
    let response = tokio::select! {
        response = &mut call => response,
        read = reading => {
            read.map_err(io::Error::other).flatten().map_err(|error| NetworkError::new(&error))?;
            tokio::time::timeout(INSTALL, call).await.map_err(|_| {
                NetworkError::from_string("the snapshot was sent but not installed in time")
            })?
        }
    };
    let response = response.map_err(|status| rpc_error(&status))?.into_inner();
    let vote = vote_from_proto(response.vote.as_ref()).map_err(malformed)?;
    Ok(SnapshotResponse::new(vote))
}

fn list(files: &SnapshotFiles) -> io::Result<Vec<RaftSnapshotFile>> {
    fs::read_dir(files.path())?
        .map(|entry| {
            let entry = entry?;
            let name = entry.file_name().into_string();
            Ok(RaftSnapshotFile {
                name: name.map_err(|_| io::Error::other("a file name that is no text"))?,
                size: entry.metadata()?.len(),
            })
        })
        .collect()
}

fn read(
    runtime: &tokio::runtime::Handle,
    files: &SnapshotFiles,
    header: RaftSnapshotHeader,
    messages: &mpsc::Sender<RaftSnapshotMessage>,
) -> io::Result<()> {
    let send = |message| {
        let message = RaftSnapshotMessage {
            message: Some(message),
        };
        runtime
            .block_on(messages.send_timeout(message, STALL))
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the receiver takes no more"))
    };
    let list = header.files.clone();
    send(Message::Header(header))?;
    let mut digest = Sha256::new();
    for RaftSnapshotFile { name, size } in list {
        let mut file = File::open(files.path().join(&name))?;
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = vec![0; length];
            file.read_exact(&mut chunk)?;
            left -= length as u64;
            digest.update(&chunk);
            send(Message::Data(Bytes::from(chunk)))?;
        }
    }
    send(Message::Trailer(RaftSnapshotTrailer {
        sha256: digest.finalize().to_vec(),
    }))
}
