//! Events are counted and bounded.

use barge_proto::v1::{Event, RefusalReason, change::Change};
use barge_state::{Kind, State, limits::Limits};

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
