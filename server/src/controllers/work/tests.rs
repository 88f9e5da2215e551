#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Cause::*, *};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn take<K: Ord + Clone>(work: &mut WorkSet<K>, now: Instant) -> Option<(K, u32)> {
    work.take(now).map(|(key, failures, _)| (key, failures))
}

#[test]
fn a_key_is_there_once() {
    let now = Instant::now();
    let mut work = WorkSet::new(10);
    work.add("a", Observed, now);
    work.add("a", Observed, now);
    assert_eq!(take(&mut work, now), Some(("a", 0)));
    assert_eq!(take(&mut work, now), None);
    work.looked("a", Looked::Done(None), Duration::ZERO, now);
    assert_eq!(take(&mut work, now), None);
    assert_eq!(work.next_due(), None);
}

#[test]
fn a_key_that_becomes_dirty_meanwhile_is_looked_at_again() {
    let now = Instant::now();
    let mut work = WorkSet::new(10);
    work.add("a", Observed, now);
    work.take(now).unwrap();
    work.add("a", Observed, now);
    assert_eq!(take(&mut work, now), None, "never two at a time");
    work.looked("a", Looked::Done(Some(SECOND)), Duration::ZERO, now);
    assert_eq!(take(&mut work, now), Some(("a", 0)));
}

#[test]
fn failures_wait_longer_each_time() {
    let mut now = Instant::now();
    let mut work = WorkSet::new(10);
    work.add("a", Observed, now);
    let mut waits = Vec::new();
    for failures in 0..20 {
        assert_eq!(take(&mut work, now), Some(("a", failures)));
        work.looked("a", Looked::Failed, Duration::ZERO, now);
        let due = work.next_due().unwrap();
        waits.push(due - now);
        now = due;
    }
    assert!(waits.is_sorted());
    assert_eq!(waits[0], FIRST_BACKOFF);
    assert_eq!(*waits.last().unwrap(), MAX_BACKOFF);
    work.take(now).unwrap();
    work.looked("a", Looked::Done(Some(SECOND)), Duration::ZERO, now);
    work.add("a", Observed, now);
    let next = take(&mut work, now);
    assert_eq!(next, Some(("a", 0)), "success forgets failures");
}

/// A key that has failed ten times in a row, the last time now.
fn failing(now: &mut Instant) -> WorkSet<&'static str> {
    let mut work = WorkSet::new(10);
    work.add("a", Observed, *now);
    for _ in 0..10 {
        *now = work.next_due().unwrap();
        work.take(*now).unwrap();
        work.looked("a", Looked::Failed, Duration::ZERO, *now);
    }
    work
}

#[test]
fn an_edit_of_what_failed_is_looked_at_within_100_ms() {
    let mut now = Instant::now();
    let mut work = failing(&mut now);
    now += SECOND;
    assert!(work.add("a", Edited, now));
    assert_eq!(take(&mut work, now), Some(("a", 10)));
    // Also when it comes while somebody still looks at what was there before.
    work.add("a", Edited, now);
    work.looked("a", Looked::Failed, Duration::ZERO, now);
    assert!(work.next_due().unwrap() - now <= 100 * MS);
}

#[test]
fn changes_around_what_failed_bring_it_forward_at_a_bounded_rate() {
    let mut now = Instant::now();
    let mut work = failing(&mut now);
    work.add("a", Observed, now);
    let soon = work.next_due().unwrap() - now;
    assert!(soon <= 100 * MS, "the first one does: {soon:?}");
    // Each look fails and changes something that has the key looked at again; other changes come every millisecond.
    let (mut looks, end) = (0, now + 60 * SECOND);
    while now < end {
        work.add("a", Observed, now);
        if work.take(now).is_some() {
            looks += 1;
            work.add("a", Observed, now);
            work.looked("a", Looked::Failed, Duration::ZERO, now);
        }
        now += MS;
    }
    assert!((3..15).contains(&looks), "{looks} looks in a minute");
}

#[test]
fn edits_bring_forward_what_fails_twenty_times_a_second_at_most() {
    let mut now = Instant::now();
    let mut work = failing(&mut now);
    let (mut looks, end) = (0, now + 10 * SECOND);
    while now < end {
        work.add("a", Edited, now);
        if work.take(now).is_some() {
            looks += 1;
            work.looked("a", Looked::Failed, Duration::ZERO, now);
        }
        now += MS;
    }
    assert!((100..=200).contains(&looks), "{looks} looks in ten seconds");
}

#[test]
fn a_lost_race_is_looked_at_again_at_once_and_never_much_later() {
    let mut now = Instant::now();
    let mut work = WorkSet::new(10);
    work.add("a", Observed, now);
    for race in 0..20 {
        assert_eq!(take(&mut work, now), Some(("a", race)));
        work.looked("a", Looked::Raced, Duration::ZERO, now);
        let wait = work.next_due().unwrap() - now;
        assert!(if race == 0 {
            wait == Duration::ZERO
        } else {
            wait <= MAX_RACE_BACKOFF
        });
        now += wait;
    }
}

#[test]
fn while_a_key_rests_changes_are_gathered_and_edits_are_not() {
    let now = Instant::now();
    let mut work = WorkSet::new(10);
    let look = |work: &mut WorkSet<&str>, now| {
        work.add("a", Edited, now);
        work.take(now).unwrap();
        work.looked("a", Looked::Done(None), SECOND, now);
    };
    look(&mut work, now);
    for number in 0..1000 {
        work.add("a", Observed, now + number * MS);
    }
    assert_eq!(take(&mut work, now + SECOND - MS), None);
    assert_eq!(take(&mut work, now + SECOND), Some(("a", 0)));
    work.looked("a", Looked::Done(None), SECOND, now + SECOND);
    work.add("a", Edited, now + SECOND);
    assert_eq!(take(&mut work, now + SECOND), Some(("a", 0)));
    work.looked("a", Looked::Done(None), SECOND, now + SECOND);
    // It is forgotten when it has rested.
    assert_eq!(take(&mut work, now + 2 * SECOND), None);
    assert_eq!((work.next_due(), work.keys.len()), (None, 0));
}

#[test]
fn a_timer_is_brought_forward_by_a_change() {
    let now = Instant::now();
    let mut work = WorkSet::new(10);
    work.add("a", Observed, now);
    work.take(now).unwrap();
    work.looked("a", Looked::Done(Some(SECOND)), Duration::ZERO, now);
    assert_eq!(take(&mut work, now), None);
    work.add("a", Observed, now);
    assert_eq!(take(&mut work, now), Some(("a", 0)));
    work.looked("a", Looked::Done(None), Duration::ZERO, now);
    assert_eq!(take(&mut work, now + SECOND), None);
}

#[test]
fn it_is_bounded_and_says_when_keys_were_dropped() {
    let now = Instant::now();
    let mut work = WorkSet::new(4);
    for key in 0..9 {
        work.add(key, Observed, now);
    }
    assert!(!work.overflowed(), "there is no room yet");
    for key in 0..4 {
        assert_eq!(take(&mut work, now), Some((key, 0)));
        work.looked(key, Looked::Done(None), Duration::ZERO, now);
    }
    assert!(work.overflowed());
    assert!(!work.overflowed());
}

#[test]
fn a_cluster_without_answers_is_no_failure_of_a_key() {
    let mut now = Instant::now();
    let mut work = WorkSet::new(10);
    for key in ["a", "b", "idle"] {
        work.add(key, Observed, now);
    }
    let mut pauses = Vec::new();
    for _ in 0..20 {
        for key in ["a", "b"] {
            assert_eq!(take(&mut work, now), Some((key, 0)));
        }
        // What has nothing to propose does not tell whether there would be an answer.
        if take(&mut work, now).is_some() {
            work.looked("idle", Looked::Idle(Some(MS)), Duration::ZERO, now);
        }
        for key in ["a", "b"] {
            work.looked(key, Looked::Unanswered, Duration::ZERO, now);
        }
        assert!(work.is_due(now), "it waits");
        let until = work.next_due().unwrap();
        // Nothing is taken meanwhile, whatever becomes dirty.
        work.add("b", Edited, now);
        assert_eq!(take(&mut work, until - MS), None);
        pauses.push(until - now);
        now = until;
    }
    assert_eq!(pauses[..3], [50 * MS, 100 * MS, 200 * MS]);
    assert_eq!(*pauses.last().unwrap(), MAX_PAUSE);
    // With the first answer all is as it was.
    for key in ["a", "b", "idle"] {
        assert_eq!(take(&mut work, now), Some((key, 0)));
        work.looked(key, Looked::Done(None), Duration::ZERO, now);
    }
    assert_eq!(work.next_due(), None);
    work.add("a", Observed, now);
    assert_eq!(take(&mut work, now), Some(("a", 0)));
    work.looked("a", Looked::Unanswered, Duration::ZERO, now);
    assert_eq!(work.next_due(), Some(now + 50 * MS));
}
