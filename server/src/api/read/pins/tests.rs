#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! What is kept, for how long, and for whom.

use barge_proto::{
    kinds::Registry,
    v1::{ConfigMap, ListRequest, ObjectMeta},
};
use barge_state::Kind as _;
use tokio::time::advance;

use super::*;

const REVISION: u64 = 100;

fn query() -> Query {
    Query::new(
        &Registry::default(),
        &ListRequest {
            kind: Kind::ConfigMap.into(),
            ..ListRequest::default()
        },
    )
    .unwrap()
}

fn key(caller: &str, revision: u64) -> Key {
    Key::new(caller, &query(), revision)
}

/// So many records of the same size.
fn rows(count: usize) -> Arc<Rows> {
    let record = |number: usize| {
        let metadata = ObjectMeta {
            name: format!("c{number:06}"),
            ..ObjectMeta::default()
        };
        Parts::alone(ConfigMap::stored(Arc::new(ConfigMap {
            metadata: Some(metadata),
            data: [("key".to_owned(), "x".repeat(1000))].into(),
            ..ConfigMap::default()
        })))
    };
    Arc::new(Rows::new(
        REVISION,
        (0..count).map(record).collect(),
        None,
        None,
    ))
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_no_more_pages_keeps_nothing() {
    let pins = Pins::default();
    pins.keep(key("admin/a", REVISION), rows(10), REVISION);
    advance(Duration::from_secs(59)).await;
    pins.trim(REVISION);
    assert!(pins.get(&key("admin/a", REVISION), &query()).is_some());
    advance(Duration::from_secs(59)).await;
    pins.trim(REVISION);
    assert!(pins.get(&key("admin/a", REVISION), &query()).is_some());
    advance(Duration::from_secs(60)).await;
    pins.trim(REVISION);
    assert!(pins.get(&key("admin/a", REVISION), &query()).is_none());
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_on_with_the_list_of_another() {
    let pins = Pins::default();
    pins.keep(key("admin/a", REVISION), rows(10), REVISION);
    assert!(pins.get(&key("admin/b", REVISION), &query()).is_none());
    assert!(pins.get(&key("admin/a", REVISION + 1), &query()).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_only_a_pin_holds_counts() {
    let shared = rows(1000).bytes(REVISION);
    assert!(shared < 100_000, "the state has the records: {shared}");
    let record = rows(1).rows[0].record.size();
    assert!(record > 1000, "{record}");
    let replaced = rows(1000).bytes(REVISION + 100) - shared;
    assert_eq!(replaced, 100 * record);
    let all = rows(1000).bytes(REVISION + 1_000_000) - shared;
    assert_eq!(all, 1000 * record);
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_go_when_there_is_too_much() {
    let pin = rows(1000).bytes(REVISION + 900);
    let pins = Pins::new(Limits {
        bytes: pin * 7 / 2,
        caller_bytes: pin * 5 / 2,
        ..Limits::default()
    });
    let callers = ["admin/a", "admin/a", "admin/b"];
    for (number, caller) in (0..).zip(callers) {
        pins.keep(key(caller, number), rows(1000), REVISION);
        advance(Duration::from_secs(1)).await;
    }
    let kept = || {
        let all = (0..).zip(callers);
        let pins = pins.lock();
        let has_rows = |key| pins.get(&key).is_some_and(|pin| pin.rows.is_some());
        let kept = all.filter(|(number, caller)| has_rows(key(caller, *number)));
        kept.map(|(number, _)| number).collect::<Vec<u64>>()
    };
    assert_eq!(kept(), [0, 1, 2], "the state has all records");
    // It replaced most of them: each pin holds those by itself.
    pins.get(&key("admin/a", 0), &query()).unwrap();
    advance(Duration::from_secs(1)).await;
    pins.trim(REVISION + 900);
    assert_eq!(kept(), [0, 1, 2]);
    pins.keep(key("admin/b", 3), rows(1000), REVISION + 900);
    assert_eq!(kept(), [0, 2], "1 was used least recently");
    let (count, bytes) = pins.size(REVISION + 900);
    assert!(count == 3 && bytes == 3 * pin, "{count}: {bytes}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_has_its_own_bound() {
    let pins = Pins::new(Limits {
        caller_count: 2,
        ..Limits::default()
    });
    pins.keep(key("admin/b", 9), rows(1), REVISION);
    for number in 0..3 {
        advance(Duration::from_secs(1)).await;
        pins.keep(key("admin/a", number), rows(1), REVISION);
    }
    assert!(pins.get(&key("admin/a", 0), &query()).is_none());
    for (caller, number) in [("admin/a", 1), ("admin/a", 2), ("admin/b", 9)] {
        assert!(pins.get(&key(caller, number), &query()).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_room_is_not_collected_again_and_takes_nothing() {
    let pins = Pins::new(Limits {
        caller_bytes: rows(1000).bytes(REVISION + 1000) - 1,
        caller_count: 2,
        ..Limits::default()
    });
    let list = key("admin/a", REVISION);
    assert!(pins.has_room(&list), "nothing is known of it");
    pins.keep(list.clone(), rows(1000), REVISION + 1000);
    assert!(pins.get(&list, &query()).is_none());
    assert!(!pins.has_room(&list));
    assert_eq!(pins.size(REVISION + 1000), (0, 0));
    // Others have all the room.
    pins.keep(key("admin/a", 1), rows(400), REVISION + 1000);
    assert!(pins.has_room(&key("admin/a", 1)));
    // What is remembered ends as what is kept does, and counts as much.
    advance(Duration::from_secs(60)).await;
    pins.trim(REVISION + 1000);
    assert!(pins.lock().is_empty());
    for number in 0..5 {
        pins.keep(key("admin/a", number), rows(1000), REVISION + 1000);
    }
    assert_eq!(pins.lock().len(), 2);
}
