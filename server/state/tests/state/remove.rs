//! Removing records with what belongs to them.

use barge_proto::v1::{
    Deployment, Event, Namespace, Node, PodRecord, RefusalReason, Revision, Service, change,
};
use barge_state::{Kind, RecordKind, State};

use crate::fixtures::*;

/// A Deployment with two templates; p1 runs on a node, p2 waits, p3 has finished.
fn deployed() -> State {
    state([
        put(namespace("default")),
        put(node("n1")),
        put(deployment("d1", 3)),
        put(owned_by(revision("r1", "1", "1Gi"), "d1")),
        put(owned_by(revision("old", "1", "1Gi"), "d1")),
        put(owned_by(pod("p1", "r1"), "d1")),
        put(owned_by(pod("p2", "r1"), "d1")),
        put(owned_by(pod("p3", "r1"), "r1")),
        bind("p1", "n1"),
        bind("p3", "n1"),
        report("p3", phase("Failed")),
        change::Change::RecordEvent(event("e1", "p1", "started", 1)),
    ])
}

fn pods(state: &State) -> Vec<&str> {
    state.list::<PodRecord>(None).map(|pod| pod.uid()).collect()
}

#[test]
fn what_a_deployment_owns_goes_with_it_but_running_pods_end_gracefully() {
    let mut state = deployed();
    accept(&mut state, [remove(RecordKind::Deployment, "d1")]);
    crate::indexes::check(&state);
    assert_eq!(state.count::<Deployment>(), 0);
    assert_eq!(pods(&state), ["p1"]);
    assert!(
        state
            .by_uid::<PodRecord>("p1")
            .unwrap()
            .meta()
            .deletion_timestamp
            .is_some()
    );
    let templates: Vec<_> = state
        .list::<Revision>(None)
        .map(|revision| revision.uid())
        .collect();
    assert_eq!(
        templates,
        ["r1"],
        "the template stays until its last pod is gone"
    );
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    assert_eq!(state.count::<Revision>(), 0);
    assert_eq!(
        state.owned::<Event>("p1").count(),
        1,
        "events outlive their object"
    );
}

#[test]
fn templates_stay_while_their_owner_lives() {
    let mut state = deployed();
    accept(
        &mut state,
        ["p1", "p2", "p3"].map(|uid| remove(RecordKind::Pod, uid)),
    );
    assert_eq!(state.count::<Revision>(), 2);
}

#[test]
fn a_template_that_is_removed_waits_for_its_pods() {
    let mut state = deployed();
    accept(
        &mut state,
        [
            remove(RecordKind::Revision, "old"),
            remove(RecordKind::Revision, "r1"),
        ],
    );
    assert_eq!(state.count::<Revision>(), 1);
    assert_eq!(pods(&state), ["p1", "p2"], "the one it owned had finished");
    accept(
        &mut state,
        [remove(RecordKind::Pod, "p1"), terminate("p2", None)],
    );
    assert_eq!(state.count::<Revision>(), 0);
}

#[test]
fn the_template_of_a_bare_pod_goes_with_it() {
    let mut state = state([
        put(pod("p1", "r1")),
        put(owned_by(revision("r1", "1", "1Gi"), "p1")),
    ]);
    accept(&mut state, [terminate("p1", None)]);
    assert_eq!(state.stored().count(), 0);
    accept(
        &mut state,
        [put(revision("r2", "1", "1Gi")), put(pod("p2", "r2"))],
    );
    accept(&mut state, [remove(RecordKind::Pod, "p2")]);
    assert_eq!(
        state.stored().count(),
        0,
        "without an owner the last pod takes it along"
    );
}

#[test]
fn what_has_another_owner_stays() {
    let shared = owned_by(owned_by(service("s1", "", &[]), "d1"), "d2");
    let mut state = state([
        put(deployment("d1", 1)),
        put(deployment("d2", 1)),
        put(shared),
    ]);
    accept(&mut state, [remove(RecordKind::Deployment, "d1")]);
    assert_eq!(state.count::<Service>(), 1);
    accept(&mut state, [remove(RecordKind::Deployment, "d2")]);
    assert_eq!(state.count::<Service>(), 0);
}

#[test]
fn a_node_takes_its_pods_along() {
    let mut state = deployed();
    accept(&mut state, [remove(RecordKind::Node, "n1")]);
    crate::indexes::check(&state);
    assert_eq!(state.count::<Node>(), 0);
    assert_eq!(pods(&state), ["p2"]);
}

#[test]
fn a_namespace_waits_for_its_pods() {
    let mut state = deployed();
    accept(&mut state, [remove(RecordKind::Namespace, "ns-default")]);
    crate::indexes::check(&state);
    let kept = state.get::<Namespace>("", "default").unwrap();
    assert_eq!(kept.status.as_ref().unwrap().phase, "Terminating");
    assert_eq!(
        state.stored().count(),
        4,
        "it, the node, the pod and its template"
    );
    assert_eq!(
        refuse(&mut state, [put(deployment("d2", 1))]),
        RefusalReason::Conflict
    );
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    assert_eq!(state.count::<Namespace>(), 0);
    assert_eq!(state.stored().count(), 1, "the node");
}

#[test]
fn removing_again_is_no_error() {
    let mut state = deployed();
    assert_eq!(
        accept(&mut state, [remove(RecordKind::Pod, "gone")]).changes,
        []
    );
    let nothing = change::Change::Remove(barge_proto::v1::RecordRef::default());
    assert_eq!(refuse(&mut state, [nothing]), RefusalReason::Invalid);
}
