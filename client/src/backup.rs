//! Backups of a cluster: one file whose checksums show whether it is whole.
//!
//! ```text
//! "BARGEBAK", the format as a 32-bit number, then frames:
//!     the length of the payload, 32 bits
//!     the payload: a BackupFrame, at most 8 MiB
//!     SHA-256 of everything from the first byte of the file to the end of this payload
//! ```
//!
//! Numbers have their most significant byte first. The first frame is the header. The last one is the trailer, which holds the number
//! of frames between. Each digest covers all bytes before it, so the reader finds a frame that was changed, lost, repeated or moved
//! at once. A file that was cut off has no trailer. Secrets in the records are sealed, as they are in the state.

use std::io::{self, Read};

use barge_proto::v1::{BackupHeader, Record, RememberedRequest, record};
use prost::Message;

pub mod place;
mod reader;
mod writer;

pub use reader::{Frame, Reader};
pub use writer::Writer;

/// The first bytes of every backup.
const MAGIC: &[u8; 8] = b"BARGEBAK";
/// The format that this version writes, and the only one it reads.
pub const FORMAT: u32 = 1;
/// The largest payload; a record has at most 2 MiB.
const MAX_FRAME: usize = 8 << 20;
const DIGEST: usize = 32;

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no backup of a Barge cluster: it does not begin with \"BARGEBAK\"")]
    NotABackup,
    /// Another version of Barge wrote it.
    #[error(
        "the backup has format {found}, this version reads {FORMAT}: use the version that wrote it"
    )]
    Format {
        /// What it says.
        found: u32,
    },
    /// It ends before its end.
    #[error("the backup is cut off after {bytes} bytes: it has no end")]
    Truncated {
        /// How far it was good.
        bytes: u64,
    },
    /// Bytes were changed, lost or moved.
    #[error("the backup is damaged at byte {at}: {what}")]
    Damaged {
        /// Where the damaged frame begins.
        at: u64,
        /// What is wrong.
        what: String,
    },
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Of which cluster and when.
    pub header: BackupHeader,
    /// How many records.
    pub records: u64,
    /// How many answers to requests.
    pub requests: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Reads a whole backup, and hands on what is in it. What was handed on counts only if this returns `Ok`.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read(
    from: impl Read,
    mut record: impl FnMut(record::Record),
    mut request: impl FnMut(RememberedRequest),
) -> Result<Summary, BackupError> {
    let mut reader = Reader::open(from)?;
    let header = reader.header().clone();
    let mut cluster = None;
    loop {
        let at = reader.position();
        let damaged = |what: &str| BackupError::Damaged {
            at,
            what: what.to_owned(),
        };
        match reader.advance()? {
            Frame::Records(records) => {
                for encoded in records {
                    let decoded = Record::decode(encoded.as_slice())
                        .ok()
                        .and_then(|decoded| decoded.record)
                        .ok_or_else(|| {
                            damaged("a record of a kind that this version does not know")
                        })?;
                    if let record::Record::Cluster(found) = &decoded {
                        cluster = found.metadata.as_ref().map(|meta| meta.uid.clone());
                    }
                    record(decoded);
                }
            }
            Frame::Requests(requests) => requests.into_iter().for_each(&mut request),
            Frame::End { records, requests } => {
                if cluster.as_ref() != Some(&header.cluster_id) {
                    return Err(damaged(
                        "it does not hold the cluster that it says it is of",
                    ));
                }
                return Ok(Summary {
                    header,
                    records,
                    requests,
                    bytes: reader.position(),
                });
            }
        }
    }
}

/// Reads a whole backup only to see whether it is good.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify(from: impl Read) -> Result<Summary, BackupError> {
    read(from, drop, drop)
}

#[cfg(test)]
mod tests;
