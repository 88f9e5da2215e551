//! A process that dies between any two steps of storage: the next start finds every acknowledged write, once, and
//! nothing half done.

use std::{
    collections::BTreeSet,
    env,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use barge_proto::v1::{Namespace, Transaction};
use barge_server::{
    storage::{Point, Points},
    store::Store,
};

use crate::harness::{Cluster, create_with, eventually, has, soon};

/// Where the process that dies works, and when it dies.
const FOLDER: &str = "BARGE_TEST_CRASH_FOLDER";
const POINT: &str = "BARGE_TEST_CRASH_POINT";
const PASSES: &str = "BARGE_TEST_CRASH_PASSES";

/// So small that a few hundred writes take some snapshots.
const SNAPSHOT_BYTES: u64 = 128 << 10;
const WRITE_BYTES: usize = 2000;

/// Twenty times what any point needs.
const MOST_WRITES: usize = 20_000;

/// Ends the process without any destructor at a point, when it is passed for the nth time.
fn die_at(point: Point, passes: usize) -> Points {
    let passed = AtomicUsize::new(0);
    Points::listen(move |now| {
        if now == point && passed.fetch_add(1, Ordering::SeqCst) + 1 == passes {
            std::process::abort();
        }
    })
}

/// Each application of it takes a revision, so that one too many shows.
fn write(name: &str) -> Transaction {
    Transaction {
        preconditions: Vec::new(),
        ..create_with(name, WRITE_BYTES)
    }
}

/// Writes until the process dies; prints what was acknowledged. One that lives on after so many writes never came to its
/// point.
async fn write_on(cluster: &Cluster, prefix: &str) {
    for i in 0..MOST_WRITES {
        let name = format!("{prefix}-{i}");
        let leader = cluster.store(cluster.leader().await);
        // A leader that is elected anew may lose what was under way; another name does as well.
        if leader.propose(write(&name)).await.is_ok() {
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {name}").unwrap();
            out.flush().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of its own that the tests below start, to see it die"]
async fn victim() {
    let folder = env::var(FOLDER).expect("started by another test");
    let name = env::var(POINT).expect("a point");
    let passes = env::var(PASSES).expect("a number").parse().unwrap();
    let point = *Point::ALL
        .iter()
        .find(|point| point.name() == name)
        .unwrap();
    let points = die_at(point, passes);
    let folder = Path::new(&folder);
    if !is_install(point) {
        let mut cluster = Cluster::at(folder, 1).await;
        cluster = cluster.snapshot_log_bytes(SNAPSHOT_BYTES);
        cluster.listen(1, points);
        cluster.start(1).await;
        cluster.store(1).bootstrap().await.unwrap();
        return write_on(&cluster, point.name()).await;
    }
    // One that was away for longer than the log is kept, and is sent a snapshot.
    let mut cluster = Cluster::at(folder, 3).await;
    cluster = cluster.snapshot_log_bytes(SNAPSHOT_BYTES).started().await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    let end = cluster.store(away).status().last_log_index;
    cluster.close(away).await;
    cluster.listen(away, points);
    let store = cluster.store(leader);
    let compacted = async {
        eventually("the log is purged", async || {
            (store.status().purged_index > end + 1).then_some(())
        })
        .await;
    };
    tokio::select! {
        () = compacted => {}
        () = write_on(&cluster, "away") => {}
    }
    cluster.start(away).await;
    write_on(&cluster, point.name()).await;
}

fn is_install(point: Point) -> bool {
    point.name().starts_with("snapshot.install.")
}

/// Lets a process write until it dies; answers what it saw acknowledged.
fn acknowledged_until(point: Point, passes: usize, folder: &Path) -> BTreeSet<String> {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::victim", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(POINT, point.name())
        .env(PASSES, passes.to_string())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(6), "{}: {error}", point.name());
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned()))
        .collect()
}

/// Everything that was acknowledged is there, and nothing was applied twice.
async fn check(store: &Store, acknowledged: &BTreeSet<String>, when: &str) {
    soon("a read", store.read_index()).await.unwrap();
    for name in acknowledged {
        assert!(has(store, name), "{name} is missing after {when}");
    }
    let (count, revision) = store.read(|state| {
        (
            state.list::<Namespace>(None).count() as u64,
            state.revision(),
        )
    });
    assert_eq!(revision, count, "after {when}");
}

/// What a finished or interrupted step leaves is gone, once nothing is under way.
async fn check_folder(folder: &Path, when: &str) {
    let what = format!("nothing is left over in {} after {when}", folder.display());
    eventually(&what, async || {
        let names: Vec<_> = std::fs::read_dir(folder.join("state"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
        let counts = (count("state-"), count("snapshot-"), count("incoming-"));
        matches!(counts, (1, 0 | 1, 0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_between_any_two_steps_loses_no_acknowledged_write() {
    let root = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for point in Point::ALL.iter().filter(|point| !is_install(**point)) {
        // The first vote is the cluster's beginning; a second one comes only with a second start.
        let passes = match point.name().split_once('.') {
            Some(("append" | "apply", _)) => 30,
            Some(("snapshot", _)) => 3,
            _ => 1,
        };
        let when = format!("{} × {passes}", point.name());
        acknowledged.extend(acknowledged_until(*point, passes, root.path()));
        let mut cluster = Cluster::at(root.path(), 1).await;
        cluster.start(1).await;
        check_folder(&cluster.folder(1), &when).await;
        let store = cluster.store(1);
        store.bootstrap().await.unwrap();
        check(&store, &acknowledged, &when).await;
        let after = format!("after-{}", point.name());
        store.propose(write(&after)).await.unwrap();
        acknowledged.insert(after);
        drop(store);
        cluster.close(1).await;
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_while_a_snapshot_is_installed_leaves_a_whole_manager() {
    for point in Point::ALL.iter().filter(|point| is_install(**point)) {
        let root = tempfile::tempdir().unwrap();
        let acknowledged = acknowledged_until(*point, 1, root.path());
        assert!(acknowledged.len() > 30, "{}", acknowledged.len());
        let mut cluster = Cluster::at(root.path(), 3).await;
        for id in 1..=3 {
            cluster.start(id).await;
        }
        for id in 1..=3 {
            check(&cluster.store(id), &acknowledged, point.name()).await;
            check_folder(&cluster.folder(id), point.name()).await;
        }
    }
}
