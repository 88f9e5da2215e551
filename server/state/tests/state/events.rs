//! Events are counted and bounded.

use barge_proto::v1::{Event, RefusalReason, change::Change};
use barge_state::{
    Kind, ORDER, State,
    limits::{EVICTED, Limits},
};

use crate::fixtures::*;

fn record(uid: &str, object: &str, message: &str, at: i64) -> Change {
    Change::RecordEvent(event(uid, object, message, at))
}

fn uids(state: &State) -> Vec<&str> {
    state.list::<Event>(None).map(|event| event.uid()).collect()
}

#[test]
fn repetitions_are_counted() {
    let mut state = State::default();
    accept(
        &mut state,
        [
            record("e1", "p1", "pulled", 5),
            record("e2", "p1", "pulled", 9),
        ],
    );
    accept(&mut state, [record("e3", "p1", "pulled", 7)]);
    let only = state.by_uid::<Event>("e1").unwrap();
    assert_eq!(
        (only.count, only.first_timestamp, only.last_timestamp),
        (3, Some(time(5)), Some(time(9)))
    );
    assert_eq!(
        (only.meta().name.as_str(), only.meta().namespace.as_str()),
        ("web.e1", "default")
    );
    accept(
        &mut state,
        [
            record("e4", "p1", "started", 9),
            record("e5", "p2", "pulled", 9),
        ],
    );
    assert_eq!(uids(&state), ["e1", "e4", "e5"]);
    assert_eq!(state.owned::<Event>("p1").count(), 2);
}

#[test]
fn the_least_recent_event_makes_room() {
    let limits = Limits {
        events_per_object: 2,
        events: 3,
        ..Limits::default()
    };
    let mut state = State::with_limits(limits);
    accept(
        &mut state,
        [record("e1", "p1", "a", 1), record("e2", "p1", "b", 2)],
    );
    accept(
        &mut state,
        [record("x", "p1", "a", 3), record("e3", "p1", "c", 4)],
    );
    assert_eq!(uids(&state), ["e1", "e3"], "of one object");
    accept(
        &mut state,
        [record("e4", "p2", "d", 5), record("e5", "p3", "e", 6)],
    );
    assert_eq!(uids(&state), ["e3", "e4", "e5"], "of all");
    crate::indexes::check(&state);
}

#[test]
fn old_events_are_forgotten() {
    let mut state = state([record("e1", "p1", "a", 1), record("e2", "p1", "b", 2)]);
    let applied = accept(&mut state, [Change::ForgetEventsBefore(time(2))]);
    assert_eq!(applied.changes.len(), 1);
    assert_eq!(uids(&state), ["e2"]);
}

#[test]
fn old_events_are_forgotten_in_slices() {
    let mut state = State::with_limits(Limits {
        slice: 2,
        ..Limits::default()
    });
    let events = (1..=5).map(|at| record(&format!("e{at}"), "p1", &format!("{at}"), at));
    accept(&mut state, events);
    accept(&mut state, [put(cluster(ORDER))]);
    for left in [&["e3", "e4", "e5"][..], &["e5"], &["e5"]] {
        assert_eq!(
            state.has_events_before(time(5)),
            left.len() > 1 || uids(&state).len() > 1
        );
        accept(&mut state, [Change::ForgetEventsBefore(time(5))]);
        assert_eq!(uids(&state), left);
    }
    assert!(!state.has_events_before(time(5)));
}

/// An event about an object of a namespace.
fn record_in(namespace: &str, uid: &str, at: i64) -> Change {
    let mut event = event(uid, &format!("about-{uid}"), "m", at);
    namespace.clone_into(&mut event.involved_object.as_mut().unwrap().namespace);
    Change::RecordEvent(event)
}

#[test]
fn a_namespace_full_of_events_pushes_out_its_own() {
    let mut state = State::with_limits(Limits {
        events_per_namespace: 3,
        events: 5,
        ..Limits::default()
    });
    accept(
        &mut state,
        [
            put(cluster(ORDER)),
            put(namespace("quiet")),
            put(namespace("loud")),
        ],
    );
    accept(&mut state, [put(namespace("other"))]);
    accept(&mut state, [record_in("quiet", "q", 1)]);
    for at in 2..10 {
        accept(&mut state, [record_in("loud", &format!("l{at}"), at)]);
    }
    assert_eq!(uids(&state), ["l7", "l8", "l9", "q"]);
    accept(
        &mut state,
        [record_in("other", "o1", 10), record_in("other", "o2", 11)],
    );
    assert_eq!(
        uids(&state),
        ["l8", "l9", "o1", "o2", "q"],
        "the fullest gives way"
    );
}

#[test]
fn more_events_than_the_bound_go_little_by_little() {
    let mut state = State::with_limits(Limits {
        events_per_namespace: 10,
        ..Limits::default()
    });
    let events = (1..=40).map(|at| record_in("default", &format!("e{at}"), at));
    accept(&mut state, events);
    accept(&mut state, [put(cluster(ORDER))]);
    for left in [33, 26, 19, 12, 10, 10] {
        let uid = format!("n{left}-{}", state.revision());
        let applied = accept(&mut state, [record_in("default", &uid, 99)]);
        assert!(applied.changes.len() <= EVICTED + 1);
        assert_eq!(state.count::<Event>(), left);
    }
}

#[test]
fn an_event_is_about_something() {
    let lost = Event {
        involved_object: None,
        ..event("e1", "", "", 1)
    };
    let mut state = State::default();
    assert_eq!(
        refuse(&mut state, [Change::RecordEvent(lost)]),
        RefusalReason::Invalid
    );
}
