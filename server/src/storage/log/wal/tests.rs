#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use openraft::{entry::RaftEntry as _, vote::RaftLeaderId as _};
use proptest::prelude::*;

use super::*;
use crate::storage::{
    LogStore, Process,
    log::disk::Disk,
    rocks::Identity,
    types::{Command, Entry, LeaderId, LogId, Payload, Vote},
};

fn owner() -> Identity {
    Identity {
        cluster_id: "c".into(),
        raft_id: 1,
    }
}

fn entry(index: u64) -> Entry {
    // Some span several records of the file.
    sized(index, if index % 7 == 3 { 70_000 } else { 60 })
}

fn sized(index: u64, size: usize) -> Entry {
    Entry::new(
        LogId::new(LeaderId::new(1, 1), index),
        Payload::Normal(Command::from_encoded(vec![index as u8; size].into())),
    )
}

/// A log as a crash leaves it: batches of one entry, each acknowledged, and where each ended in the file.
struct Crashed {
    dir: tempfile::TempDir,
    ends: Vec<u64>,
}

impl Crashed {
    fn new(entries: u64) -> Self {
        Self::of((0..entries).map(entry))
    }

    fn of(entries: impl Iterator<Item = Entry>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path().join("live");
        let disk = Disk::open(&live, &owner()).unwrap();
        let file = files(&live).unwrap().pop().unwrap();
        let mut ends = Vec::new();
        for entry in entries {
            let mut writes = disk.begin(0).unwrap();
            writes.append(&[entry]);
            disk.write(writes).unwrap();
            ends.push(fs::metadata(&file).unwrap().len());
        }
        let crashed = dir.path().join("crashed");
        fs::create_dir(&crashed).unwrap();
        for file in fs::read_dir(&live).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), crashed.join(file.file_name())).unwrap();
        }
        Self { dir, ends }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("crashed")
    }

    fn file(&self) -> PathBuf {
        files(&self.folder()).unwrap().pop().unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    /// How many entries there are after a start.
    fn open(&self) -> Result<u64, String> {
        let disk = Disk::open(&self.folder(), &owner()).map_err(|error| error.to_string())?;
        let loaded = disk.load().map_err(|error| error.to_string())?;
        Ok(loaded.last.map_or(0, |last| last.index + 1))
    }
}

#[test]
fn a_crash_leaves_nothing_to_cut() {
    let crashed = Crashed::new(30);
    let before = crashed.bytes();
    inspect(&crashed.folder()).unwrap().cut().unwrap();
    assert_eq!(crashed.bytes(), before);
    assert_eq!(crashed.open(), Ok(30));
}

#[test]
fn a_write_may_be_split_anywhere() {
    const BLOCK: usize = 32 << 10;
    let end = |size: usize| Crashed::of([sized(0, size)].into_iter()).ends[0] as usize;
    let size = BLOCK - 200;
    let rest = BLOCK - end(size);
    for left in 0..50 {
        let first = size + rest - left;
        assert_eq!(end(first), BLOCK - left);
        let crashed = Crashed::of([sized(0, first), sized(1, 100)].into_iter());
        assert_eq!(
            crashed.open(),
            Ok(2),
            "{left} bytes before the end of a block"
        );
    }
}

#[test]
fn an_unfinished_end_is_cut_off() {
    let crashed = Crashed::new(12);
    let bytes = crashed.bytes();
    let last_but_one = crashed.ends[10] as usize;
    for length in [last_but_one + 3, last_but_one + 15, bytes.len() - 1] {
        fs::write(crashed.file(), &bytes[..length]).unwrap();
        inspect(&crashed.folder()).unwrap().cut().unwrap();
        assert_eq!(crashed.bytes(), bytes[..last_but_one]);
    }
    assert_eq!(crashed.open(), Ok(11));
    assert_eq!(crashed.open(), Ok(11), "and again");
}

#[test]
fn a_file_system_may_leave_zeros_where_the_end_was_not_written() {
    let crashed = Crashed::new(12);
    let mut bytes = crashed.bytes();
    let end = crashed.ends[10] as usize;
    bytes[end..].fill(0);
    fs::write(crashed.file(), &bytes).unwrap();
    assert_eq!(crashed.open(), Ok(11));
}

#[test]
fn zeros_in_the_middle_are_refused() {
    let crashed = Crashed::new(40);
    let mut bytes = crashed.bytes();
    bytes[32 << 10..64 << 10].fill(0);
    fs::write(crashed.file(), &bytes).unwrap();
    let error = crashed.open().unwrap_err();
    assert!(error.contains("were acknowledged"), "{error}");
    assert_eq!(crashed.bytes(), bytes, "what was refused is left as it is");
}

#[test]
fn a_missing_log_is_refused() {
    let crashed = Crashed::new(5);
    fs::remove_file(crashed.file()).unwrap();
    let error = crashed.open().unwrap_err();
    assert!(error.contains("write-ahead log is missing"), "{error}");
}

#[test]
fn a_vote_that_rots_is_noticed_though_nothing_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::default();
    let store = LogStore::open(dir.path(), &owner(), &process).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use openraft::storage::RaftLogStorage;
        let mut store = store;
        store.save_vote(&Vote::new(0x5eed, 1)).await.unwrap();
    });
    assert!(process.threads.wait(Duration::from_secs(30)));
    let path = files(dir.path()).unwrap().pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(6)
        .rposition(|window| window == b"m/vote")
        .unwrap();
    bytes[at + 8] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = Disk::open(dir.path(), &owner()).err().unwrap().to_string();
    assert!(error.contains("unreadable record"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Rot anywhere is refused if it takes something that later writes know to be acknowledged, and never shortens the log
    /// by more than its last write otherwise.
    #[test]
    fn one_flipped_bit_takes_no_acknowledged_write(place in 0.0f64..1.0, bit in 0u8..8) {
        let crashed = Crashed::new(12);
        let mut bytes = crashed.bytes();
        let at = (bytes.len() as f64 * place) as usize;
        bytes[at] ^= 1 << bit;
        fs::write(crashed.file(), &bytes).unwrap();
        match crashed.open() {
            Err(error) => prop_assert!(error.contains("were acknowledged"), "{}", error),
            // The last write alone cannot be told from one that was never finished.
            Ok(left) => prop_assert!(left == 12 || (left == 11 && at as u64 >= crashed.ends[10]), "{} at {}", left, at),
        }
    }
}
