//! Cables that are cut, all of them or some: those who still have a majority go on, and who returns disturbs nobody.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use barge_tests::{
    Managers, eventually,
    writer::{Writer, client, read_counter},
};

/// The term, as the cluster tells it.
fn term(managers: &Managers) -> String {
    let status = managers.barge(&["cluster", "status"]);
    let term = status.split("term ").nth(1).expect("a term");
    term.split(',').next().expect("a number").to_owned()
}

/// Waits until a manager has found no leader for two seconds: it has tried to be elected again and again by then.
fn wait_until_leaderless(managers: &Managers, index: usize) {
    let client = client(&managers.config_for(index), Duration::from_secs(2));
    eventually("it answers no reads", || match read_counter(&client) {
        Err(_) => Ok(()),
        Ok(read) => Err(format!("{read:?}")),
    });
}

#[test]
fn a_follower_that_was_cut_off_returns_without_an_election() {
    let managers = Managers::up(3);
    let leader = managers.leader();
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let writer = Writer::start(&managers.config_of(&[leader, other]));
    writer.wait_for(10);
    let before = term(&managers);
    for peer in [leader, other] {
        managers.part(away, peer);
    }
    wait_until_leaderless(&managers, away);
    writer.wait_for(10);
    for peer in [leader, other] {
        managers.unite(away, peer);
    }
    managers.wait_until_caught_up();
    writer.wait_for(10);
    let acknowledged = writer.stop();
    assert_eq!(term(&managers), before, "nobody was elected anew");
    assert_eq!(managers.leader(), leader);
    let returned = client(&managers.config_for(away), Duration::from_secs(60));
    assert_eq!(read_counter(&returned), Ok((acknowledged, acknowledged)));
}

/// One follower cannot reach the leader; the third manager reaches both. There is one leader, the same all the time.
#[test]
fn a_partial_partition_changes_no_leader() {
    let managers = Managers::up(3);
    let leader = managers.leader();
    let (cut, bridge) = ((leader + 1) % 3, (leader + 2) % 3);
    let writer = Writer::start(&managers.config_of(&[bridge, leader]));
    writer.wait_for(10);
    let before = term(&managers);
    managers.part(cut, leader);
    wait_until_leaderless(&managers, cut);
    // Through the leader and through the one between, and all that time in one term.
    writer.wait_for(50);
    let through = Writer::start(&managers.config_for(leader));
    through.wait_for(10);
    let _ = through.stop();
    let during = managers.barge(&["cluster", "members"]);
    assert_eq!(
        during
            .lines()
            .filter(|line| line.contains("leader"))
            .count(),
        1,
        "{during}"
    );
    managers.unite(cut, leader);
    managers.wait_until_caught_up();
    assert_eq!(term(&managers), before, "nobody was elected anew");
    assert_eq!(managers.leader(), leader);
    let _ = writer.stop();
    let healed = client(&managers.config_for(cut), Duration::from_secs(60));
    eventually("it reads", || read_counter(&healed));
}
