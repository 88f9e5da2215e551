//! One manager.

use std::time::Duration;

use barge_server::{
    storage::{
        StorageError,
        rocks::Identity,
        snapshot::StateFolder,
        state_db::{StateDb, Writes},
    },
    store::{OpenError, Scope, Store, StoreError},
};
use barge_state::{LEVEL, Stored};

use crate::harness::{
    Cluster, cluster_at_level, create, create_with, eventually, has, raise, soon,
};

/// What a manager that is too old has to say.
const WAY_OUT: &str = "install the version that the cluster runs";

#[tokio::test(flavor = "multi_thread")]
async fn bootstraps_writes_reads_and_restarts() {
    let mut cluster = Cluster::new(1).await.started().await;
    let store = cluster.store(1);
    let outcome = store.propose(create("a")).await.unwrap();
    assert_eq!(outcome.refusal, None);
    assert!(has(&store, "a"), "it is applied when it is acknowledged");
    store.read_index().await.unwrap();
    let again = store.propose(create("a")).await.unwrap();
    assert!(again.refusal.is_some(), "a refusal is a normal answer");
    let (revision, term) = (store.status().revision, store.status().term);
    drop(store);

    cluster.kill(1).await;
    cluster.start(1).await;
    let store = cluster.store(1);
    soon("reads after a restart", store.read_index())
        .await
        .unwrap();
    assert!(has(&store, "a"));
    assert_eq!(store.status().revision, revision);
    assert!(
        store.status().term > term,
        "a restarted leader goes on in a new term only"
    );
    store.bootstrap().await.unwrap();
    cluster.write("b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_from_any_revision_that_is_kept() {
    let cluster = Cluster::new(1).await.started().await;
    let store = cluster.store(1);
    let first = store.propose(create("a")).await.unwrap().revision;
    let mut all = store.watch(0, Scope::all()).unwrap();
    let mut later = store.watch(first, Scope::all()).unwrap();
    let second = store.propose(create("b")).await.unwrap().revision;
    let mut seen = Vec::new();
    while seen.last() != Some(&"b".to_owned()) {
        let changes = soon("changes", all.next()).await.unwrap();
        seen.extend(changes.iter().map(|change| change.name().to_owned()));
    }
    assert_eq!(seen, ["a", "b"]);
    let changes = soon("changes", later.next()).await.unwrap();
    assert_eq!(
        changes
            .iter()
            .map(|change| change.name())
            .collect::<Vec<_>>(),
        ["b"]
    );
    assert_eq!(later.progress(), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_what_cannot_be_one_entry() {
    let cluster = Cluster::new(1).await.started().await;
    let error = cluster
        .store(1)
        .propose(create_with("big", 3 << 20))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    cluster.write("small").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_the_folder_of_another_cluster() {
    let mut cluster = Cluster::new(1).await.started().await;
    cluster.kill(1).await;
    let mut options = cluster.options(1);
    options.cluster_id = "another".into();
    let error = crate::harness::eventually("the folder is free", async || {
        let error = barge_server::store::Store::open(options.clone())
            .await
            .err()
            .unwrap();
        matches!(error, OpenError::Storage(StorageError::Foreign { .. })).then_some(error)
    })
    .await;
    assert!(
        error
            .to_string()
            .contains("belongs to manager 1 of cluster cluster"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_a_state_that_it_would_misunderstand() {
    let mut cluster = Cluster::new(1).await.started().await;
    cluster.store(1).shutdown().await;
    cluster.close(1).await;
    // As a newer version leaves it.
    let options = cluster.options(1);
    let owner = Identity {
        cluster_id: options.cluster_id.clone(),
        raft_id: options.raft_id,
    };
    let state = StateFolder::open(&options.folder.join("state")).unwrap();
    let db = StateDb::open(&state.state().unwrap(), &owner).unwrap();
    let mut writes = Writes::default();
    let record = cluster_at_level(LEVEL + 1);
    writes.record(&Stored::from_record(record).unwrap());
    db.write(writes).unwrap();
    db.flush().unwrap();
    drop(db);
    let error = Store::open(options).await.err().unwrap().to_string();
    assert!(error.contains(WAY_OUT), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_where_the_log_goes_beyond_what_it_understands() {
    let mut cluster = Cluster::new(1).await.started().await;
    let failure = cluster.managers[&1].process.failure.clone();
    let unanswered = soon("it ends", cluster.store(1).propose(raise(LEVEL + 1))).await;
    assert!(unanswered.is_err(), "{unanswered:?}");
    let reason = soon("it says why", failure.wait()).await;
    assert!(reason.contains(WAY_OUT), "{reason}");
    cluster.close(1).await;
    // And again, whenever it is started.
    let options = cluster.options(1);
    let (failure, threads) = (
        options.process.failure.clone(),
        options.process.threads.clone(),
    );
    match Store::open(options).await {
        // It has failed while it applied what was committed, or does so when it leads again.
        Ok(store) => {
            soon("it fails again", failure.wait()).await;
            store.abandon().await;
        }
        Err(error) => assert!(matches!(error, OpenError::Raft(_)), "{error}"),
    }
    let reason = failure.reason().unwrap();
    assert!(reason.contains(WAY_OUT), "{reason}");
    eventually("the databases are closed", async || {
        threads.wait(Duration::ZERO).then_some(())
    })
    .await;
}
