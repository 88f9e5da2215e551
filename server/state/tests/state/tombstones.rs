//! Recorded deletions of pods: when one stays, and when it goes.

use barge_proto::v1::{PodRecord, PodTombstone, Revision};
use barge_state::{Kind, LOSS, NODE_TOMBSTONES, RecordKind, State, Stored, limits::Limits};

use crate::{fixtures::*, indexes};

/// Two pods on a node and one that waits, in a cluster of this level.
fn running(level: u32, limits: Limits) -> State {
    let mut state = State::with_limits(limits);
    let changes = [
        put(cluster(level)),
        put(namespace("default")),
        put(node("n1")),
        put(node("n2")),
        put(deployment("d1", 3)),
        put(owned_by(revision("r1", "100m", "1Mi"), "d1")),
        put(owned_by(pod("p1", "r1"), "d1")),
        put(owned_by(pod("p2", "r1"), "d1")),
        put(owned_by(pod("p3", "r1"), "d1")),
        bind("p1", "n1"),
        bind("p2", "n1"),
    ];
    let outcome = accept(&mut state, changes).outcome;
    assert_eq!(outcome.binds, ["", ""]);
    state
}

fn tombstones(state: &State, node: &str) -> Vec<String> {
    indexes::check(state);
    let on = state.tombstones_on(node);
    on.map(|tombstone| Kind::uid(tombstone.as_ref()).to_owned())
        .collect()
}

#[test]
fn a_bound_pod_that_is_removed_leaves_a_tombstone() {
    let mut state = running(LOSS, Limits::default());
    let pods = ["p1", "p3"].map(|uid| remove(RecordKind::Pod, uid));
    let revision = accept(&mut state, pods).outcome.revision;
    assert_eq!(tombstones(&state, "n1"), ["p1"], "p3 was nowhere");
    let tombstone = state.by_uid::<PodTombstone>("p1").unwrap();
    assert_eq!(tombstone.pod_namespace, "default");
    assert_eq!(tombstone.pod_name, "name-of-p1");
    assert_eq!(tombstone.deleted, Some(time(1000)));
    assert!(tombstone.revision() <= revision);
    assert_eq!(
        state.view(&Stored::PodTombstone(tombstone.clone()), None),
        None
    );
    assert!(copy(&state) == state, "it is restored as any record");
}

#[test]
fn below_the_level_there_are_none() {
    let mut state = running(LOSS - 1, Limits::default());
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    assert_eq!(state.count::<PodTombstone>(), 0);
}

#[test]
fn a_cascade_leaves_those_of_pods_that_had_finished() {
    let mut state = running(LOSS, Limits::default());
    let failed = report("p2", phase("Failed"));
    accept(&mut state, [failed, remove(RecordKind::Deployment, "d1")]);
    // p1 is marked: its node ends it, and says so.
    assert_eq!(tombstones(&state, "n1"), ["p2"]);
    assert!(
        state
            .by_uid::<PodRecord>("p1")
            .unwrap()
            .deletion()
            .is_some()
    );
    accept(&mut state, [gone("p1", "n1"), gone("p2", "n1")]);
    assert_eq!(state.count::<PodTombstone>(), 0);
    assert_eq!(state.count::<PodRecord>(), 0);
    assert_eq!(state.count::<Revision>(), 0, "it went with its last pod");
}

#[test]
fn only_the_pods_own_node_confirms() {
    let mut state = running(LOSS, Limits::default());
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    let confirmations = ["p1", "p2", "p3", "p4"].map(|uid| gone(uid, "n2"));
    let changes = accept(&mut state, confirmations).changes;
    assert_eq!(changes, []);
    accept(&mut state, [gone("p3", ""), gone("p1", "")]);
    assert_eq!(state.count::<PodRecord>(), 2);
    accept(&mut state, [gone("p1", "n1"), gone("p2", "n1")]);
    assert_eq!(tombstones(&state, "n1"), [""; 0]);
    assert_eq!(state.count::<PodRecord>(), 1);
}

#[test]
fn they_go_with_their_node() {
    let mut state = running(LOSS, Limits::default());
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    accept(&mut state, [remove(RecordKind::Node, "n1")]);
    assert_eq!(state.count::<PodTombstone>(), 0);
    assert_eq!(state.count::<PodRecord>(), 1);
    indexes::check(&state);
}

#[test]
fn a_tombstone_is_nobodys_owner() {
    let mut state = running(LOSS, Limits::default());
    let owned = owned_by(service("s1", "None", &[]), "p1");
    accept(&mut state, [put(owned), remove(RecordKind::Pod, "p1")]);
    assert_eq!(tombstones(&state, "n1"), ["p1"]);
    assert_eq!(state.count::<barge_proto::v1::Service>(), 0);
}

#[test]
fn a_year_of_churn_leaves_what_was_bound_when_the_node_died() {
    let mut state = running(LOSS, Limits::default());
    for round in 0..1000 {
        let uid = format!("q{round}");
        accept(
            &mut state,
            [put(owned_by(pod(&uid, "r1"), "d1")), bind(&uid, "n1")],
        );
        accept(&mut state, [terminate(&uid, None), gone(&uid, "n1")]);
    }
    assert_eq!(tombstones(&state, "n1"), [""; 0]);
    let lost = ["p1", "p2"].map(|uid| remove(RecordKind::Pod, uid));
    accept(&mut state, lost);
    assert_eq!(tombstones(&state, "n1"), ["p1", "p2"]);
}

#[test]
fn a_node_that_never_confirms_has_a_bounded_number() {
    let limits = Limits {
        tombstones_per_node: 3,
        ..Limits::default()
    };
    let mut state = running(LOSS, limits);
    for round in 0..10 {
        let uid = format!("q{round}");
        accept(
            &mut state,
            [put(owned_by(pod(&uid, "r1"), "d1")), bind(&uid, "n1")],
        );
        accept(&mut state, [remove(RecordKind::Pod, &uid)]);
    }
    assert_eq!(tombstones(&state, "n1"), ["q7", "q8", "q9"]);
}

#[test]
fn a_node_that_is_removed_leaves_a_tombstone_that_stays() {
    let mut state = running(NODE_TOMBSTONES, Limits::default());
    accept(&mut state, [remove(RecordKind::Node, "n1")]);
    let tombstone = state.deleted_node("n1").unwrap();
    assert_eq!(tombstone.pod_name, "name-of-n1");
    assert_eq!(tombstone.deleted, Some(time(1000)));
    assert!(state.deleted_node("n2").is_none());
    accept(
        &mut state,
        [gone("n1", "n1"), gone("n1", ""), gone("p1", "n1")],
    );
    assert!(state.deleted_node("n1").is_some(), "nobody confirms it");
    assert_eq!(state.count::<PodTombstone>(), 1);
    assert!(copy(&state) == state, "it is restored as any record");
    indexes::check(&state);
}

#[test]
fn a_pod_s_tombstone_says_nothing_of_a_node() {
    let mut state = running(NODE_TOMBSTONES, Limits::default());
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    assert!(state.deleted_node("p1").is_none());
}

#[test]
fn tombstones_of_nodes_are_bounded() {
    let limits = Limits {
        node_tombstones: 3,
        ..Limits::default()
    };
    let mut state = running(NODE_TOMBSTONES, limits);
    for round in 0..10 {
        let uid = format!("m{round}");
        accept(&mut state, [put(node(&uid))]);
        accept(&mut state, [remove(RecordKind::Node, &uid)]);
    }
    let left = (0..10).filter(|round| state.deleted_node(&format!("m{round}")).is_some());
    assert_eq!(left.collect::<Vec<_>>(), [7, 8, 9]);
    indexes::check(&state);
}
