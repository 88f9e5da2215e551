//! A snapshot from the leader: written beside the state, checked, made durable, then handed to Raft.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use barge_proto::v1::{
    RaftSnapshotFile, RaftSnapshotMessage, RaftSnapshotResponse, raft_snapshot_message::Message,
};
use bytes::Bytes;
use openraft::storage::Snapshot as RaftSnapshot;
use sha2::{Digest, Sha256};
use tonic::{Status, Streaming};

use super::{RaftService, malformed, stopped};
use crate::storage::{
    codec::{CodecError, meta_from_proto, vote_from_proto, vote_to_proto},
    snapshot,
};

/// No state has more files than this.
const MAX_FILES: usize = 100_000;

impl RaftService {
    pub(super) async fn receive_snapshot(
        &self,
        mut messages: Streaming<RaftSnapshotMessage>,
    ) -> Result<RaftSnapshotResponse, Status> {
        let _one = self
            .receiving
            .try_acquire()
            .map_err(|_| Status::aborted("another snapshot is being received"))?;
        let Some(Message::Header(header)) = next(&mut messages).await? else {
            return Err(Status::invalid_argument(
                "a snapshot begins with its header",
            ));
        };
        self.check(header.to)?;
        let vote = vote_from_proto(header.vote.as_ref()).map_err(malformed)?;
        let meta = header
            .meta
            .ok_or(CodecError::Missing("the snapshot's name"));
        let meta = meta.and_then(meta_from_proto).map_err(malformed)?;
        // Deleted with this handle, unless it is installed.
        let files = self.state.incoming();
        let mut writer = Writer::new(files.path(), header.files)?;
        loop {
            match next(&mut messages).await? {
                Some(Message::Data(data)) => writer = blocking(move || writer.write(&data)).await?,
                Some(Message::Trailer(trailer)) => {
                    blocking(move || writer.finish(&trailer.sha256)).await?;
                    break;
                }
                Some(Message::Header(_)) => {
                    return Err(Status::invalid_argument("a second header"));
                }
                None => return Err(Status::invalid_argument("the snapshot has no end")),
            }
        }
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
        Ok(RaftSnapshotResponse {
            vote: Some(vote_to_proto(&response.vote)),
        })
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

/// Writes the files one after the other.
struct Writer {
    folder: std::path::PathBuf,
    /// Those that are still to come, the next one last.
    files: Vec<RaftSnapshotFile>,
    current: Option<(File, u64)>,
    digest: Sha256,
}

impl Writer {
    fn new(folder: &Path, mut files: Vec<RaftSnapshotFile>) -> Result<Self, Status> {
        if files.len() > MAX_FILES {
            return Err(Status::invalid_argument("too many files"));
        }
        if let Some(file) = files.iter().find(|file| !is_plain(&file.name)) {
            return Err(Status::invalid_argument(format!(
                "{:?} is no plain name",
                file.name
            )));
        }
        fs::create_dir(folder)?;
        files.reverse();
        let mut writer = Self {
            folder: folder.to_owned(),
            files,
            current: None,
            digest: Sha256::new(),
        };
        writer.open_next()?;
        Ok(writer)
    }

    fn write(mut self, data: &Bytes) -> Result<Self, Status> {
        let Some((file, left)) = &mut self.current else {
            return Err(Status::invalid_argument("more bytes than files"));
        };
        *left = left
            .checked_sub(data.len() as u64)
            .ok_or_else(|| Status::invalid_argument("a message that spans two files"))?;
        file.write_all(data)?;
        self.digest.update(data);
        if *left == 0 {
            self.open_next()?;
        }
        Ok(self)
    }

    /// Opens files up to one that is not empty.
    fn open_next(&mut self) -> Result<(), Status> {
        self.current = None;
        while self.current.is_none()
            && let Some(next) = self.files.pop()
        {
            let file = File::create_new(self.folder.join(&next.name))?;
            self.current = (next.size > 0).then_some((file, next.size));
        }
        Ok(())
    }

    fn finish(self, sha256: &[u8]) -> Result<(), Status> {
        if self.current.is_some() {
            return Err(Status::invalid_argument("the last file is not whole"));
        }
        if self.digest.finalize().as_slice() != sha256 {
            return Err(Status::data_loss("the snapshot's checksum is wrong"));
        }
        snapshot::sync_all(&self.folder)
            .map_err(|error| Status::internal(format!("keep a snapshot: {error}")))
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn file(name: &str, size: u64) -> RaftSnapshotFile {
        RaftSnapshotFile {
            name: name.into(),
            size,
        }
    }

    #[test]
    fn writes_what_was_announced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("s");
        let files = vec![file("a", 3), file("empty", 0), file("b", 2)];
        let writer = Writer::new(&folder, files).unwrap();
        let writer = writer.write(&Bytes::from_static(b"ab")).unwrap();
        let writer = writer.write(&Bytes::from_static(b"c")).unwrap();
        let writer = writer.write(&Bytes::from_static(b"de")).unwrap();
        writer.finish(&Sha256::digest(b"abcde")).unwrap();
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"abc");
        assert_eq!(fs::read(folder.join("empty")).unwrap(), b"");
        assert_eq!(fs::read(folder.join("b")).unwrap(), b"de");
    }

    #[test]
    fn refuses_what_is_damaged_or_escapes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("s");
        for name in ["../x", "/x", "..", ""] {
            assert!(Writer::new(&folder, vec![file(name, 1)]).is_err(), "{name}");
        }
        let writer = Writer::new(&folder, vec![file("a", 2)]).unwrap();
        let writer = writer.write(&Bytes::from_static(b"xy")).unwrap();
        let status = writer.finish(&Sha256::digest(b"ab")).unwrap_err();
        assert_eq!(status.code(), tonic::Code::DataLoss);
    }
}
