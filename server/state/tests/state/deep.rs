//! Ownership as deep, as wide and as circular as users care to make it: nothing of it may end the thread that applies.

use std::thread;

use barge_proto::v1::{
    ConfigMap, DeleteRecord, DeletionPropagation, OwnerReference, RecordRef, change,
};
use barge_state::RecordKind;

use crate::fixtures::*;

/// As many as the size of a request allows, and more.
const MANY: usize = 20_000;
/// A recursion of a few hundred steps does not fit.
const STACK: usize = 256 * 1024;

fn config_map(number: usize, owner: Option<usize>) -> change::Change {
    let mut metadata = meta("default", &format!("c{number}"), &format!("c{number}"));
    metadata.owner_references = owner
        .map(|owner| OwnerReference {
            kind: "ConfigMap".to_owned(),
            uid: format!("c{owner}"),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        })
        .into_iter()
        .collect();
    put(ConfigMap {
        metadata: Some(metadata),
        ..ConfigMap::default()
    })
}

fn delete(uid: &str, propagation: DeletionPropagation) -> change::Change {
    change::Change::Delete(DeleteRecord {
        target: Some(RecordRef {
            kind: RecordKind::ConfigMap.number(),
            uid: uid.to_owned(),
            ..RecordRef::default()
        }),
        propagation: propagation.into(),
    })
}

/// Deletes the first of them, whose owners are given, on a thread with a small stack; tells how many are left.
fn left(
    propagation: DeletionPropagation,
    owner: impl Fn(usize) -> Option<usize> + Send + 'static,
) -> usize {
    let body = move || {
        let mut state = state([put(namespace("default"))]);
        accept(
            &mut state,
            (0..MANY).map(|number| config_map(number, owner(number))),
        );
        accept(&mut state, [delete("c0", propagation)]);
        state.count::<ConfigMap>()
    };
    #[allow(clippy::disallowed_methods, reason = "a stack of another size")]
    let thread = thread::Builder::new().stack_size(STACK).spawn(body);
    thread.unwrap().join().unwrap()
}

fn chain(number: usize) -> Option<usize> {
    number.checked_sub(1)
}

fn circle(number: usize) -> Option<usize> {
    Some(chain(number).unwrap_or(MANY - 1))
}

fn star(number: usize) -> Option<usize> {
    (number > 0).then_some(0)
}

#[test]
fn a_chain_goes_in_the_foreground() {
    assert_eq!(left(DeletionPropagation::Foreground, chain), 0);
}

#[test]
fn a_chain_goes_in_the_background() {
    assert_eq!(left(DeletionPropagation::Background, chain), 0);
}

#[test]
fn the_rest_of_a_chain_stays_when_it_is_orphaned() {
    assert_eq!(left(DeletionPropagation::Orphan, chain), MANY - 1);
}

#[test]
fn a_circle_goes_in_the_background_and_waits_for_itself_in_the_foreground() {
    assert_eq!(left(DeletionPropagation::Background, circle), 0);
    // Each of them waits for the next, until somebody deletes one in the background.
    assert_eq!(left(DeletionPropagation::Foreground, circle), MANY);
}

#[test]
fn a_star_goes_in_every_way() {
    assert_eq!(left(DeletionPropagation::Foreground, star), 0);
    assert_eq!(left(DeletionPropagation::Background, star), 0);
    assert_eq!(left(DeletionPropagation::Orphan, star), MANY - 1);
}
