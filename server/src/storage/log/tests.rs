#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use openraft::{
    entry::RaftEntry as _,
    storage::{RaftLogStorage, RaftLogStorageExt},
    vote::RaftLeaderId as _,
};

use super::*;
use crate::storage::types::{Command as Data, LeaderId, Payload};

fn owner() -> Identity {
    Identity {
        cluster_id: "c".into(),
        raft_id: 1,
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, 1), index)
}

fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<Entry> {
    range
        .map(|i| {
            Entry::new(
                id(term, i),
                Payload::Normal(Data::from_encoded(vec![i as u8; 100].into())),
            )
        })
        .collect()
}

/// A log, closed when it has been dropped.
struct Log {
    store: LogStore,
    // Dropped after the store.
    _closed: Closed,
}

impl Log {
    fn open(path: &Path) -> Self {
        let process = Process::default();
        let store = LogStore::open(path, &owner(), &process).unwrap();
        Self {
            store,
            _closed: Closed(process),
        }
    }

    fn close(self) {
        drop(self);
    }
}

/// Waits for the threads: the next one opens the same folder, or the process ends.
struct Closed(Process);

impl Drop for Closed {
    fn drop(&mut self) {
        let closed = self.0.threads.wait(Duration::from_secs(30));
        assert!(closed || std::thread::panicking(), "a log stays open");
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    log.store
        .save_vote(&Vote::new_committed(3, 1))
        .await
        .unwrap();
    log.store.blocking_append(entries(3, 0..10)).await.unwrap();
    log.store.save_committed(Some(id(3, 8))).await.unwrap();
    log.store.truncate_after(Some(id(3, 7))).await.unwrap();
    log.store.blocking_append(entries(4, 8..12)).await.unwrap();
    log.store.purge(id(3, 2)).await.unwrap();
    log.close();

    let mut log = Log::open(dir.path());
    let state = log.store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(id(3, 2)));
    assert_eq!(state.last_log_id, Some(id(4, 11)));
    assert_eq!(
        log.store.read_vote().await.unwrap(),
        Some(Vote::new_committed(3, 1))
    );
    assert_eq!(log.store.read_committed().await.unwrap(), Some(id(3, 8)));
    let mut expected = entries(3, 3..8);
    expected.extend(entries(4, 8..12));
    assert_eq!(
        log.store.try_get_log_entries(0..100).await.unwrap(),
        expected
    );
    let streamed: Vec<_> = {
        use futures::TryStreamExt;
        log.store
            .entries_stream(5..10)
            .await
            .try_collect()
            .await
            .unwrap()
    };
    assert_eq!(streamed, expected[2..7]);
    log.close();
}

#[tokio::test]
async fn what_was_flushed_survives_a_power_cut_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&dir.path().join("log"));
    let check = async |copy: &str, count| {
        let copy = dir.path().join(copy);
        copy_folder(&dir.path().join("log"), &copy);
        let mut copied = Log::open(&copy);
        let found = copied.store.try_get_log_entries(0..100).await.unwrap();
        assert_eq!(found, entries(1, 0..count), "{}", copy.display());
        copied.close();
    };
    log.store.blocking_append(entries(1, 0..10)).await.unwrap();
    log.store.forget_tail(0);
    assert_eq!(log.store.tail_bytes(), 0);
    let held = log.store.usage().write_buffers;
    // Nothing was written to the new write-ahead log yet.
    log.store.shared.disk.flush().unwrap();
    check("bare", 10).await;
    log.store.blocking_append(entries(1, 10..20)).await.unwrap();
    log.store.flush().await.unwrap();
    check("flushed", 20).await;
    assert!(log.store.usage().write_buffers < held.max(1 << 20));
    log.store.blocking_append(entries(1, 20..30)).await.unwrap();
    check("written on", 30).await;
    log.close();
}

#[tokio::test]
async fn a_copy_taken_while_writing_has_all_that_was_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&dir.path().join("log"));
    for round in 0..20 {
        let first = round * 10;
        log.store
            .blocking_append(entries(1, first..first + 10))
            .await
            .unwrap();
        // Not waited for: it may or may not be in the copy.
        log.store
            .append(entries(1, first + 10..first + 15), IoFlushed::noop())
            .await
            .unwrap();
        let copy = dir.path().join(format!("copy-{round}"));
        copy_folder(&dir.path().join("log"), &copy);
        let mut copied = Log::open(&copy);
        let last = copied
            .store
            .get_log_state()
            .await
            .unwrap()
            .last_log_id
            .unwrap();
        assert!(last.index >= first + 9, "{last} in round {round}");
        let read = copied.store.try_get_log_entries(..).await.unwrap();
        assert_eq!(read, entries(1, 0..last.index + 1));
        copied.close();
        log.store
            .truncate_after(Some(id(1, first + 9)))
            .await
            .unwrap();
    }
    log.close();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn requests_are_cut_by_bytes_from_memory_and_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let big: Vec<_> = (0..40)
        .map(|i| {
            Entry::new(
                id(1, i),
                Payload::Normal(Data::from_encoded(vec![1; 300 << 10].into())),
            )
        })
        .collect();
    // More than stays in memory.
    for entry in big.chunks(4) {
        log.store.blocking_append(entry.to_vec()).await.unwrap();
    }
    assert!(
        log.store.shared.tail().start() > 0,
        "old entries left memory"
    );
    for from in [0, 36] {
        let read = log.store.limited_get_log_entries(from, 40).await.unwrap();
        assert_eq!(read.len(), 4, "just above 1 MiB");
        assert_eq!(read[0].log_id.index, from);
    }
    assert_eq!(log.store.try_get_log_entries(0..40).await.unwrap(), big);
    log.close();
}

#[tokio::test]
async fn a_hole_is_an_error_not_a_shorter_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    log.store.blocking_append(entries(1, 0..10)).await.unwrap();
    log.store.save_vote(&Vote::new(2, 1)).await.unwrap();
    log.close();
    let disk = Disk::open(dir.path(), &owner()).unwrap();
    let mut writes = disk.begin(0).unwrap();
    writes.truncate_from(0);
    writes.append(&entries(1, 0..4));
    writes.append(&entries(1, 6..10));
    disk.write(writes).unwrap();
    drop(disk);
    let error = LogStore::open(dir.path(), &owner(), &Process::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("T1-N1.6 follows T1-N1.3") && error.contains("join it again"),
        "{error}"
    );
}

/// Entries of 1 MiB.
fn large(range: std::ops::Range<u64>) -> Vec<Entry> {
    let large = range.map(|i| {
        let command = Data::from_encoded(vec![i as u8; 1 << 20].into());
        Entry::new(id(1, i), Payload::Normal(command))
    });
    large.collect()
}

#[tokio::test]
async fn entries_from_before_they_had_a_column_family_are_moved() {
    let dir = tempfile::tempdir().unwrap();
    Log::open(dir.path()).close();
    // As it was: entries among the rest, on disk and in the write-ahead log. Some have been moved already, when that was
    // interrupted.
    let options = disk::options();
    let families = rocksdb::DB::list_cf(&options, dir.path()).unwrap();
    let db = rocksdb::DB::open_cf(&options, dir.path(), families).unwrap();
    for entry in large(0..30) {
        let value = codec::encode(&codec::entry_to_proto(&entry));
        let index = entry.log_id.index;
        if index < 10 {
            let family = db.cf_handle("entries").unwrap();
            db.put_cf(&family, disk::entry_key(index), &value).unwrap();
        }
        db.put(disk::entry_key(index), value).unwrap();
        if index == 20 {
            db.flush().unwrap();
        }
    }
    drop(db);
    for _ in 0..2 {
        let mut log = Log::open(dir.path());
        let all = log.store.try_get_log_entries(..).await.unwrap();
        assert_eq!(all, large(0..30));
        log.close();
    }
    let db = rocksdb::DB::open(&options, dir.path());
    assert!(db.is_err(), "an older version does not take it for empty");
}

#[tokio::test]
async fn files_of_purged_entries_are_deleted_and_no_others_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    for first in (0..200).step_by(4) {
        let entries = large(first..first + 4);
        log.store.blocking_append(entries).await.unwrap();
    }
    let shared = log.store.shared.clone();
    let files = || shared.disk.files().unwrap();
    let before = files();
    assert!(before.len() >= 10, "none were merged: {before:?}");
    log.store.purge(id(1, 149)).await.unwrap();
    // Answered after the purge.
    log.store.save_vote(&Vote::new(2, 1)).await.unwrap();
    let names = |files: Vec<rocksdb::LiveFile>| {
        let names = files.into_iter().map(|file| file.name);
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let needed = |file: &rocksdb::LiveFile| {
        file.level == 0 || file.end_key.as_deref() > Some(&disk::entry_key(149)[..])
    };
    assert_eq!(
        names(files()),
        names(before.into_iter().filter(needed).collect())
    );
    let rest = log.store.try_get_log_entries(150..200).await.unwrap();
    assert_eq!(rest, large(150..200));
    drop(shared);
    log.close();
    let mut log = Log::open(dir.path());
    assert_eq!(log.store.loaded_bytes() >> 20, 50);
    let rest = log.store.try_get_log_entries(..).await.unwrap();
    assert_eq!(rest, large(150..200));
    log.close();
}
