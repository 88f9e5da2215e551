//! The form of RocksDB's write-ahead log: blocks of 32 KiB with records that never span two of them; a batch is one full
//! record, or a first, some middle and a last one.

use super::{DURABLE, crc32c};

const BLOCK: usize = 32 << 10;
/// Checksum, length, type.
const HEADER: usize = 4 + 2 + 1;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Types with this bit may be passed over by readers that do not know them.
const IGNORABLE: u8 = 0x80;
/// A batch begins with its first sequence number and the count of its operations.
const BATCH_HEADER: usize = 8 + 4;
/// A put of a key with nine bytes; the value follows with its length.
const PUT: [u8; 2] = [1, 9];
const VALUE: usize = 8;

/// What makes the rest unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// In bytes from the beginning of the file.
    pub offset: usize,
    /// In words.
    pub what: &'static str,
}

/// What there is up to the first fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Where the last whole batch ends.
    pub end: u64,
    /// The last sequence number, of this file or those before it.
    pub sequence: Option<u64>,
    /// Where and why reading stopped before the end.
    pub fault: Option<Fault>,
}

/// A batch of which records are still to come.
struct Open {
    began: usize,
    /// As much of its header as has been seen.
    head: Vec<u8>,
}

/// Reads a file that follows others which ended with `sequence`.
pub fn scan(bytes: &[u8], sequence: Option<u64>) -> Scan {
    let mut scan = Scan {
        end: 0,
        sequence,
        fault: None,
    };
    let mut open: Option<Open> = None;
    let mut at = 0;
    let what = loop {
        if BLOCK - at % BLOCK < HEADER {
            at = (at / BLOCK + 1) * BLOCK;
        }
        if at >= bytes.len() {
            match open {
                None => return scan,
                Some(open) => {
                    at = open.began;
                    break "an unfinished write";
                }
            }
        }
        let Some(record) = Record::at(bytes, at) else {
            break "an unreadable record";
        };
        let next = at + HEADER + record.payload.len();
        let mut batch = match (record.kind, open.take()) {
            (FULL | FIRST, None) => Open {
                began: at,
                head: Vec::with_capacity(BATCH_HEADER),
            },
            (MIDDLE | LAST, Some(open)) => open,
            (kind, before) if kind & IGNORABLE != 0 => {
                open = before;
                at = next;
                continue;
            }
            _ => break "a record out of order",
        };
        // A block may end within the first few bytes.
        let missing = BATCH_HEADER - batch.head.len();
        batch.head.extend(record.payload.iter().take(missing));
        if matches!(record.kind, FULL | LAST) {
            let Some((first, count)) = header(&batch.head) else {
                break "a write without a header";
            };
            if scan.sequence.is_some_and(|last| last + 1 != first) {
                at = batch.began;
                break "a gap between writes";
            }
            scan.sequence = Some((first + u64::from(count)).saturating_sub(1));
            scan.end = next as u64;
        } else {
            open = Some(batch);
        }
        at = next;
    };
    scan.fault = Some(Fault { offset: at, what });
    scan
}

/// The highest sequence number that an intact batch among these bytes says to have been durable.
pub fn testimony(bytes: &[u8]) -> Option<u64> {
    let key: Vec<u8> = [&PUT[..], DURABLE, &[VALUE as u8]].concat();
    let before = HEADER + BATCH_HEADER;
    bytes
        .windows(key.len() + VALUE)
        .enumerate()
        .skip(before)
        .filter(|(_, window)| window.starts_with(&key))
        .filter_map(|(at, window)| {
            // The file's blocks are not needed: a record's checksum covers its length's worth of bytes.
            let record = Record::parse(bytes.get(at - before..)?)?;
            let value = window.last_chunk::<VALUE>()?;
            matches!(record.kind, FULL | FIRST).then_some(u64::from_be_bytes(*value))
        })
        .max()
}

fn header(payload: &[u8]) -> Option<(u64, u32)> {
    let (first, rest) = payload.split_first_chunk::<8>()?;
    let (count, _) = rest.split_first_chunk::<4>()?;
    Some((u64::from_le_bytes(*first), u32::from_le_bytes(*count)))
}

struct Record<'a> {
    kind: u8,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at this offset of a file, if its checksum is right.
    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let block = ((at / BLOCK + 1) * BLOCK).min(bytes.len());
        Self::parse(bytes.get(at..block)?)
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (crc, rest) = bytes.split_first_chunk::<4>()?;
        let (length, checked) = rest.split_first_chunk::<2>()?;
        let checked = checked.get(..=usize::from(u16::from_le_bytes(*length)))?;
        let (kind, payload) = checked.split_first()?;
        // Zeros are no record, though their checksum might be thought of as one.
        (*kind != 0 && crc32c::masked(checked) == u32::from_le_bytes(*crc)).then_some(Self {
            kind: *kind,
            payload,
        })
    }
}
