//! Reading a backup, one frame after the other, each checked before it is looked at.

use std::io::{self, Read};

use barge_proto::v1::{BackupFrame, BackupHeader, BackupTrailer, RememberedRequest, backup_frame};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{BackupError, DIGEST, FORMAT, MAGIC, MAX_FRAME};

/// A part of a backup.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Encoded records.
    Records(Vec<Vec<u8>>),
    /// Answers to requests.
    Requests(Vec<RememberedRequest>),
    /// The end. Everything was there.
    End {
        /// How many records there were.
        records: u64,
        /// How many answers.
        requests: u64,
    },
}

/// Reads a backup.
pub struct Reader<R> {
    from: R,
    digest: Sha256,
    position: u64,
    header: BackupHeader,
    counted: BackupTrailer,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no backup, or one that this version does not read.
    pub fn open(from: R) -> Result<Self, BackupError> {
        let mut reader = Self {
            from,
            digest: Sha256::new(),
            position: 0,
            header: BackupHeader::default(),
            counted: BackupTrailer::default(),
        };
        let mut magic = [0; MAGIC.len()];
        match reader.get(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Ok(()) | Err(BackupError::Truncated { .. }) => return Err(BackupError::NotABackup),
            Err(error) => return Err(error),
        }
        let found = reader.number()?;
        if found != FORMAT {
            return Err(BackupError::Format { found });
        }
        let at = reader.position;
        match reader.frame()? {
            backup_frame::Frame::Header(header) => reader.header = header,
            _ => return Err(damaged(at, "it does not begin with its header")),
        }
        Ok(reader)
    }

    /// Of which cluster and when.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// How many bytes were read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next part; the end is told once, as the last one.
    ///
    /// # Errors
    /// Anything that is not as it was written.
    pub fn advance(&mut self) -> Result<Frame, BackupError> {
        let at = self.position;
        match self.frame()? {
            backup_frame::Frame::Header(_) => Err(damaged(at, "a second header")),
            backup_frame::Frame::Records(batch) => {
                self.counted.records += batch.records.len() as u64;
                Ok(Frame::Records(batch.records))
            }
            backup_frame::Frame::Requests(batch) => {
                self.counted.requests += batch.requests.len() as u64;
                Ok(Frame::Requests(batch.requests))
            }
            backup_frame::Frame::Trailer(said) if said != self.counted => Err(damaged(
                at,
                format!(
                    "it says that it holds {} records and {} requests, and holds {} and {}",
                    said.records, said.requests, self.counted.records, self.counted.requests
                ),
            )),
            backup_frame::Frame::Trailer(said) => {
                if self.from.read(&mut [0])? != 0 {
                    return Err(damaged(self.position, "something follows its end"));
                }
                Ok(Frame::End {
                    records: said.records,
                    requests: said.requests,
                })
            }
        }
    }

    fn frame(&mut self) -> Result<backup_frame::Frame, BackupError> {
        let at = self.position;
        let length = self.number()? as usize;
        if length > MAX_FRAME {
            return Err(damaged(at, format!("a frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        self.get(&mut payload)?;
        let expected = self.digest.clone().finalize();
        let mut found = [0; DIGEST];
        self.get(&mut found)?;
        if expected.as_slice() != found {
            return Err(damaged(at, "the checksum is wrong"));
        }
        BackupFrame::decode(payload.as_slice())
            .map_err(|error| damaged(at, error.to_string()))?
            .frame
            .ok_or_else(|| damaged(at, "a frame of a kind that this version does not know"))
    }

    fn number(&mut self) -> Result<u32, BackupError> {
        let mut bytes = [0; 4];
        self.get(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn get(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.from.read_exact(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                BackupError::Truncated {
                    bytes: self.position,
                }
            } else {
                error.into()
            }
        })?;
        self.digest.update(&*buffer);
        self.position += buffer.len() as u64;
        Ok(())
    }
}

fn damaged(at: u64, what: impl Into<String>) -> BackupError {
    BackupError::Damaged {
        at,
        what: what.into(),
    }
}
