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

mod tail;

use tail::Begin;

/// Between two looks whether a followed log has grown.
const POLL: Duration = Duration::from_millis(100);
/// Entries read ahead of a slow reader, 16 KiB each at most.
const READ_AHEAD: usize = 128;

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// At most this many lines from the end; `None` means all.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Go on as it grows.
    pub follow: bool,
    /// What follows this place, if it is still there, and else all; the other two do not matter then.
    pub after: Option<Place>,
}

/// A place in a log that is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The file, which is renamed when it is full.
    pub inode: u64,
    /// In bytes from its beginning.
    pub offset: u64,
    /// When the entry before it arrived: a file that begins later is another one with the same inode.
    pub time: Timestamp,
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
    /// Behind it.
    pub end: Place,
}

/// One file of a log, with how far it was read.
struct Part {
    file: BufReader<File>,
    inode: u64,
    offset: u64,
}

impl Part {
    /// From where the file is positioned.
    fn new(mut file: File) -> io::Result<Self> {
        Ok(Self {
            inode: file.metadata()?.ino(),
            offset: file.stream_position()?,
            file: BufReader::new(file),
        })
    }
}

/// Reads the log at `path`. A followed one ends, after its last line, once `finished` is cancelled: whoever knows that
/// the container has exited and was detached does so. Dropping the stream ends the reading.
pub fn read(
    path: PathBuf,
    options: LogOptions,
    finished: CancellationToken,
) -> impl Stream<Item = io::Result<LogEntry>> + Send + Unpin {
    read_holding(path, options, finished, ())
}

/// As [`read`]; drops `held` when the thread that reads has ended, which may be later than the stream if the disk hangs.
pub fn read_holding(
    path: PathBuf,
    options: LogOptions,
    finished: CancellationToken,
    held: impl Send + 'static,
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
        drop(held);
    });
    ReceiverStream::new(receiver)
}

/// What of a log is sent.
struct Wanted {
    since: Option<Timestamp>,
    begin: Begin,
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
        let since = options.since.filter(|_| options.after.is_none());
        let mut wanted = Wanted {
            since,
            begin: Begin::default(),
        };
        match (options.after, options.tail) {
            (Some(after), _) => seek_after(&mut parts, after)?,
            (None, Some(lines)) => wanted.begin = tail::seek(&mut parts, lines)?,
            (None, None) => {}
        }
        while let Some(part) = parts.pop_front() {
            let mut part = Part::new(part)?;
            if !self.send_all(&mut part, &mut wanted)? {
                return Ok(());
            }
            current = Some(part);
        }
        // From here on all is new.
        wanted.begin = Begin::default();
        while options.follow && !self.sender.is_closed() {
            // Asked for before reading: what was written until then is read.
            let ending = finished.is_cancelled();
            if let Some(part) = &mut current
                && !self.send_all(part, &mut wanted)?
            {
                return Ok(());
            }
            if self.moved_on(current.as_ref())? {
                // It was rotated or has just come to be; what was written before that has been read or is read now.
                if let Some(part) = &mut current
                    && !self.send_all(part, &mut wanted)?
                {
                    return Ok(());
                }
                // Rotated twice: the older part is new too.
                for part in parts_behind(&self.path, current.as_ref())? {
                    let mut part = Part::new(part)?;
                    if !self.send_all(&mut part, &mut wanted)? {
                        return Ok(());
                    }
                    current = Some(part);
                }
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
    fn moved_on(&self, current: Option<&Part>) -> io::Result<bool> {
        let now = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(current.is_none_or(|current| current.inode != now))
    }

    /// Sends all complete lines that are wanted; answers whether anybody is still there.
    fn send_all(&self, part: &mut Part, wanted: &mut Wanted) -> io::Result<bool> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = part
                .file
                .by_ref()
                .take(cri::LONGEST_LINE as u64)
                .read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(true);
            }
            if !line.ends_with(b"\n") && read < cri::LONGEST_LINE {
                // Still being written.
                let back = i64::try_from(read).map_err(io::Error::other)?;
                part.file.seek_relative(-back)?;
                return Ok(true);
            }
            let begin = part.offset;
            part.offset += read as u64;
            let Some(entry) = cri::decode(&line) else {
                continue;
            };
            if !wanted.begin.has_come(entry.channel, part.inode, begin)
                || wanted.since.is_some_and(|since| entry.time < since)
            {
                continue;
            }
            let mut bytes = Vec::with_capacity(entry.bytes.len() + 1);
            cri::write_raw(&entry, &mut bytes);
            let entry = LogEntry {
                time: entry.time,
                channel: entry.channel,
                bytes: bytes.into(),
                end: Place {
                    inode: part.inode,
                    offset: part.offset,
                    time: entry.time,
                },
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

/// The parts after the one that was read last; all if that is gone.
fn parts_behind(path: &Path, current: Option<&Part>) -> io::Result<VecDeque<File>> {
    let mut parts = open_parts(path)?;
    for (index, part) in parts.iter().enumerate() {
        let inode = part.metadata()?.ino();
        if current.is_some_and(|current| current.inode == inode) {
            parts.drain(..=index);
            break;
        }
    }
    Ok(parts)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Leaves only what follows a place, if the place is still there.
fn seek_after(parts: &mut VecDeque<File>, place: Place) -> io::Result<()> {
    for (index, part) in parts.iter_mut().enumerate() {
        let metadata = part.metadata()?;
        let same = metadata.ino() == place.inode && metadata.len() >= place.offset;
        if same && begins(part)?.is_some_and(|begins| begins <= place.time) {
            part.seek(SeekFrom::Start(place.offset))?;
            parts.drain(..index);
            break;
        }
    }
    Ok(())
}

/// When the first entry of a file arrived. Leaves the file at its beginning.
fn begins(file: &mut File) -> io::Result<Option<Timestamp>> {
    let mut line = Vec::new();
    BufReader::new(file.by_ref())
        .take(cri::LONGEST_LINE as u64)
        .read_until(b'\n', &mut line)?;
    file.rewind()?;
    Ok(cri::decode(&line).map(|entry| entry.time))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::StreamExt;

    use super::*;
    use crate::carrier::logfile::LogFile;

    async fn lines(path: &Path, after: Option<Place>) -> Vec<LogEntry> {
        let options = LogOptions {
            after,
            ..LogOptions::default()
        };
        let entries = read(path.to_owned(), options, CancellationToken::new());
        entries.map(Result::unwrap).collect().await
    }

    /// From any place on there is what follows it, also after a rotation, and all when the place is gone.
    #[tokio::test]
    async fn goes_on_after_any_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::with_largest(&path, 400).unwrap();
        let mut write = |seconds: std::ops::Range<i64>| {
            for second in seconds {
                let time = Timestamp::from_second(second).unwrap();
                let mut line = Vec::new();
                let text = format!("line {second}\n");
                cri::encode(&mut line, time, Channel::Stdout, text.as_bytes(), false);
                log.append(&line).unwrap();
            }
        };
        write(0..12);
        let all = lines(&path, None).await;
        assert_eq!(all.len(), 12, "two files");
        for (index, entry) in all.iter().enumerate() {
            assert_eq!(lines(&path, Some(entry.end)).await, all[index + 1..]);
        }
        write(12..16);
        let later = lines(&path, Some(all[11].end)).await;
        assert_eq!(later.len(), 4);
        write(16..60);
        let left = lines(&path, None).await;
        assert_eq!(lines(&path, Some(all[11].end)).await, left, "all there is");
        // Another file that has the inode of the one that is gone.
        let stale = Place {
            time: Timestamp::from_second(1).unwrap(),
            ..left[3].end
        };
        assert_eq!(lines(&path, Some(stale)).await, left);
    }

    /// Between two looks of the reader the log is rotated twice: it has read neither of the parts that are there then.
    #[tokio::test]
    async fn follows_across_two_rotations_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::with_largest(&path, 10_000).unwrap();
        let mut write = |seconds: std::ops::Range<i64>| {
            for second in seconds {
                let time = Timestamp::from_second(second).unwrap();
                let mut line = Vec::new();
                cri::encode(&mut line, time, Channel::Stdout, b"one line\n", false);
                log.append(&line).unwrap();
            }
        };
        write(0..10);
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let finished = CancellationToken::new();
        let mut entries = read(path.clone(), options, finished.clone());
        let mut seconds = Vec::new();
        while seconds.len() < 10 {
            seconds.push(entries.next().await.unwrap().unwrap().time.as_second());
        }
        // A file takes 200 lines.
        write(10..500);
        finished.cancel();
        while let Some(entry) = entries.next().await {
            seconds.push(entry.unwrap().time.as_second());
        }
        assert_eq!(seconds, (0..500).collect::<Vec<_>>());
    }
}
