//! A snapshot that is being received: its files, one after the other, under a temporary name.
//!
//! When the connection breaks, the received part stays, and the sender goes on from there if it has the same snapshot.
//! The receiver checks each file at its end, so it never uses a wrong beginning.

use std::{
    fs::{self, File},
    io::Write,
    time::{Duration, Instant},
};

use barge_proto::v1::{RaftSnapshotFile, RaftSnapshotHeader, RaftSnapshotResume};
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::storage::snapshot::{self, SnapshotFiles};

/// No state has more files than this.
const MAX_FILES: usize = 100_000;

/// The beginning of a snapshot, or all of it.
pub struct Incoming {
    header: RaftSnapshotHeader,
    /// Deleted with this handle, unless it is installed.
    folder: SnapshotFiles,
    /// The file that comes next or is being written.
    index: usize,
    current: Option<File>,
    /// What there is of it, in bytes.
    offset: u64,
    digest: Sha256,
    /// When something of it came last.
    touched: Instant,
}

impl Incoming {
    /// Nothing of a snapshot yet.
    ///
    /// # Errors
    /// A header that makes no sense, or what the file system says.
    pub fn begin(header: RaftSnapshotHeader, folder: SnapshotFiles) -> Result<Self, Status> {
        if header.files.len() > MAX_FILES {
            return Err(Status::invalid_argument(format!(
                "a snapshot of {} files; {MAX_FILES} are possible",
                header.files.len()
            )));
        }
        if let Some(file) = header.files.iter().find(|file| !is_plain(&file.name)) {
            return Err(Status::invalid_argument(format!(
                "{:?} is no plain name",
                file.name
            )));
        }
        fs::create_dir(folder.path())?;
        Ok(Self {
            header,
            folder,
            index: 0,
            current: None,
            offset: 0,
            digest: Sha256::new(),
            touched: Instant::now(),
        })
    }

    /// Whether it is the beginning of what this header announces. Another sender has other files, whatever their names.
    pub fn is_of(&self, header: &RaftSnapshotHeader) -> bool {
        let sender = |header: &RaftSnapshotHeader| header.vote.as_ref().map(|vote| vote.node);
        self.header.meta == header.meta
            && self.header.files == header.files
            && sender(&self.header) == sender(header)
    }

    /// What comes next.
    pub fn resume(&self) -> RaftSnapshotResume {
        RaftSnapshotResume {
            file: u32::try_from(self.index).unwrap_or(u32::MAX),
            offset: self.offset,
        }
    }

    /// For how long nothing of it came.
    pub fn idle(&self) -> Duration {
        self.touched.elapsed()
    }

    /// How many bytes are still to come.
    pub fn missing(&self) -> u64 {
        let files = self.header.files.iter().skip(self.index);
        let sizes: u64 = files.map(|file| file.size).fold(0, u64::saturating_add);
        sizes.saturating_sub(self.offset)
    }

    /// Whether every file is there.
    pub fn is_whole(&self) -> bool {
        self.index == self.header.files.len()
    }

    /// Adds the next bytes of the current file.
    ///
    /// # Errors
    /// More bytes than it has, or what the file system says.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Status> {
        let size = self.announced()?.size;
        let end = self.offset.saturating_add(data.len() as u64);
        if end > size {
            return Err(Status::invalid_argument(format!(
                "{end} bytes of a file that has {size}"
            )));
        }
        self.open()?.write_all(data)?;
        self.digest.update(data);
        self.offset = end;
        self.touched = Instant::now();
        Ok(())
    }

    /// Ends the current file.
    ///
    /// # Errors
    /// DATA_LOSS when it is not what was sent; begin anew then.
    pub fn end_file(&mut self, sha256: &[u8]) -> Result<(), Status> {
        let RaftSnapshotFile { name, size } = self.announced()?.clone();
        if self.offset != size {
            return Err(Status::invalid_argument(format!(
                "{name} ends after {} of {size} bytes",
                self.offset
            )));
        }
        // It may be empty, and not even begun.
        self.open()?.sync_all()?;
        if self.digest.finalize_reset().as_slice() != sha256 {
            return Err(Status::data_loss(format!(
                "the checksum of {name} is wrong"
            )));
        }
        self.index += 1;
        self.current = None;
        self.offset = 0;
        Ok(())
    }

    /// Makes the whole folder durable.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(self) -> Result<SnapshotFiles, Status> {
        snapshot::sync(self.folder.path())
            .map_err(|error| Status::internal(format!("keep a snapshot: {error}")))?;
        Ok(self.folder)
    }

    fn announced(&self) -> Result<&RaftSnapshotFile, Status> {
        self.header
            .files
            .get(self.index)
            .ok_or_else(|| Status::invalid_argument("more files than were announced"))
    }

    fn open(&mut self) -> Result<&mut File, Status> {
        let file = match self.current.take() {
            Some(file) => file,
            None => File::create_new(self.folder.path().join(&self.announced()?.name))?,
        };
        Ok(self.current.insert(file))
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::storage::snapshot::StateFolder;

    fn header(files: &[(&str, u64)]) -> RaftSnapshotHeader {
        let file = |(name, size): &(&str, u64)| RaftSnapshotFile {
            name: (*name).into(),
            size: *size,
        };
        RaftSnapshotHeader {
            files: files.iter().map(file).collect(),
            ..RaftSnapshotHeader::default()
        }
    }

    fn begin(dir: &tempfile::TempDir, header: &RaftSnapshotHeader) -> Result<Incoming, Status> {
        let folder = StateFolder::open(dir.path()).unwrap().temporary();
        Incoming::begin(header.clone(), folder)
    }

    #[test]
    fn goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let header = header(&[("a", 3), ("empty", 0), ("b", 2)]);
        let mut incoming = begin(&dir, &header).unwrap();
        incoming.write(b"abc").unwrap();
        incoming.end_file(&Sha256::digest(b"abc")).unwrap();
        incoming.end_file(&Sha256::digest(b"")).unwrap();
        incoming.write(b"d").unwrap();
        // The connection broke here.
        assert!(incoming.is_of(&header));
        assert_eq!(incoming.resume(), RaftSnapshotResume { file: 2, offset: 1 });
        assert_eq!(incoming.missing(), 1);
        incoming.write(b"e").unwrap();
        incoming.end_file(&Sha256::digest(b"de")).unwrap();
        assert!(incoming.is_whole());
        let folder = incoming.finish().unwrap();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("a"), read("empty"), read("b")),
            (b"abc".into(), b"".into(), b"de".into())
        );
    }

    #[test]
    fn another_snapshot_or_sender_is_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let first = header(&[("a", 3)]);
        let incoming = begin(&dir, &first).unwrap();
        assert!(!incoming.is_of(&header(&[("a", 4)])));
        let mut other = first.clone();
        other.vote = Some(barge_proto::v1::RaftVote {
            node: 2,
            ..Default::default()
        });
        assert!(!incoming.is_of(&other));
        // The same sender in a later term has the same files.
        let mut later = first;
        later.to = 0;
        assert!(incoming.is_of(&later));
    }

    #[test]
    fn refuses_what_is_damaged_or_escapes() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../x", "/x", "..", ""] {
            assert!(begin(&dir, &header(&[(name, 1)])).is_err(), "{name}");
        }
        let mut incoming = begin(&dir, &header(&[("a", 2)])).unwrap();
        assert!(incoming.write(b"xyz").is_err());
        incoming.write(b"xy").unwrap();
        let status = incoming.end_file(&Sha256::digest(b"ab")).unwrap_err();
        assert_eq!(status.code(), tonic::Code::DataLoss);
        drop(incoming);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "and leaves nothing"
        );
    }
}
