//! Connections that break, leadership that moves, members that come and go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use barge_server::store::{MemberChange, MemberError, Store, StoreError};

use tokio::time::timeout;
use tracing::{Event, Subscriber, subscriber::set_default};
use tracing_subscriber::{Layer, Registry, layer::Context, prelude::*};

use crate::harness::{Cluster, create, eventually, has, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_cut_off_disturbs_nobody() {
    let cluster = Cluster::new(3).await.started().await;
    let leader = cluster.leader().await;
    let away = cluster.follower().await;
    let term = cluster.store(leader).status().term;
    cluster.network.cut(away).await;
    let store = cluster.store(away);
    // It asks for votes again and again.
    eventually("elections", async || {
        (cluster.network.attempts(away) > 20).then_some(())
    })
    .await;
    cluster.write("meanwhile").await;
    // Each of its elections asks two others; a leader that does not wait between attempts asks thousands of times.
    let (asked, attempts) = (cluster.network.asked(away), cluster.network.attempts(away));
    assert!(
        asked < 50 * attempts,
        "{asked} attempts to reach it while it made {attempts}"
    );
    cluster.network.heal(away);
    let reads = eventually("it reads again", async || store.read_index().await.ok());
    reads.await;
    assert!(has(&store, "meanwhile"));
    for manager in cluster.managers.values() {
        assert_eq!(manager.store.status().term, term, "manager {}", manager.id);
    }
    assert_eq!(cluster.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_cut_off_neither_writes_nor_reads() {
    let cluster = Cluster::new(3).await.started().await;
    let old = cluster.leader().await;
    let store = cluster.store(old);
    cluster.write("before").await;
    cluster.network.cut(old).await;
    eventually("no connection is left", async || {
        (cluster.network.attempts(old) > 0).then_some(())
    })
    .await;
    let (write, read) = tokio::join!(
        store.propose_within(create("in the dark"), Duration::from_secs(2)),
        store.read_index(),
    );
    let error = write.unwrap_err();
    assert!(
        matches!(error, StoreError::Unknown | StoreError::NoQuorum),
        "{error}"
    );
    assert_eq!(read.unwrap_err(), StoreError::NoQuorum);
    let new = cluster.leader().await;
    assert_ne!(new, old);
    cluster.write("meanwhile").await;
    cluster.network.heal(old);
    eventually("it reads again", async || store.read_index().await.ok()).await;
    assert!(has(&store, "meanwhile"));
    assert!(!has(&store, "in the dark"), "nobody else has ever seen it");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_without_an_election_by_timeout() {
    let cluster = Cluster::new(3).await.started().await;
    for _ in 0..5 {
        let old = cluster.leader().await;
        cluster.write(&format!("before-{old}")).await;
        let to = cluster
            .store(old)
            .hand_over()
            .await
            .unwrap()
            .expect("somebody took over");
        assert_ne!(to, old);
        assert_eq!(cluster.leader().await, to);
        cluster.write(&format!("after-{to}")).await;
    }
    let only = Cluster::new(1).await.started().await;
    assert_eq!(
        only.store(1).hand_over().await.unwrap(),
        None,
        "there is nobody else"
    );
    only.write("still").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go() {
    let mut cluster = Cluster::new(4).await;
    for id in 1..=4 {
        cluster.start(id).await;
    }
    cluster.store(1).bootstrap().await.unwrap();
    cluster.store(1).propose(create("first")).await.unwrap();
    for id in [2, 3, 4, 3] {
        cluster.join(1, id).await;
    }
    let voters = |cluster: &Cluster| {
        let members = cluster.store(2).status().members;
        let mut voters: Vec<_> = members
            .iter()
            .filter(|member| member.voter)
            .map(|member| member.id)
            .collect();
        voters.sort_unstable();
        voters
    };
    eventually("four voters", async || {
        (voters(&cluster) == [1, 2, 3, 4]).then_some(())
    })
    .await;
    cluster.store(4).read_index().await.unwrap();
    assert!(has(&cluster.store(4), "first"));

    let leader = cluster.leader().await;
    let remove = |store: Store, id| async move {
        let removed = store.change_members(MemberChange::Remove(id));
        soon("a member is removed", removed).await
    };
    let error = remove(cluster.store(cluster.follower().await), 4)
        .await
        .unwrap_err();
    assert!(
        matches!(error, MemberError::Store(StoreError::NotLeader { .. })),
        "{error}"
    );
    remove(cluster.store(leader), 4).await.unwrap();
    remove(cluster.store(leader), 4).await.unwrap();
    cluster.kill(4).await;

    // A voter that does not vote any more still has everything.
    let demoted = cluster.follower().await;
    let demote = cluster.store(leader);
    let demote = demote.change_members(MemberChange::Demote(demoted));
    soon("a member is demoted", demote).await.unwrap();
    cluster.write("two vote").await;
    let store = cluster.store(demoted);
    soon("a read", store.read_index()).await.unwrap();
    assert!(has(&store, "two vote"));
    assert_eq!(voters(&cluster).len(), 2);
    cluster.join(leader, demoted).await;
    drop(store);

    // The leader removes itself, and somebody else goes on.
    remove(cluster.store(1), 1).await.unwrap();
    cluster.kill(1).await;
    cluster.write("without the first").await;
    eventually("two voters", async || {
        (voters(&cluster) == [2, 3]).then_some(())
    })
    .await;

    let leader = cluster.leader().await;
    remove(cluster.store(leader), 5 - leader).await.unwrap();
    let error = remove(cluster.store(leader), leader).await.unwrap_err();
    assert!(matches!(error, MemberError::LastVoter(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_comes_back_with_another_address() {
    let mut cluster = Cluster::new(3).await.started().await;
    let moved = cluster.follower().await;
    cluster.kill(moved).await;
    cluster.move_to_another_address(moved).await;
    cluster.start(moved).await;
    let leader = cluster.store(cluster.leader_without(moved).await);
    let change = MemberChange::Set(moved, cluster.node(moved));
    leader.change_members(change).await.unwrap();
    cluster.write("after the move").await;
    let store = cluster.store(moved);
    soon("a read", store.read_index()).await.unwrap();
    assert!(has(&store, "after the move"));
}

/// Counts what openraft says on this thread: it speaks each time that it is asked for a change of members.
#[derive(Clone, Default)]
struct Said(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("openraft") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn a_change_waits_quietly_for_the_one_before_it() {
    let cluster = Cluster::new(2).await.started().await;
    let leader = cluster.leader().await;
    let other = 3 - leader;
    let store = cluster.store(leader);
    cluster.network.cut(other).await;
    // It is in the leader's log, and the other one, whose vote it needs, does not get it.
    let demoting = store.clone();
    let demote = async move { demoting.change_members(MemberChange::Demote(other)).await };
    let demote = tokio::spawn(demote);
    eventually("it is proposed", async || {
        store.status().changing.then_some(())
    })
    .await;
    let said = Said::default();
    let listening = set_default(Registry::default().with(said.clone()));
    let begun = store.status().last_log_index;
    let settle = store.change_members(MemberChange::Settle);
    let waited = timeout(Duration::from_secs(2), settle).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(listening);
    let said = said.0.load(Ordering::Relaxed);
    assert!(
        said < 10,
        "openraft was asked until it had said {said} things"
    );
    assert_eq!(store.status().last_log_index, begun);
    cluster.network.heal(other);
    // The first attempt may have given up by now.
    let _ = soon("the change ends", demote).await.unwrap();
    let settled = store.change_members(MemberChange::Settle);
    soon("it is settled", settled).await.unwrap();
    cluster.write("after it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_acknowledged_nothing_is_neither_near_nor_heard() {
    let mut cluster = Cluster::new(2).await;
    cluster.start(1).await;
    let store = cluster.store(1);
    store.bootstrap().await.unwrap();
    let set = MemberChange::Set(2, cluster.node(2));
    soon("a learner", store.change_members(set)).await.unwrap();
    cluster.write("before it starts").await;
    let of_learner = || {
        let members = store.status().members;
        let learner = members.into_iter().find(|member| member.id == 2).unwrap();
        (learner.lag, learner.heard)
    };
    assert_eq!(of_learner(), (None, None));
    cluster.start(2).await;
    eventually("it acknowledges", async || {
        let (lag, heard) = of_learner();
        (lag == Some(0) && heard? < Duration::from_secs(1)).then_some(())
    })
    .await;
    cluster.kill(2).await;
    eventually("it is silent", async || {
        (of_learner().1? > Duration::from_millis(500)).then_some(())
    })
    .await;
    assert_eq!(of_learner().0, Some(0), "it still counts as near");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_is_found_where_it_is_and_nowhere_else() {
    let mut cluster = Cluster::new(3).await.started().await;
    let leader = cluster.store(cluster.leader().await);
    let (id, other) = match leader.id() {
        1 => (2, 3),
        id => (id % 3 + 1, (id + 1) % 3 + 1),
    };
    leader.find(id, &cluster.address(id)).await.unwrap();
    assert!(leader.silent_voters().await.is_empty());
    assert!(!leader.is_decisive().await);
    let found = leader.find(id, &cluster.address(other)).await.unwrap_err();
    assert!(
        found.contains(&format!("this is manager {other}")),
        "{found}"
    );
    cluster.kill(id).await;
    leader.find(id, &cluster.address(id)).await.unwrap_err();
    let silent = leader.silent_voters().await;
    assert_eq!(
        silent.iter().map(|member| member.id).collect::<Vec<_>>(),
        [id]
    );
    assert!(leader.is_decisive().await);
}
