//! Deleting: what becomes of what a record owns; and rehearsals, which change nothing.

use barge_proto::v1::{
    DeleteRecord, DeletionPropagation, Deployment, OwnerReference, PodRecord, RecordRef, Revision,
    change,
};
use barge_state::{Kind, RecordKind, State};
use proptest::prelude::*;

use crate::fixtures::*;

/// Owned as a controller's pods are: the owner waits for it.
fn blocking<K: Kind>(mut record: K, owner: &str) -> K {
    record.meta_mut().owner_references.push(OwnerReference {
        kind: "Deployment".to_owned(),
        uid: owner.to_owned(),
        block_owner_deletion: Some(true),
        ..OwnerReference::default()
    });
    record
}

/// A Deployment with a template in use, one in the history, a pod that runs and one that waits.
fn deployed() -> State {
    state([
        put(namespace("default")),
        put(node("n1")),
        put(deployment("d1", 2)),
        put(blocking(revision("r1", "1", "1Gi"), "d1")),
        put(blocking(revision("old", "1", "1Gi"), "d1")),
        put(blocking(pod("p1", "r1"), "d1")),
        put(blocking(pod("p2", "r1"), "d1")),
        bind("p1", "n1"),
    ])
}

fn delete(uid: &str, propagation: DeletionPropagation) -> change::Change {
    change::Change::Delete(DeleteRecord {
        target: Some(RecordRef {
            kind: RecordKind::Deployment.number(),
            uid: uid.to_owned(),
            ..RecordRef::default()
        }),
        propagation: propagation.into(),
    })
}

fn pods(state: &State) -> Vec<&str> {
    state.list::<PodRecord>(None).map(|pod| pod.uid()).collect()
}

fn templates(state: &State) -> Vec<&str> {
    let templates = state.list::<Revision>(None);
    templates.map(|template| template.uid()).collect()
}

#[test]
fn in_the_foreground_the_owner_waits_for_its_pods() {
    let mut state = deployed();
    accept(&mut state, [delete("d1", DeletionPropagation::Foreground)]);
    crate::indexes::check(&state);
    let marked = state.by_uid::<Deployment>("d1").unwrap().meta().clone();
    assert!(marked.deletion_timestamp.is_some());
    assert_eq!(marked.finalizers, ["foregroundDeletion"]);
    assert_eq!(pods(&state), ["p1"], "the one that runs ends gracefully");
    // Neither a put nor another request makes it live again or changes what it waits for.
    accept(&mut state, [put(deployment("d1", 5))]);
    accept(&mut state, [delete("d1", DeletionPropagation::Foreground)]);
    let now = state.by_uid::<Deployment>("d1").unwrap().meta();
    assert_eq!(now.finalizers, marked.finalizers);
    assert_eq!(now.deletion_timestamp, marked.deletion_timestamp);
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    crate::indexes::check(&state);
    assert_eq!(state.count::<Deployment>(), 0);
    assert_eq!(state.count::<Revision>(), 0);
}

#[test]
fn in_the_foreground_without_pods_it_goes_at_once() {
    let mut state = state([put(namespace("default")), put(deployment("d1", 0))]);
    accept(&mut state, [delete("d1", DeletionPropagation::Foreground)]);
    assert_eq!(state.count::<Deployment>(), 0);
}

#[test]
fn owners_in_a_chain_wait_for_each_other() {
    let mut state = deployed();
    accept(&mut state, [put(deployment("top", 1))]);
    let mut owned = Deployment::clone(state.by_uid::<Deployment>("d1").unwrap());
    owned = blocking(owned, "top");
    accept(&mut state, [put(owned)]);
    accept(&mut state, [delete("top", DeletionPropagation::Foreground)]);
    assert_eq!(state.count::<Deployment>(), 2);
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    assert_eq!(state.count::<Deployment>(), 0);
}

#[test]
fn what_does_not_block_is_not_waited_for() {
    let mut state = state([
        put(namespace("default")),
        put(node("n1")),
        put(deployment("d1", 1)),
        put(revision("r1", "1", "1Gi")),
        put(owned_by(pod("p1", "r1"), "d1")),
        bind("p1", "n1"),
    ]);
    accept(&mut state, [delete("d1", DeletionPropagation::Foreground)]);
    assert_eq!((state.count::<Deployment>(), pods(&state)), (0, vec!["p1"]));
}

#[test]
fn orphans_stay_and_belong_to_nobody() {
    let mut state = deployed();
    accept(&mut state, [delete("d1", DeletionPropagation::Orphan)]);
    crate::indexes::check(&state);
    assert_eq!(state.count::<Deployment>(), 0);
    assert_eq!(pods(&state), ["p1", "p2"]);
    for pod in state.list::<PodRecord>(None) {
        assert!(pod.owners().is_empty());
        assert!(pod.deletion().is_none());
    }
    assert_eq!(
        templates(&state),
        ["r1"],
        "the history is nothing without it"
    );
    for pod in ["p1", "p2"] {
        accept(&mut state, [remove(RecordKind::Pod, pod)]);
    }
    assert_eq!(state.count::<Revision>(), 0, "it goes with its last pod");
}

#[test]
fn a_rehearsal_answers_as_if_and_changes_nothing() {
    let mut state = deployed();
    let before = copy(&state);
    let transaction = tx([delete("d1", DeletionPropagation::Background)]);
    let rehearsed = state.rehearse(transaction.clone());
    assert!(state == before);
    crate::indexes::check(&state);
    let refused = state.rehearse(tx([put(deployment("d2", 1)), put(pod("p9", "missing"))]));
    assert!(refused.outcome.refusal.is_some() && refused.changes.is_empty());
    assert!(state == before);
    let applied = state.apply(TERM, transaction);
    assert_eq!(rehearsed.outcome, applied.outcome);
    assert_eq!(rehearsed.changes, applied.changes);
}

// Whatever is deleted in whatever way and order: an owner that waits has something to wait for, and all comes to an end.

#[derive(Debug, Clone)]
enum Step {
    Delete(usize, DeletionPropagation),
    /// A node reports that a pod is gone.
    Gone(usize),
    /// Another pod.
    Pod(usize),
}

const OWNERS: usize = 3;
const PODS: usize = 12;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let propagation = prop_oneof![
        Just(DeletionPropagation::Background),
        Just(DeletionPropagation::Foreground),
        Just(DeletionPropagation::Orphan),
    ];
    let step = prop_oneof![
        2 => (0..OWNERS, propagation).prop_map(|(owner, how)| Step::Delete(owner, how)),
        3 => (0..PODS).prop_map(Step::Gone),
        1 => (0..PODS).prop_map(Step::Pod),
    ];
    proptest::collection::vec(step, 1..30)
}

/// Three Deployments, each the owner of the next, each with a template and pods of it.
fn forest() -> State {
    let mut state = state([put(namespace("default")), put(node("n1"))]);
    for owner in 0..OWNERS {
        let mut deployment = deployment(&format!("d{owner}"), 1);
        if owner > 0 {
            deployment = blocking(deployment, &format!("d{}", owner - 1));
        }
        let template = blocking(
            revision(&format!("r{owner}"), "1m", "1Mi"),
            &format!("d{owner}"),
        );
        accept(&mut state, [put(deployment), put(template)]);
    }
    for pod in 0..PODS {
        add(&mut state, pod);
    }
    state
}

/// A pod of one of the Deployments, if that is there; every second one runs.
fn add(state: &mut State, number: usize) {
    let (uid, owner) = (format!("p{number}"), format!("d{}", number % OWNERS));
    let lives = state
        .by_uid::<Deployment>(&owner)
        .is_some_and(|owner| owner.meta().deletion_timestamp.is_none());
    if !lives || state.by_uid::<PodRecord>(&uid).is_some() {
        return;
    }
    let made = pod(&uid, &format!("r{}", number % OWNERS));
    accept(state, [put(blocking(made, &owner))]);
    if number.is_multiple_of(2) {
        accept(state, [bind(&uid, "n1")]);
    }
}

fn is_sound(state: &State) {
    crate::indexes::check(state);
    for deployment in state.list::<Deployment>(None) {
        let uid = deployment.uid();
        let waits = !deployment.meta().finalizers.is_empty();
        let has = state.owned_count::<PodRecord>(uid) + state.owned_count::<Deployment>(uid);
        assert!(!waits || has > 0, "{uid} waits for nothing");
        assert_eq!(waits, deployment.meta().deletion_timestamp.is_some());
    }
    for pod in state.list::<PodRecord>(None) {
        assert!(
            state.template(pod).is_some(),
            "{} has no template",
            pod.uid()
        );
    }
}

proptest! {
    #[test]
    fn who_waits_has_something_to_wait_for(steps in steps()) {
        let mut state = forest();
        is_sound(&state);
        for step in steps {
            let change = match step {
                Step::Delete(owner, how) => delete(&format!("d{owner}"), how),
                Step::Gone(pod) => remove(RecordKind::Pod, &format!("p{pod}")),
                Step::Pod(pod) => {
                    add(&mut state, pod);
                    continue;
                }
            };
            let before = copy(&state);
            let rehearsed = state.rehearse(tx([change.clone()]));
            prop_assert!(state == before, "a rehearsal changed something");
            let applied = accept(&mut state, [change]);
            prop_assert_eq!(rehearsed.outcome, applied.outcome);
            prop_assert_eq!(rehearsed.changes, applied.changes);
            is_sound(&state);
        }
        for owner in 0..OWNERS {
            accept(&mut state, [delete(&format!("d{owner}"), DeletionPropagation::Foreground)]);
        }
        for pod in 0..PODS {
            accept(&mut state, [remove(RecordKind::Pod, &format!("p{pod}"))]);
            is_sound(&state);
        }
        prop_assert_eq!(state.count::<Deployment>(), 0);
        prop_assert_eq!(state.count::<Revision>(), 0);
    }
}
