//! Snapshots on their way to a manager that was away for longer than the log is kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_breaks_goes_on_where_it_stopped() {
    let mut cluster = Cluster::new(3)
        .await
        .snapshot_log_bytes(2 << 20)
        .snapshot_rate(RATE)
        .started()
        .await;
    let away = cluster.follower().await;
    let end = cluster.store(away).status().last_log_index;
    cluster.close(away).await;
    let leader = cluster.store(cluster.leader().await);
    let mut last = 0;
    while leader.status().purged_index < end + 10 || last < 1000 {
        // Few at a time, so that the other follower keeps up and needs no snapshot itself.
        let writes = (last..last + 20).map(|i| {
            let leader = leader.clone();
            async move {
                eventually("a write", async || {
                    leader.propose(noise(&format!("n{i}"))).await.ok()
                })
                .await
            }
        });
        futures::future::join_all(writes).await;
        last += 20;
        assert!(last < 20_000, "{:?}", leader.status());
    }
    cluster.start(away).await;
    let state = cluster.folder(away).join("state");
    let partial = eventually("some of the snapshot has arrived", async || {
        let incoming = folders(&state, "incoming-").pop()?;
        (size(&incoming) > RATE / 2).then_some(incoming)
    })
    .await;
    cluster.network.cut(away);
    let before = size(&partial);
    cluster.network.heal(away);
    let store = cluster.store(away);
    // A read waits for some seconds only.
    eventually("it has caught up", async || store.read_index().await.ok()).await;
    assert!((0..last).all(|i| has(&store, &format!("n{i}"))));
    assert!(before > 0, "something was there already");
    let installed = eventually("the snapshot is in its place", async || {
        folders(&state, "snapshot-").pop()
    })
    .await;
    // Numbers are given out in turn: a second beginning would have taken one.
    assert_eq!(
        number(&installed),
        number(&partial) + 1,
        "it was received in one piece"
    );
    assert!(!partial.exists());
}
