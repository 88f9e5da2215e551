//! Three managers, and what happens to them.

use std::{fs, time::Duration};

use barge_server::store::{Scope, StoreError};
use barge_state::COMPRESSION;

use crate::harness::{Cluster, copy_folder, create, create_with, eventually, has, raise, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_reads_what_was_acknowledged_before() {
    let cluster = Cluster::new(3).await.started().await;
    let leader = cluster.store(cluster.leader().await);
    for round in 0..50 {
        let name = format!("n{round}");
        leader.propose(create(&name)).await.unwrap();
        for manager in cluster.managers.values() {
            manager.store.read_index().await.unwrap();
            assert!(
                has(&manager.store, &name),
                "manager {} after {name}",
                manager.id
            );
        }
    }
    let follower = cluster.store(cluster.follower().await);
    let error = follower.propose(create("x")).await.unwrap_err();
    let StoreError::NotLeader {
        leader: Some((id, address)),
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((id, address), (leader.id(), cluster.address(leader.id())));
    let status = leader.status();
    assert_eq!(status.members.len(), 3);
    assert!(
        status
            .members
            .iter()
            .all(|member| member.voter && member.lag.is_some())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_proposals_are_in_flight_at_once() {
    let cluster = Cluster::new(3).await.started().await;
    let leader = cluster.store(cluster.leader().await);
    let mut watch = leader.watch(0, Scope::all()).unwrap();
    let writes = (0..500).map(|i| {
        let leader = leader.clone();
        async move { leader.propose(create(&format!("n{i}"))).await }
    });
    let mut revisions: Vec<_> = futures::future::join_all(writes)
        .await
        .into_iter()
        .map(|outcome| outcome.unwrap().revision)
        .collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 500, "each was applied by itself");
    let mut seen = Vec::new();
    while seen.len() < 500 {
        let changes = soon("changes", watch.next()).await.unwrap();
        seen.extend(changes.iter().map(|change| change.revision));
    }
    assert_eq!(seen, revisions);
    assert!(leader.status().last_log_index < 600, "one entry each");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_compressed_once_all_managers_understand_it() {
    const SIZE: u64 = 1 << 20;
    let mut cluster = Cluster::new(3).await.started().await;
    let leader = cluster.leader().await;
    let store = cluster.store(leader);
    let log = cluster.folder(leader).join("log");
    let bytes = || -> u64 {
        let files = fs::read_dir(&log).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    };
    let mut written = Vec::new();
    for (name, level) in [("plain", None), ("compressed", Some(COMPRESSION))] {
        if let Some(level) = level {
            let raised = store.propose(raise(level)).await.unwrap();
            assert_eq!(raised.refusal, None);
        }
        let before = bytes();
        let created = store.propose(create_with(name, SIZE as usize)).await;
        assert_eq!(created.unwrap().refusal, None);
        written.push(bytes() - before);
    }
    assert!(written[0] > SIZE && written[1] < SIZE / 20, "{written:?}");
    drop(store);
    assert_all_have(&cluster, &["plain", "compressed"]).await;
    // As a power cut leaves them: the state has to be made from the log.
    let copies = tempfile::tempdir().unwrap();
    for id in 1..=3 {
        copy_folder(&cluster.folder(id), &copies.path().join(id.to_string()));
    }
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.restore(id, &copies.path().join(id.to_string()));
        cluster.start(id).await;
    }
    assert_all_have(&cluster, &["plain", "compressed"]).await;
}

async fn assert_all_have(cluster: &Cluster, names: &[&str]) {
    for manager in cluster.managers.values() {
        eventually("it has all", async || {
            let all = names.iter().all(|name| has(&manager.store, name));
            all.then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_when_leaders_are_killed() {
    let mut cluster = Cluster::new(3).await.started().await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let leader = cluster.leader().await;
        let store = cluster.store(leader);
        let writer = tokio::spawn(async move {
            let mut done = Vec::new();
            for i in 0.. {
                let name = format!("r{round}-{i}");
                match store.propose(create(&name)).await {
                    Ok(_) => done.push(name),
                    Err(_) => return done,
                }
            }
            done
        });
        let store = cluster.store(leader);
        eventually("some writes", async || {
            has(&store, &format!("r{round}-30")).then_some(())
        })
        .await;
        drop(store);
        cluster.kill(leader).await;
        acknowledged.extend(soon("the writer ends", writer).await.unwrap());
        assert_ne!(cluster.leader().await, leader);
        cluster.write(&format!("after-{round}")).await;
        cluster.start(leader).await;
        for manager in cluster.managers.values() {
            soon("a read", manager.store.read_index()).await.unwrap();
            for name in &acknowledged {
                assert!(
                    has(&manager.store, name),
                    "{name} on manager {}",
                    manager.id
                );
            }
        }
    }
    assert!(acknowledged.len() > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_restart_from_their_disks() {
    let mut cluster = Cluster::new(3).await.started().await;
    for i in 0..50 {
        cluster.write(&format!("n{i}")).await;
    }
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    for manager in cluster.managers.values() {
        soon("a read", manager.store.read_index()).await.unwrap();
        assert!(
            (0..50).all(|i| has(&manager.store, &format!("n{i}"))),
            "manager {}",
            manager.id
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_away_past_the_log_catches_up_by_snapshot() {
    let mut cluster = Cluster::new(3)
        .await
        .snapshot_log_bytes(2 << 20)
        .started()
        .await;
    let away = cluster.follower().await;
    let seen = cluster.store(away).status().last_log_index;
    cluster.kill(away).await;
    let leader = cluster.store(cluster.leader().await);
    let mut last = 0;
    // More bytes than a snapshot waits for, until the entry that comes next for the one that is away is not kept any more.
    while leader.status().purged_index <= seen {
        let writes = (last..last + 500).map(|i| {
            let leader = leader.clone();
            async move { leader.propose(create_with(&format!("n{i}"), 600)).await }
        });
        for outcome in futures::future::join_all(writes).await {
            outcome.unwrap();
        }
        last += 500;
        assert!(last < 40_000, "{:?}", leader.status());
    }
    drop(leader);
    cluster.start(away).await;
    let store = cluster.store(away);
    soon("a read", store.read_index()).await.unwrap();
    assert!((0..last).all(|i| has(&store, &format!("n{i}"))));
    assert!(store.status().snapshot_index > seen, "{:?}", store.status());
    assert!(
        store.watch(0, Scope::all()).is_err(),
        "history from before is not there"
    );
    // What was installed is what a restart finds.
    drop(store);
    cluster.kill(away).await;
    cluster.start(away).await;
    let store = cluster.store(away);
    soon("a read", store.read_index()).await.unwrap();
    assert!((0..last).all(|i| has(&store, &format!("n{i}"))));
}

/// A leader replicates before its own disk has synced, so a power cut may take entries from it that the others have
/// acknowledged. It must not give their places to other entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_lost_its_tail_replaces_nothing() {
    for round in 0..3 {
        let mut cluster = Cluster::new(3).await.started().await;
        let leader = cluster.leader().await;
        let store = cluster.store(leader);
        cluster.write("before").await;
        let copies = tempfile::tempdir().unwrap();
        copy_folder(&cluster.folder(leader), copies.path());
        for i in 0..10 {
            store.propose(create(&format!("kept-{i}"))).await.unwrap();
        }
        drop(store);
        // Back before anybody else has had the time to be elected.
        cluster.kill(leader).await;
        cluster.restore(leader, copies.path());
        cluster.start(leader).await;
        for i in 0..10 {
            cluster.write(&format!("later-{i}")).await;
        }
        for manager in cluster.managers.values() {
            soon("a read", manager.store.read_index()).await.unwrap();
            for i in 0..10 {
                let (kept, later) = (format!("kept-{i}"), format!("later-{i}"));
                assert!(
                    has(&manager.store, &kept),
                    "{kept} on {} in {round}",
                    manager.id
                );
                assert!(
                    has(&manager.store, &later),
                    "{later} on {} in {round}",
                    manager.id
                );
            }
        }
    }
}

/// A leader that is cut off does not know it yet, and proposes: that is in its log, in the places of what the others decide.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_proposed_when_it_was_cut_off_leaves_nothing() {
    let cluster = Cluster::new(3).await.started().await;
    cluster.write("before").await;
    let leader = cluster.leader().await;
    let store = cluster.store(leader);
    cluster.network.cut(leader).await;
    let names: Vec<_> = (0..10).map(|i| format!("lost-{i}")).collect();
    let deadline = Duration::from_secs(3);
    let lost = names
        .iter()
        .map(|name| store.propose_within(create(name), deadline));
    let answers = futures::future::join_all(lost).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    let unknown = |answer: &Result<_, _>| matches!(answer, Err(StoreError::Unknown));
    assert!(answers.iter().any(unknown), "in its log: {answers:?}");
    for i in 0..10 {
        cluster.write(&format!("kept-{i}")).await;
    }
    cluster.network.heal(leader);
    eventually("it is back", async || store.read_index().await.ok()).await;
    for i in 0..10 {
        cluster.write(&format!("later-{i}")).await;
    }
    for manager in cluster.managers.values() {
        soon("a read", manager.store.read_index()).await.unwrap();
        for i in 0..10 {
            for (name, there) in [("lost", false), ("kept", true), ("later", true)] {
                let name = format!("{name}-{i}");
                assert_eq!(
                    has(&manager.store, &name),
                    there,
                    "{name} on {}",
                    manager.id
                );
            }
        }
    }
}

/// Copies of all folders, taken one after the other while writes go on, are what a power cut leaves at its worst moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::new(3).await.started().await;
    let store = cluster.store(cluster.leader().await);
    let (count, mut counted) = tokio::sync::watch::channel(0);
    let writer = tokio::spawn(async move {
        for i in 0.. {
            if store.propose(create(&format!("n{i}"))).await.is_err() {
                return;
            }
            count.send_replace(i + 1);
        }
    });
    soon("some writes", counted.wait_for(|count| *count > 100))
        .await
        .unwrap();
    let acknowledged = *counted.borrow();
    let copies = tempfile::tempdir().unwrap();
    for id in 1..=3 {
        copy_folder(&cluster.folder(id), &copies.path().join(id.to_string()));
    }
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    soon("the writer ends", writer).await.unwrap();
    for id in 1..=3 {
        cluster.restore(id, &copies.path().join(id.to_string()));
        cluster.start(id).await;
    }
    for manager in cluster.managers.values() {
        soon("a read", manager.store.read_index()).await.unwrap();
        for i in 0..acknowledged {
            assert!(
                has(&manager.store, &format!("n{i}")),
                "n{i} on manager {}",
                manager.id
            );
        }
    }
}
