//! Finding the last lines of a log.
//!
//! A long line is several entries: partial ones, and a last one that closes it. Entries of both channels may alternate. So the
//! last lines are found backwards, and begin at another place in each channel.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
};

use crate::carrier::cri::{self, Channel};

/// Bytes read at a time, more than the longest line.
const BLOCK: u64 = 64 * 1024;

/// Where the wanted lines begin, by channel: a file's inode and an offset in it. What stands before that is passed over.
#[derive(Debug, Default)]
pub struct Begin([Option<(u64, u64)>; 2]);

impl Begin {
    /// Whether an entry at this place is wanted. To be asked in the order of the entries.
    pub fn has_come(&mut self, channel: Channel, inode: u64, offset: u64) -> bool {
        let begin = &mut self.0[channel as usize];
        if begin.is_some_and(|(file, at)| file == inode && offset >= at) {
            *begin = None;
        }
        begin.is_none()
    }
}

/// What is known of a channel while going backwards.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// An entry of it: one that is partial goes on in a later one.
    any: bool,
    /// The line that the last seen entry belongs to is wanted, and may begin further ahead.
    open: bool,
}

/// Leaves only those parts that have some of the last `lines`, read up to where these begin.
pub fn seek(parts: &mut VecDeque<File>, lines: u64) -> io::Result<Begin> {
    let Some(last) = parts.back() else {
        return Ok(Begin::default());
    };
    let metadata = last.metadata()?;
    let mut begin = [(parts.len() - 1, metadata.ino(), metadata.len()); 2];
    let mut seen = [Seen::default(); 2];
    let mut missing = lines;
    'parts: for (index, part) in parts.iter_mut().enumerate().rev() {
        let inode = part.metadata()?.ino();
        let mut backward = Backward::new(part)?;
        loop {
            if missing == 0 && !seen.iter().any(|channel| channel.open) {
                break 'parts;
            }
            let Some((offset, line)) = backward.previous()? else {
                break;
            };
            let Some(entry) = cri::decode(line) else {
                continue;
            };
            let channel = &mut seen[entry.channel as usize];
            if !entry.partial || !channel.any {
                // A line ends here.
                channel.open = missing > 0;
                missing = missing.saturating_sub(1);
            }
            channel.any = true;
            if channel.open {
                begin[entry.channel as usize] = (index, inode, offset);
            }
        }
    }
    let first = begin
        .iter()
        .min_by_key(|(index, _, offset)| (*index, *offset));
    if let Some((index, _, offset)) = first {
        parts[*index].seek(SeekFrom::Start(*offset))?;
        for later in parts.iter_mut().skip(index + 1) {
            later.rewind()?;
        }
        parts.drain(..index);
    }
    Ok(Begin(begin.map(|(_, inode, offset)| Some((inode, offset)))))
}

/// The lines of a file from its end to its beginning. One that has no end yet is none.
struct Backward<'a> {
    file: &'a mut File,
    block: Vec<u8>,
    /// Where the block begins in the file.
    start: u64,
    /// How much of the block is still ahead; a line ends there.
    left: usize,
}

impl<'a> Backward<'a> {
    fn new(file: &'a mut File) -> io::Result<Self> {
        let mut backward = Self {
            start: file.metadata()?.len(),
            file,
            block: Vec::new(),
            left: 0,
        };
        backward.load()?;
        let end = backward.block.iter().rposition(|byte| *byte == b'\n');
        backward.left = end.map_or(0, |at| at + 1);
        Ok(backward)
    }

    /// Reads the block that ends where the rest of this one does.
    fn load(&mut self) -> io::Result<()> {
        let end = self.start + self.left as u64;
        self.start = end.saturating_sub(BLOCK);
        self.file.seek(SeekFrom::Start(self.start))?;
        self.block.clear();
        let wanted = end - self.start;
        self.file
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.block)?;
        self.left = self.block.len();
        Ok(())
    }

    /// The line before, and where it begins. What is longer than any line, and so is none, goes by in blocks.
    fn previous(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        if self.left == 0 && self.start > 0 {
            self.load()?;
        }
        let mut before = self.newline_before();
        if before.is_none() && self.start > 0 {
            self.load()?;
            before = self.newline_before();
        }
        if self.left == 0 {
            return Ok(None);
        }
        let begin = before.map_or(0, |at| at + 1);
        let line = begin..self.left;
        self.left = begin;
        Ok(Some((self.start + begin as u64, &self.block[line])))
    }

    /// The newline before the one that ends the line ahead, if it is in this block.
    fn newline_before(&self) -> Option<usize> {
        let end = self.left.checked_sub(1)?;
        self.block[..end].iter().rposition(|byte| *byte == b'\n')
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use futures::StreamExt;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use tokio_util::sync::CancellationToken;

    use super::super::{LogEntry, LogOptions, read};
    use super::*;
    use crate::carrier::logfile::LogFile;

    fn write(log: &mut LogFile, channel: Channel, bytes: &[u8]) {
        let mut lines = Vec::new();
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            taken += cri::encode(&mut lines, Timestamp::UNIX_EPOCH, channel, rest, true);
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            log.append(line).unwrap();
        }
    }

    async fn tail(path: &Path, tail: Option<u64>) -> Vec<LogEntry> {
        let options = LogOptions {
            tail,
            ..LogOptions::default()
        };
        let entries = read(path.to_owned(), options, CancellationToken::new());
        entries.map(Result::unwrap).collect().await
    }

    async fn text(path: &Path, lines: u64) -> String {
        let entries = tail(path, Some(lines)).await;
        let text = entries.iter().map(|entry| &*entry.bytes);
        String::from_utf8(text.collect::<Vec<_>>().concat()).unwrap()
    }

    #[tokio::test]
    async fn a_line_of_many_pieces_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        let long = "x".repeat(3 * cri::LONGEST_PIECE + 7) + "\n";
        write(
            &mut log,
            Channel::Stdout,
            format!("first\n{long}").as_bytes(),
        );
        assert_eq!(text(&path, 1).await, long);
        assert_eq!(text(&path, 2).await, format!("first\n{long}"));
        // The last words of a program that died.
        write(&mut log, Channel::Stdout, b"panic: at the disco");
        assert_eq!(text(&path, 1).await, "panic: at the disco");
        assert_eq!(text(&path, 2).await, format!("{long}panic: at the disco"));
        assert_eq!(text(&path, 0).await, "");
        assert_eq!(tail(&path, Some(9)).await, tail(&path, None).await);
    }

    #[tokio::test]
    async fn a_line_that_the_other_channel_interrupts_is_whole_and_no_more_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        write(&mut log, Channel::Stdout, b"be");
        write(&mut log, Channel::Stderr, b"one\ntwo\nthree\n");
        write(&mut log, Channel::Stdout, b"gin\n");
        assert_eq!(text(&path, 1).await, "begin\n");
        assert_eq!(text(&path, 2).await, "bethree\ngin\n");
    }

    #[tokio::test]
    async fn what_is_no_log_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        write(&mut log, Channel::Stdout, b"before\n");
        log.append(&[0; 300_000]).unwrap();
        log.append(b"\n").unwrap();
        write(&mut log, Channel::Stdout, b"after\n");
        assert_eq!(text(&path, 2).await, "before\nafter\n");
        assert_eq!(text(&path, 1).await, "after\n");
    }

    /// The last lines, told by going through all entries.
    fn model(all: &[LogEntry], lines: u64) -> Vec<LogEntry> {
        let mut line_of = Vec::new();
        let mut open = [None; 2];
        let mut ends = Vec::new();
        for (index, entry) in all.iter().enumerate() {
            let open = &mut open[entry.channel as usize];
            let line = *open.get_or_insert_with(|| {
                ends.push(index);
                ends.len() - 1
            });
            ends[line] = index;
            line_of.push(line);
            if entry.bytes.ends_with(b"\n") {
                *open = None;
            }
        }
        let mut by_end: Vec<usize> = (0..ends.len()).collect();
        by_end.sort_by_key(|line| std::cmp::Reverse(ends[*line]));
        by_end.truncate(usize::try_from(lines).unwrap());
        let wanted = all.iter().zip(line_of);
        wanted
            .filter(|(_, line)| by_end.contains(line))
            .map(|(entry, _)| entry.clone())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn as_if_all_were_read(
            pieces in prop::collection::vec((any::<bool>(), prop_oneof![1 => "[a-c]{1,9}", 2 => "[a-c]{0,9}\n", 1 => "[a-c]{1,9}\n[a-c]{0,9}\n"]), 0..40),
            largest in prop_oneof![Just(10_000_u64), 100..2000_u64],
            lines in 0..30_u64,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("0.log");
            let mut log = LogFile::with_largest(&path, largest).unwrap();
            for (stdout, piece) in &pieces {
                let channel = if *stdout { Channel::Stdout } else { Channel::Stderr };
                write(&mut log, channel, piece.as_bytes());
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (all, some) = runtime.block_on(async {
                (tail(&path, None).await, tail(&path, Some(lines)).await)
            });
            prop_assert_eq!(some, model(&all, lines));
        }
    }
}
