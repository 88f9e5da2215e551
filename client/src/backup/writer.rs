//! Writing a backup.

use std::io::{self, Write};

use barge_proto::v1::{
    BackupFrame, BackupHeader, BackupRecords, BackupRequests, BackupTrailer, RememberedRequest,
    backup_frame::Frame,
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{FORMAT, MAGIC};

/// Records are gathered up to this many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Requests are gathered up to this many.
const BATCH_REQUESTS: usize = 1024;

/// Writes a backup; what it wrote is one only after [`Writer::finish`].
pub struct Writer<W> {
    to: W,
    digest: Sha256,
    records: Vec<Vec<u8>>,
    record_bytes: usize,
    requests: Vec<RememberedRequest>,
    counted: BackupTrailer,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// What `to` says.
    pub fn begin(to: W, header: BackupHeader) -> io::Result<Self> {
        let mut writer = Self {
            to,
            digest: Sha256::new(),
            records: Vec::new(),
            record_bytes: 0,
            requests: Vec::new(),
            counted: BackupTrailer::default(),
        };
        writer.put(MAGIC)?;
        writer.put(&FORMAT.to_be_bytes())?;
        writer.frame(Frame::Header(header))?;
        Ok(writer)
    }

    /// Adds an encoded `Record`.
    ///
    /// # Errors
    /// What the sink says.
    pub fn record(&mut self, record: Vec<u8>) -> io::Result<()> {
        self.counted.records += 1;
        self.record_bytes += record.len();
        self.records.push(record);
        match self.record_bytes >= BATCH_BYTES {
            true => self.flush_records(),
            false => Ok(()),
        }
    }

    /// Adds the answer to a request.
    ///
    /// # Errors
    /// What the sink says.
    pub fn request(&mut self, request: RememberedRequest) -> io::Result<()> {
        self.counted.requests += 1;
        self.requests.push(request);
        match self.requests.len() >= BATCH_REQUESTS {
            true => self.flush_requests(),
            false => Ok(()),
        }
    }

    /// Ends the backup, and gives back where it was written.
    ///
    /// # Errors
    /// What the sink says.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush_records()?;
        self.flush_requests()?;
        let trailer = self.counted;
        self.frame(Frame::Trailer(trailer))?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn flush_records(&mut self) -> io::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        self.record_bytes = 0;
        let records = std::mem::take(&mut self.records);
        self.frame(Frame::Records(BackupRecords { records }))
    }

    fn flush_requests(&mut self) -> io::Result<()> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let requests = std::mem::take(&mut self.requests);
        self.frame(Frame::Requests(BackupRequests { requests }))
    }

    fn frame(&mut self, frame: Frame) -> io::Result<()> {
        let payload = BackupFrame { frame: Some(frame) }.encode_to_vec();
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.put(&length.to_be_bytes())?;
        self.put(&payload)?;
        let digest = self.digest.clone().finalize();
        self.put(&digest)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.to.write_all(bytes)
    }
}
