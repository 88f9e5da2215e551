//! Events: a repeated event counts up in one record, and old events make room for new ones.

use std::cmp::Ordering;

use barge_proto::v1::{Event, ObjectMeta, Refusal, RefusalReason, Time};

use super::{refusal, work::Work};
use crate::{
    ages::age,
    kind::{Kind, Stored},
    limits::EVICTED,
};

/// Counts a repetition of an event, or records a new one and evicts what is too much. An event is known by the
/// object it is about, its type, reason, message and source; one whose uid exists was recorded already. The
/// name is made from the object's and the uid.
///
/// # Errors
/// INVALID without a uid or an object.
pub fn record(work: &mut Work<'_>, event: &Event) -> Result<(), Refusal> {
    let Some(object) = event
        .involved_object
        .as_ref()
        .filter(|_| !event.uid().is_empty())
    else {
        let why = "an event has a uid and an object that it is about";
        return Err(refusal(RefusalReason::Invalid, why));
    };
    let last = event.last_timestamp.unwrap_or(work.now);
    let repeated = event.count.max(1);
    let known = work
        .tables
        .events
        .owned(&object.uid)
        .find(|known| same(known, event))
        .cloned();
    if let Some(known) = known {
        let mut counted = known.as_ref().clone();
        counted.count = counted.count.saturating_add(repeated);
        if counted
            .last_timestamp
            .is_none_or(|old| order(old, last).is_lt())
        {
            counted.last_timestamp = Some(last);
        }
        work.write(Some(known), counted);
        return Ok(());
    }
    if work.tables.events.by_uid(event.uid()).is_some() {
        return Ok(());
    }
    let namespace = if object.namespace.is_empty() {
        "default"
    } else {
        &object.namespace
    };
    make_room(work, &object.uid, namespace);
    let metadata = ObjectMeta {
        name: format!("{}.{}", object.name, event.uid()),
        namespace: namespace.to_owned(),
        uid: event.uid().to_owned(),
        creation_timestamp: Some(work.now),
        ..ObjectMeta::default()
    };
    let new = Event {
        api_version: String::new(),
        kind: String::new(),
        metadata: Some(metadata),
        first_timestamp: Some(event.first_timestamp.unwrap_or(last)),
        last_timestamp: Some(last),
        count: repeated,
        ..event.clone()
    };
    work.write(None, new);
    Ok(())
}

/// Forgets events that were last seen before `time`, the oldest first; from feature level 5 on at most [`crate::limits::SLICE`] of them.
pub fn forget_before(work: &mut Work<'_>, time: Time) {
    let most = if work.ordered {
        work.limits.slice
    } else {
        usize::MAX
    };
    for _ in 0..most {
        let oldest = work.tables.event_ages.oldest();
        let Some(oldest) = oldest.filter(|event| is_before(event, time)).cloned() else {
            break;
        };
        work.delete(Stored::Event(oldest));
    }
}

/// Whether an event was last seen before `time`.
pub fn is_before(event: &Event, time: Time) -> bool {
    let last = event.last_timestamp;
    last.is_none_or(|last| order(last, time).is_lt())
}

/// Makes room for one more event about an object.
fn make_room(work: &mut Work<'_>, object_uid: &str, namespace: &str) {
    while work.tables.events.owned_count(object_uid) >= work.limits.events_per_object.max(1) {
        let events = work.tables.events.owned(object_uid);
        let Some(oldest) = events.min_by_key(|event| age(event)).cloned() else {
            break;
        };
        work.delete(Stored::Event(oldest));
    }
    if work.ordered {
        share_room(work, namespace);
        return;
    }
    while work.tables.events.len() >= work.limits.events.max(1) {
        let Some(oldest) = work.tables.event_ages.oldest().cloned() else {
            break;
        };
        work.delete(Stored::Event(oldest));
    }
}

/// As [`make_room`], from feature level 5 on: a namespace gives up its own events, and when there are too many in all, the fullest does.
fn share_room(work: &mut Work<'_>, namespace: &str) {
    for _ in 0..EVICTED {
        let ages = &work.tables.event_ages;
        if ages.count(namespace) < work.limits.events_per_namespace.max(1) {
            break;
        }
        let Some(oldest) = ages.oldest_in(namespace).cloned() else {
            break;
        };
        work.delete(Stored::Event(oldest));
    }
    for _ in 0..EVICTED {
        if work.tables.events.len() < work.limits.events.max(1) {
            break;
        }
        let Some(oldest) = work.tables.event_ages.oldest_of_fullest().cloned() else {
            break;
        };
        work.delete(Stored::Event(oldest));
    }
}

fn same(known: &Event, event: &Event) -> bool {
    known.r#type == event.r#type
        && known.reason == event.reason
        && known.message == event.message
        && known.source == event.source
}

fn order(a: Time, b: Time) -> Ordering {
    (a.seconds, a.nanos).cmp(&(b.seconds, b.nanos))
}
