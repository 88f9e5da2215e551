//! What managers hold in memory, and give back.

use crate::harness::{Cluster, copy_folder, create_with, eventually, has};

/// Bytes of one write.
const WRITE: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manager_holds_is_counted_and_given_back() {
    let mut cluster = Cluster::new(3).await.started().await;
    let leader = cluster.leader().await;
    let store = cluster.store(leader);
    for number in 0..64 {
        let write = create_with(&format!("n{number}"), WRITE);
        store.propose(write).await.unwrap();
    }
    for id in 1..=3 {
        let store = cluster.store(id);
        eventually("it has everything", async || {
            has(&store, "n63").then_some(())
        })
        .await;
        let memory = store.memory();
        assert!(memory.history >= 32 * WRITE, "{memory:?}");
        assert!(memory.changes >= 64, "{memory:?}");
        assert!(memory.databases.write_buffers >= 2 << 20, "{memory:?}");
        store.give_back().await.unwrap();
        let memory = store.memory();
        assert!(memory.tail <= 1 << 20, "{memory:?}");
        assert!(memory.databases.write_buffers <= 1 << 20, "{memory:?}");
    }
    // A power cut after that.
    let copies = tempfile::tempdir().unwrap();
    copy_folder(&cluster.folder(leader), copies.path());
    store.propose(create_with("last", WRITE)).await.unwrap();
    drop(store);
    cluster.close(leader).await;
    cluster.restore(leader, copies.path());
    cluster.start(leader).await;
    let store = cluster.store(leader);
    eventually("it has everything again", async || {
        let all = (0..64).all(|number| has(&store, &format!("n{number}")));
        (all && has(&store, "last")).then_some(())
    })
    .await;
}
