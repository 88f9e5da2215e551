//! Sizes that the state counts, beside what the allocator gave out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// An allocator is unsafe by its trait; this one only counts, and passes everything on.
#![allow(unsafe_code)]

#[path = "state/fixtures.rs"]
#[allow(dead_code)]
mod fixtures;

/// What the fixtures check after each transaction is not held against sizes.
mod indexes {
    pub fn check(_: &barge_state::State) {}
}

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use barge_proto::v1::{
    ConfigMap, ManagedFieldsEntry, NodeAddress, NodeStatus, Quantity, RequestRecord, Transaction,
};
use barge_state::{History, Kind, State, Stored};

use fixtures::*;

thread_local! {
    /// Bytes that this thread holds.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `make` returns, and how many bytes it holds.
fn held<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    let made = make();
    (made, HELD.get().wrapping_sub(before))
}

fn about(what: &str, counted: usize, held: usize) {
    eprintln!("{what}: {counted} counted, {held} held");
    let (low, high) = (held * 8 / 10, held * 12 / 10);
    assert!(
        (low..=high).contains(&counted),
        "{what}: {counted} counted, {held} held"
    );
}

fn full_meta<K: Kind>(mut record: K) -> K {
    let meta = record.meta_mut();
    meta.resource_version = "123456".to_owned();
    meta.uid = "0b2a7b0c-6a4e-4c1f-9d2f-8b1f4f4e8f11".to_owned();
    meta.creation_timestamp = Some(time(1_700_000_000));
    meta.managed_fields.push(ManagedFieldsEntry {
        manager: "barge".to_owned(),
        operation: "Apply".to_owned(),
        ..ManagedFieldsEntry::default()
    });
    record
}

#[test]
fn records_count_what_they_hold() {
    let check = |what: &str, make: &dyn Fn() -> Stored| {
        let (record, held) = held(make);
        about(what, record.size(), held);
    };
    check("a Revision", &|| {
        stored(full_meta(revision("r1", "100m", "64Mi")))
    });
    check("a Deployment", &|| {
        let mut made = full_meta(deployment("d1", 3));
        made.spec.as_mut().unwrap().template = revision("r1", "100m", "64Mi").template;
        stored(made)
    });
    check("an Event", &|| {
        stored(full_meta(event(
            "e1",
            "p1",
            "Successfully pulled image \"my-app:1.0\" in 1.2 s",
            7,
        )))
    });
    check("a Node", &|| {
        let mut made = full_meta(node("n1"));
        let amounts = ["cpu", "memory", "pods", "ephemeral-storage"];
        let amounts = amounts.map(|name| {
            (
                name.to_owned(),
                Quantity {
                    value: "16384Ki".to_owned(),
                },
            )
        });
        made.status = Some(NodeStatus {
            addresses: vec![NodeAddress {
                r#type: "InternalIP".to_owned(),
                address: "10.0.0.1".to_owned(),
            }],
            capacity: amounts.clone().into(),
            allocatable: amounts.into(),
            ..made.status.take().unwrap_or_default()
        });
        stored(made)
    });
    check("a ConfigMap", &|| {
        stored(full_meta(ConfigMap {
            data: [("key".to_owned(), "v".repeat(10_000))].into(),
            ..ConfigMap::default()
        }))
    });
    check("a pod", &|| {
        // Nobody shares its shape.
        stored(full_meta(pod("p1", "r1")))
    });
}

fn stored<K: Kind>(record: K) -> Stored {
    Stored::from_record(record.into_record()).unwrap()
}

#[test]
fn remembered_requests_count_what_they_hold() {
    let (state, held) = held(|| {
        let mut state = State::default();
        for number in 0..2000u32 {
            // As random as real ones.
            let mut nonce = [0u8; 16];
            nonce[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
            let request = RequestRecord {
                nonce: nonce.to_vec(),
                seen_revision: 0,
                body_sha256: vec![7; 32],
            };
            state.apply(
                TERM,
                Transaction {
                    request: Some(request),
                    principal: "admin/0b2a7b0c-6a4e-4c1f-9d2f-8b1f4f4e8f11".to_owned(),
                    ..tx([])
                },
            );
        }
        state
    });
    let (count, bytes) = state.requests_size();
    assert_eq!(count, 2000);
    about("2,000 requests", bytes, held);
}

#[test]
fn the_history_counts_what_it_holds() {
    let mut state = State::default();
    accept(&mut state, [put(full_meta(deployment("d1", 1)))]);
    let mut history = History::new(state.revision(), usize::MAX, usize::MAX);
    let ((), held) = held(|| {
        for round in 0..500 {
            let mut next = full_meta(deployment("d1", round));
            next.spec.as_mut().unwrap().template = revision("r1", "100m", "64Mi").template;
            history.push(&accept(&mut state, [put(next)]).changes);
        }
    });
    about("500 changes", history.size().1, held);
}
