//! Rot and missing files: what was acknowledged and is not there any more is refused at the start, in words that help.

use std::{
    fs,
    path::{Path, PathBuf},
};

use barge_server::store::Store;

use crate::harness::{Cluster, create_with, eventually, has};

/// A manager that wrote, restarted, and wrote again: its log is in tables and in a write-ahead log, its state in tables.
async fn used() -> Cluster {
    let mut cluster = Cluster::new(1).await.started().await;
    for round in 0..2 {
        cluster.leader().await;
        for i in 0..20 {
            let write = create_with(&format!("n{round}-{i}"), 2000);
            cluster.store(1).propose(write).await.unwrap();
        }
        cluster.store(1).shutdown().await;
        cluster.close(1).await;
        cluster.start(1).await;
    }
    cluster.write("last").await;
    cluster.close(1).await;
    cluster
}

/// What a start says.
async fn refusal(cluster: &Cluster) -> String {
    let options = cluster.options(1);
    let threads = options.process.threads.clone();
    let error = Store::open(options).await.err().expect("it starts");
    // What was opened before the damage was found is closed again.
    eventually("the databases are closed", async || {
        threads.wait(std::time::Duration::ZERO).then_some(())
    })
    .await;
    error.to_string()
}

fn newest(folder: &Path, ending: &str) -> PathBuf {
    let all = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    all.filter(|path| name(path).contains(ending))
        .max_by_key(name)
        .unwrap_or_else(|| panic!("no {ending} in {}", folder.display()))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn state_folder(cluster: &Cluster) -> PathBuf {
    newest(&cluster.folder(1).join("state"), "state-")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_is_refused_with_a_way_out() {
    type Damage = fn(&Cluster) -> PathBuf;
    let cases: [(&str, Damage); 7] = [
        ("the middle of the write-ahead log", |cluster| {
            let path = newest(&cluster.folder(1).join("log"), ".log");
            flip(&path, 100);
            path
        }),
        ("a table of the log", |cluster| {
            let path = newest(&cluster.folder(1).join("log"), ".sst");
            flip(&path, 100);
            path
        }),
        ("a table of the state", |cluster| {
            let path = newest(&state_folder(cluster), ".sst");
            flip(&path, 100);
            path
        }),
        ("the books of the log", |cluster| {
            let path = newest(&cluster.folder(1).join("log"), "MANIFEST-");
            flip(&path, 40);
            path
        }),
        ("CURRENT of the log", |cluster| {
            let path = cluster.folder(1).join("log/CURRENT");
            fs::remove_file(&path).unwrap();
            path
        }),
        ("CURRENT of the state", |cluster| {
            let path = state_folder(cluster).join("CURRENT");
            fs::remove_file(&path).unwrap();
            path
        }),
        ("all of the log", |cluster| {
            let path = cluster.folder(1).join("log");
            fs::remove_dir_all(&path).unwrap();
            path
        }),
    ];
    for (what, damage) in cases {
        let cluster = used().await;
        let path = damage(&cluster);
        let error = refusal(&cluster).await;
        assert!(
            error.contains("is damaged and was left as it is"),
            "{what}: {error}"
        );
        assert!(error.contains("join it again"), "{what}: {error}");
        let folder = path.parent().unwrap().file_name().unwrap();
        assert!(error.contains(folder.to_str().unwrap()), "{what}: {error}");
        assert_eq!(refusal(&cluster).await, error, "{what}: and again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_write_at_the_end_is_no_damage() {
    let mut cluster = used().await;
    let path = newest(&cluster.folder(1).join("log"), ".log");
    let mut bytes = fs::read(&path).unwrap();
    // The beginning of a record, as a power cut leaves it.
    bytes.extend([0x17; 5]);
    fs::write(&path, bytes).unwrap();
    cluster.start(1).await;
    assert_eq!(cluster.leader().await, 1);
    let store = cluster.store(1);
    store.read_index().await.unwrap();
    assert!(has(&store, "last") && has(&store, "n1-19"));
}
