//! Snapshots on their way to a manager that was away for longer than the log is kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use barge_server::store::Store;

use crate::harness::{Cluster, create_with, eventually, has};

/// So slow that a transfer can be seen under way.
const RATE: u64 = 512 << 10;

fn folders(state: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(state) else {
        return Vec::new();
    };
    let paths = listed.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(prefix)
        })
        .collect()
}

fn number(path: &Path) -> u64 {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten();
    files
        .filter_map(|file| Some(file.ok()?.metadata().ok()?.len()))
        .sum()
}

/// Bytes that do not compress.
fn noise(name: &str) -> barge_proto::v1::Transaction {
    let mut transaction = create_with(name, 0);
    let seed = |seed: u64, byte: u8| seed.wrapping_mul(31).wrapping_add(byte.into());
    let mut word = name.bytes().fold(7, seed);
    let filler: String = (0..1500)
        .map(|_| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + (word >> 33) as u8 % 90)
        })
        .collect();
    let change = transaction.changes[0].change.as_mut().unwrap();
    let barge_proto::v1::change::Change::Put(record) = change else {
        panic!("it puts a record");
    };
    let Some(barge_proto::v1::record::Record::Namespace(namespace)) = &mut record.record else {
        panic!("of a namespace");
    };
    let metadata = namespace.metadata.as_mut().unwrap();
    metadata.annotations.insert("filler".into(), filler);
    transaction
}

async fn put(leader: &Store, number: usize) {
    let noise = noise(&format!("n{number}"));
    eventually("a write", async || leader.propose(noise.clone()).await.ok()).await;
}

/// Namespaces, a few at a time so that a follower keeps up and needs no snapshot itself. Answers how many there are then.
async fn write(leader: &Store, first: usize, enough: impl Fn(usize) -> bool) -> usize {
    let mut last = first;
    while !enough(last) {
        let writes = (last..last + 20).map(|number| put(leader, number));
        futures::future::join_all(writes).await;
        last += 20;
        assert!(last < 20_000, "{:?}", leader.status());
    }
    last
}

/// A follower that is sent a snapshot.
struct Away {
    cluster: Cluster,
    id: u64,
    leader: Store,
    /// How many namespaces there are.
    written: usize,
}

impl Away {
    /// It is about to be started, and its place in the log is gone.
    async fn for_long(rate: u64) -> Self {
        let mut cluster = Cluster::new(3)
            .await
            .snapshot_log_bytes(2 << 20)
            .snapshot_rate(rate)
            .started()
            .await;
        let id = cluster.follower().await;
        let end = cluster.store(id).status().last_log_index;
        cluster.close(id).await;
        let leader = cluster.store(cluster.leader().await);
        let purged = |written| leader.status().purged_index >= end + 10 && written >= 1000;
        let written = write(&leader, 0, purged).await;
        Self {
            cluster,
            id,
            leader,
            written,
        }
    }

    /// Writes, one entry each, until the newest snapshot is the one that will be sent: none is under way, and what was written
    /// since is less than what one is taken after.
    async fn settle(&mut self) {
        let begun = self.leader.status().last_log_index;
        loop {
            let status = self.leader.status();
            let since = status.last_log_index - status.snapshot_index;
            if status.snapshot_index > begun && since < (2 << 20) / 2000 {
                return;
            }
            put(&self.leader, self.written).await;
            self.written += 1;
            assert!(self.written < 20_000, "{status:?}");
        }
    }

    fn state(&self) -> PathBuf {
        self.cluster.folder(self.id).join("state")
    }

    /// Where a snapshot arrives, once some of it has.
    async fn partial(&self) -> PathBuf {
        eventually("some of the snapshot has arrived", async || {
            let incoming = folders(&self.state(), "incoming-").pop()?;
            (size(&incoming) > RATE / 2).then_some(incoming)
        })
        .await
    }

    async fn has_all(&self) {
        let store = self.cluster.store(self.id);
        // A read waits for some seconds only.
        eventually("it has caught up", async || store.read_index().await.ok()).await;
        assert!((0..self.written).all(|i| has(&store, &format!("n{i}"))));
    }

    /// The databases are closed before the process runs its exit handlers.
    async fn end(mut self) {
        drop(self.leader);
        let ids: Vec<_> = self.cluster.managers.keys().copied().collect();
        for id in ids {
            self.cluster.close(id).await;
        }
    }

    async fn installed(&self) -> PathBuf {
        eventually("the snapshot is in its place", async || {
            folders(&self.state(), "snapshot-").pop()
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_breaks_goes_on_where_it_stopped() {
    let mut away = Away::for_long(RATE).await;
    away.cluster.start(away.id).await;
    let partial = away.partial().await;
    away.cluster.network.cut(away.id).await;
    away.cluster.network.heal(away.id);
    away.has_all().await;
    // Numbers are given out in turn: a second beginning would have taken one.
    assert_eq!(
        number(&away.installed().await),
        number(&partial) + 1,
        "it was received in one piece"
    );
    assert!(!partial.exists());
    away.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_snapshot_is_begun_anew() {
    let mut away = Away::for_long(RATE).await;
    away.cluster.start(away.id).await;
    let partial = away.partial().await;
    away.cluster.network.cut(away.id).await;
    // The log that follows what it has of the old one is purged, so that it could not go on with it.
    let before = away.leader.status().purged_index;
    let twice = 2 * (2 << 20) / 1500;
    let from = away.written;
    let purged = |written| away.leader.status().purged_index > before && written >= from + twice;
    away.written = write(&away.leader, from, purged).await;
    away.cluster.network.heal(away.id);
    away.has_all().await;
    assert!(number(&away.installed().await) > number(&partial) + 1);
    assert!(!partial.exists(), "what there was of the old one is gone");
    away.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_dies_begins_anew() {
    let mut away = Away::for_long(RATE).await;
    away.cluster.start(away.id).await;
    let partial = away.partial().await;
    away.cluster.close(away.id).await;
    // As a killed process leaves it; here it goes with its handle.
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("000001.sst"), "half of a table").unwrap();
    away.cluster.start(away.id).await;
    assert!(
        !partial.join("000001.sst").exists(),
        "it is swept at the start"
    );
    away.has_all().await;
    away.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_refused_and_the_next_one_taken() {
    let mut away = Away::for_long(8 * RATE).await;
    away.settle().await;
    let sender = away.cluster.leader().await;
    let bad = folders(&away.cluster.folder(sender).join("state"), "snapshot-");
    let bad = bad.iter().max_by_key(|path| number(path)).unwrap();
    let tables = fs::read_dir(bad).unwrap().map(|file| file.unwrap().path());
    let table = tables
        .filter(|path| path.extension().is_some_and(|ending| ending == "sst"))
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    // The state has the same file by another name, and keeps it.
    fs::remove_file(&table).unwrap();
    fs::write(&table, bytes).unwrap();

    away.cluster.start(away.id).await;
    let partial = away.partial().await;
    let failure = away.cluster.managers[&away.id].process.failure.clone();
    eventually("it is refused", async || (!partial.exists()).then_some(())).await;
    assert_eq!(failure.reason(), None, "it goes on");
    assert!(folders(&away.state(), "snapshot-").is_empty());
    let newer = |written| written >= away.written + 2 * (2 << 20) / 1500;
    away.written = write(&away.leader, away.written, newer).await;
    away.has_all().await;
    assert_eq!(failure.reason(), None);
    away.end().await;
}
