//! The log format of Kubernetes' container runtimes: `2026-01-02T15:04:05.000000000Z stdout F line`.

use std::io::Write;

use jiff::Timestamp;

/// Longer lines are cut into partial ones of this many bytes.
pub const LONGEST_PIECE: usize = 16 * 1024;

/// No line of a log is longer: a piece and what stands before it.
pub const LONGEST_LINE: usize = LONGEST_PIECE + 64;

/// A batch ends with the line that makes it as long: lines of a few bytes grow by what stands before them.
const LONGEST_BATCH: usize = 256 * 1024;

/// Which of a container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    /// As it stands in a log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A line of a log, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written to the log.
    pub time: Timestamp,
    /// Where it came from.
    pub channel: Channel,
    /// Whether the line goes on in the next entry of its channel.
    pub partial: bool,
    /// Without the newline.
    pub bytes: &'a [u8],
}

/// Appends the lines that `bytes` begins with to `out` and answers how many bytes that took.
///
/// The beginning of a line that has not ended is left alone, unless it is long enough to be cut or `all` is wanted.
/// `out` grows by 256 KiB and a line at most.
pub fn encode(
    out: &mut Vec<u8>,
    time: Timestamp,
    channel: Channel,
    bytes: &[u8],
    all: bool,
) -> usize {
    let head = format!("{time:.9} {} ", channel.name());
    let (begin, mut taken) = (out.len(), 0);
    while out.len() - begin < LONGEST_BATCH {
        let rest = &bytes[taken..];
        let window = &rest[..rest.len().min(LONGEST_PIECE)];
        let (piece, tag, step) = match window.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&window[..end], b" F ", end + 1),
            None if window.len() == LONGEST_PIECE || (all && !window.is_empty()) => {
                (window, b" P ", window.len())
            }
            None => return taken,
        };
        out.extend_from_slice(head.trim_end().as_bytes());
        out.extend_from_slice(tag);
        out.extend_from_slice(piece);
        out.push(b'\n');
        taken += step;
    }
    taken
}

/// Reads a line of a log, with or without its newline. `None` for what is not one.
pub fn decode(line: &[u8]) -> Option<Entry<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let channel = match parts.next()? {
        b"stdout" => Channel::Stdout,
        b"stderr" => Channel::Stderr,
        _ => return None,
    };
    let partial = match parts.next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Entry {
        time,
        channel,
        partial,
        bytes: parts.next()?,
    })
}

/// Writes the bytes a container wrote.
pub fn write_raw(entry: &Entry<'_>, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = out.write_all(entry.bytes);
    if !entry.partial {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn looks_as_readers_expect() {
        let time = "2026-01-02T15:04:05Z".parse().unwrap();
        let mut out = Vec::new();
        let taken = encode(&mut out, time, Channel::Stdout, b"hello\n\nwor", false);
        assert_eq!(taken, 7);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-01-02T15:04:05.000000000Z stdout F hello\n2026-01-02T15:04:05.000000000Z stdout F \n"
        );
        let mut out = Vec::new();
        assert_eq!(encode(&mut out, time, Channel::Stderr, b"wor", true), 3);
        assert_eq!(out, b"2026-01-02T15:04:05.000000000Z stderr P wor\n");
    }

    #[test]
    fn many_short_lines_are_several_batches() {
        let bytes = vec![b'\n'; 64 * 1024];
        let (mut taken, mut batches) = (0, 0);
        while taken < bytes.len() {
            let mut out = Vec::new();
            let now = Timestamp::UNIX_EPOCH;
            taken += encode(&mut out, now, Channel::Stdout, &bytes[taken..], false);
            assert!(out.len() <= LONGEST_BATCH + LONGEST_LINE);
            batches += 1;
        }
        assert_eq!((taken, batches), (bytes.len(), 11));
    }

    #[test]
    fn nonsense_is_no_entry() {
        for line in [
            "",
            "x",
            "2026-01-02T15:04:05Z stdout",
            "2026-01-02T15:04:05Z stdin F x",
        ] {
            assert_eq!(decode(line.as_bytes()), None, "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// What goes in comes out, however it is cut into batches and whatever bytes it is of.
        #[test]
        fn round_trip(
            bytes in prop::collection::vec(prop_oneof![9 => any::<u8>(), 1 => Just(b'\n')], 0..40_000),
            cuts in prop::collection::vec(1usize..20_000, 1..8),
        ) {
            let time: Timestamp = "2026-01-02T15:04:05.123456789Z".parse().unwrap();
            let mut log = Vec::new();
            let (mut done, mut seen) = (0, 0);
            for cut in cuts {
                seen = (seen + cut).min(bytes.len());
                done += encode(&mut log, time, Channel::Stdout, &bytes[done..seen], false);
            }
            done += encode(&mut log, time, Channel::Stdout, &bytes[done..], true);
            prop_assert_eq!(done, bytes.len());
            let mut raw = Vec::new();
            for line in log.split_inclusive(|byte| *byte == b'\n') {
                prop_assert!(line.len() <= LONGEST_LINE);
                let entry = decode(line).unwrap();
                prop_assert_eq!(entry.time, time);
                write_raw(&entry, &mut raw);
            }
            prop_assert_eq!(raw, bytes);
        }
    }
}
