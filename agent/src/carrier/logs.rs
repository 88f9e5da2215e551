//! Reading a container's log, also while it grows and is rotated.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    cri::{self, Channel},
    logfile::rotated,
};

/// Between two looks whether a followed log has grown.
const POLL: Duration = Duration::from_millis(100);
/// Entries read ahead of a slow reader.
const READ_AHEAD: usize = 256;
/// Bytes read at a time when looking for the last lines.
const BLOCK: u64 = 64 * 1024;

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// At most this many lines from the end; `None` means all.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Go on as it grows.
    pub follow: bool,
}

/// A line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When it arrived.
    pub time: Timestamp,
    /// Where it came from.
    pub channel: Channel,
    /// What the container wrote, with the newline if there was one.
    pub bytes: Bytes,
}

/// Reads the log at `path`. A followed one ends, after its last line, once `finished` is cancelled: whoever knows that
/// the container has exited and was detached does so. Dropping the stream ends the reading.
pub fn read(
    path: PathBuf,
    options: LogOptions,
    finished: CancellationToken,
) -> impl Stream<Item = io::Result<LogEntry>> + Send + Unpin {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let sent = sender.clone();
        let reader = Reader { path, sender };
        if let Err(error) = reader.run(&options, &finished, &handle) {
            // Fails only when nobody is there any more.
            let _ = sent.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

struct Reader {
    path: PathBuf,
    sender: mpsc::Sender<io::Result<LogEntry>>,
}

impl Reader {
    fn run(
        &self,
        options: &LogOptions,
        finished: &CancellationToken,
        handle: &tokio::runtime::Handle,
    ) -> io::Result<()> {
        let mut parts = open_parts(&self.path)?;
        let mut current = None;
        if let Some(tail) = options.tail {
            seek_tail(&mut parts, tail)?;
        }
        while let Some(part) = parts.pop_front() {
            let mut part = BufReader::new(part);
            if !self.send_all(&mut part, options.since)? {
                return Ok(());
            }
            current = Some(part);
        }
        while options.follow && !self.sender.is_closed() {
            // Asked for before reading: what was written until then is read.
            let ending = finished.is_cancelled();
            if let Some(part) = &mut current
                && !self.send_all(part, options.since)?
            {
                return Ok(());
            }
            if self.moved_on(current.as_ref())? {
                // It was rotated or has just come to be; what was written before that has been read or is read now.
                if let Some(part) = &mut current
                    && !self.send_all(part, options.since)?
                {
                    return Ok(());
                }
                current = open(&self.path)?.map(BufReader::new);
                continue;
            }
            if ending {
                break;
            }
            handle.block_on(async {
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = finished.cancelled() => {}
                    () = self.sender.closed() => {}
                }
            });
        }
        Ok(())
    }

    /// Whether the path leads to another file than the open one.
    fn moved_on(&self, current: Option<&BufReader<File>>) -> io::Result<bool> {
        let now = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match current {
            Some(current) => Ok(current.get_ref().metadata()?.ino() != now),
            None => Ok(true),
        }
    }

    /// Sends all complete lines; answers whether anybody is still there.
    fn send_all(&self, part: &mut BufReader<File>, since: Option<Timestamp>) -> io::Result<bool> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = part
                .by_ref()
                .take(cri::LONGEST_LINE as u64)
                .read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(true);
            }
            if !line.ends_with(b"\n") && read < cri::LONGEST_LINE {
                // Still being written.
                let back = i64::try_from(read).map_err(io::Error::other)?;
                part.seek_relative(-back)?;
                return Ok(true);
            }
            let Some(entry) = cri::decode(&line) else {
                continue;
            };
            if since.is_some_and(|since| entry.time < since) {
                continue;
            }
            let mut bytes = Vec::with_capacity(entry.bytes.len() + 1);
            cri::write_raw(&entry, &mut bytes);
            let entry = LogEntry {
                time: entry.time,
                channel: entry.channel,
                bytes: bytes.into(),
            };
            if self.sender.blocking_send(Ok(entry)).is_err() {
                return Ok(false);
            }
        }
    }
}

/// The older part and the newer one, each if it is there.
fn open_parts(path: &Path) -> io::Result<VecDeque<File>> {
    let newer = open(path)?;
    let mut older = open(&rotated(path))?;
    // Rotated in between: then this is the same file twice.
    if let (Some(newer), Some(old)) = (&newer, &older)
        && newer.metadata()?.ino() == old.metadata()?.ino()
    {
        older = None;
    }
    Ok(older.into_iter().chain(newer).collect())
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Leaves only the last lines to be read.
fn seek_tail(parts: &mut VecDeque<File>, tail: u64) -> io::Result<()> {
    let mut missing = tail;
    let mut keep = 0;
    for part in parts.iter_mut().rev() {
        keep += 1;
        missing = seek_lines_back(part, missing)?;
        if missing == 0 {
            break;
        }
    }
    parts.drain(..parts.len() - keep);
    Ok(())
}

/// Positions a file before its last lines; answers how many there were too few.
fn seek_lines_back(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut missing = lines;
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            let at = start + at as u64;
            // The newline at the very end closes the last line, all others begin one.
            if *byte != b'\n' || at + 1 == length {
                continue;
            }
            if missing <= 1 {
                let begin = if missing == 0 { length } else { at + 1 };
                file.seek(SeekFrom::Start(begin))?;
                return Ok(0);
            }
            missing -= 1;
        }
        end = start;
    }
    if lines == 0 {
        file.seek(SeekFrom::End(0))?;
        return Ok(0);
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(if length > 0 { missing - 1 } else { missing })
}
