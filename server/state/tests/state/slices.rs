//! Deletions in slices: each is small, and in the end there is what one transaction would have left.

use std::collections::BTreeSet;

use barge_proto::v1::{
    ClusterRecord, Collect, ConfigMap, DeleteRecord, DeletionPropagation, Deployment, Namespace,
    Node, OwnerReference, PodRecord, RecordRef, RefusalReason, Revision, change,
};
use barge_state::{Changed, Kind, LOSS, Next, Place, RecordKind, State, Stored, limits::Limits};
use proptest::{collection::vec, prelude::*};

use crate::{fixtures::*, model::metadata};

/// A cluster whose managers know slices of that size.
fn cluster(slice: usize) -> State {
    let mut state = State::with_limits(Limits {
        slice,
        ..Limits::default()
    });
    let cluster = ClusterRecord {
        metadata: Some(meta("", "cluster", "cluster")),
        feature_level: LOSS,
        ..ClusterRecord::default()
    };
    accept(&mut state, [put(cluster), put(namespace("default"))]);
    state
}

fn owned<K: Kind>(mut record: K, owner: &str, blocks: bool) -> K {
    record.meta_mut().owner_references.push(OwnerReference {
        kind: "ConfigMap".to_owned(),
        uid: owner.to_owned(),
        block_owner_deletion: Some(blocks),
        ..OwnerReference::default()
    });
    record
}

fn config_map(uid: &str) -> ConfigMap {
    ConfigMap {
        metadata: Some(meta("default", uid, uid)),
        ..ConfigMap::default()
    }
}

fn delete(kind: RecordKind, uid: &str, propagation: DeletionPropagation) -> change::Change {
    change::Change::Delete(DeleteRecord {
        target: Some(RecordRef {
            kind: kind.number(),
            uid: uid.to_owned(),
            ..RecordRef::default()
        }),
        propagation: propagation.into(),
    })
}

fn slice(uid: &str, limit: usize, place: Place) -> change::Change {
    change::Change::Collect(Collect {
        uid: uid.to_owned(),
        limit: limit as u32,
        after_kind: place.kind,
        after: place.last,
    })
}

/// What the leader does until it only waits for pods; tells how many slices that were.
fn work_off(state: &mut State, limit: usize) -> usize {
    let mut slices = 0;
    loop {
        let before = slices;
        let marked: Vec<_> = state.deletions().map(|(uid, _)| uid.to_owned()).collect();
        for uid in marked {
            let mut place = Place::default();
            loop {
                match state.next_of_deletion(&uid, &place, 3) {
                    Next::Slice(at) => {
                        let applied = accept(state, [slice(&uid, limit, at)]);
                        assert!(!applied.changes.is_empty(), "a slice that does nothing");
                        // A node takes the tombstones of its pods with it.
                        let is_tombstone =
                            |change: &&Changed| change.kind() == Some(RecordKind::PodTombstone);
                        let tombstones = applied.changes.iter().filter(is_tombstone).count();
                        let changes = applied.changes.len() - tombstones;
                        assert!(changes <= 3 * limit + 3, "{changes} by a slice of {limit}");
                        crate::indexes::check(state);
                        slices += 1;
                        assert!(slices < 10_000, "it never ends");
                        break;
                    }
                    Next::Further(at) => place = at,
                    Next::Waits | Next::Gone => break,
                }
            }
        }
        if slices == before {
            return slices;
        }
    }
}

/// Nodes report that all pods that have to end are gone.
fn pods_end(state: &mut State, limit: usize) {
    let ending = state.list::<PodRecord>(None);
    let ending: Vec<_> = ending
        .filter(|pod| pod.is_terminating())
        .map(|pod| pod.uid().to_owned())
        .collect();
    for uid in ending {
        let applied = accept(state, [remove(RecordKind::Pod, &uid)]);
        assert!(applied.changes.len() <= 3 * limit + 3);
        work_off(state, limit);
    }
}

/// All records, but for their versions and for references to what is gone.
fn content(state: &State) -> Vec<Stored> {
    // A tombstone has the uid of a pod that is gone.
    let uids: BTreeSet<_> = state
        .stored()
        .filter(|record| record.kind() != RecordKind::PodTombstone)
        .map(|record| record.uid().to_owned())
        .collect();
    let records = state.records().map(|mut record| {
        let meta = metadata(&mut record);
        meta.resource_version.clear();
        meta.owner_references
            .retain(|owner| uids.contains(&owner.uid));
        Stored::from_record(record).unwrap()
    });
    records.collect()
}

/// A Deployment with pods, every second one of which runs.
fn deployed(state: &mut State, pods: usize) {
    accept(
        state,
        [
            put(deployment("d", 1)),
            put(owned(revision("r", "1m", "1Mi"), "d", true)),
        ],
    );
    for number in 0..pods {
        if number % 6 == 0 {
            accept(state, [put(node(&format!("n{number}")))]);
        }
        let uid = format!("p{number:04}");
        accept(state, [put(owned(pod(&uid, "r"), "d", true))]);
        if number % 2 == 0 {
            accept(state, [bind(&uid, &format!("n{}", number / 6 * 6))]);
        }
    }
}

#[test]
fn a_deployment_with_many_pods_goes_in_slices() {
    use DeletionPropagation::{Background, Foreground, Orphan};
    for (how, waits) in [(Background, false), (Foreground, true), (Orphan, false)] {
        let mut state = cluster(10);
        deployed(&mut state, 200);
        let applied = accept(&mut state, [delete(RecordKind::Deployment, "d", how)]);
        assert_eq!(applied.changes.len(), 1, "the mark");
        let marked = state.by_uid::<Deployment>("d").unwrap().meta();
        assert!(marked.deletion_timestamp.is_some());
        assert!(work_off(&mut state, 10) >= 20);
        assert_eq!(state.by_uid::<Deployment>("d").is_some(), waits);
        let left = if how == Orphan { 200 } else { 100 };
        assert_eq!(state.count::<PodRecord>(), left);
        pods_end(&mut state, 10);
        assert_eq!(state.count::<Deployment>(), 0);
        if how != Orphan {
            assert_eq!(state.count::<PodRecord>() + state.count::<Revision>(), 0);
        }
    }
}

#[test]
fn a_namespace_with_many_records_goes_in_slices() {
    let mut state = cluster(10);
    deployed(&mut state, 100);
    accept(
        &mut state,
        (0..100).map(|n| put(config_map(&format!("c{n:03}")))),
    );
    let applied = accept(&mut state, [remove(RecordKind::Namespace, "ns-default")]);
    assert_eq!(applied.changes.len(), 1, "the mark");
    let namespace = state.by_uid::<Namespace>("ns-default").unwrap();
    assert_eq!(namespace.status.as_ref().unwrap().phase, "Terminating");
    let late = put(config_map("late"));
    assert_eq!(refuse(&mut state, [late]), RefusalReason::Conflict);
    assert!(work_off(&mut state, 10) >= 20);
    assert_eq!(state.count::<PodRecord>(), 50, "those that run");
    assert_eq!(state.count::<ConfigMap>() + state.count::<Deployment>(), 0);
    pods_end(&mut state, 10);
    assert_eq!(state.count::<Namespace>() + state.count::<PodRecord>(), 0);
}

#[test]
fn a_node_with_many_pods_goes_in_slices() {
    let mut state = cluster(2);
    deployed(&mut state, 6);
    accept(&mut state, [remove(RecordKind::Node, "n0")]);
    let node = state.by_uid::<Node>("n0").unwrap();
    assert!(node.spec.as_ref().unwrap().unschedulable);
    let answer = accept(&mut state, [bind("p0001", "n0")]);
    assert!(!answer.outcome.binds[0].is_empty());
    work_off(&mut state, 2);
    assert_eq!((state.count::<Node>(), state.count::<PodRecord>()), (0, 3));
}

#[test]
fn little_goes_at_once() {
    let mut state = cluster(100);
    deployed(&mut state, 20);
    accept(
        &mut state,
        [delete(
            RecordKind::Deployment,
            "d",
            DeletionPropagation::Background,
        )],
    );
    assert_eq!(
        (state.count::<Deployment>(), state.count::<PodRecord>()),
        (0, 10)
    );
    accept(&mut state, [remove(RecordKind::Namespace, "ns-default")]);
    assert_eq!(work_off(&mut state, 100), 0);
}

#[test]
fn a_chain_of_owners_goes_in_slices_as_deep_as_they_reach() {
    use DeletionPropagation::{Background, Foreground};
    for how in [Background, Foreground] {
        let mut state = cluster(25);
        accept(&mut state, [put(config_map("c0000"))]);
        let chain = (1..500).map(|n| {
            put(owned(
                config_map(&format!("c{n:04}")),
                &format!("c{:04}", n - 1),
                true,
            ))
        });
        accept(&mut state, chain);
        accept(&mut state, [delete(RecordKind::ConfigMap, "c0000", how)]);
        let slices = work_off(&mut state, 25);
        assert_eq!(state.count::<ConfigMap>(), 0);
        assert!(slices <= 60, "{slices} slices");
    }
}

#[test]
fn nothing_new_belongs_to_what_is_being_deleted() {
    let mut state = cluster(2);
    deployed(&mut state, 6);
    accept(
        &mut state,
        [delete(
            RecordKind::Deployment,
            "d",
            DeletionPropagation::Foreground,
        )],
    );
    let created = put(owned(config_map("c"), "d", false));
    let refusal = refuse_tx(&mut state, &tx([created]));
    assert_eq!(refusal.reason(), RefusalReason::Conflict);
    assert_eq!(
        refusal.message,
        "ConfigMap default/c: its owner Deployment default/name-of-d is being deleted"
    );
    accept(&mut state, [put(config_map("c"))]);
    let adopted = put(owned(config_map("c"), "d", false));
    assert_eq!(refuse(&mut state, [adopted]), RefusalReason::Conflict);
    // What belongs to it already may still change.
    let mut own = owned(pod("p0000", "r"), "d", true);
    own.meta_mut().labels.insert("a".to_owned(), "b".to_owned());
    accept(&mut state, [put(own)]);
}

#[test]
fn managers_that_do_not_know_slices_delete_at_once() {
    let mut state = State::with_limits(Limits {
        slice: 2,
        ..Limits::default()
    });
    accept(&mut state, [put(namespace("default"))]);
    deployed(&mut state, 20);
    assert_eq!(
        refuse(&mut state, [slice("d", 1, Place::default())]),
        RefusalReason::FeatureLevel
    );
    accept(&mut state, [remove(RecordKind::Deployment, "d")]);
    assert_eq!(
        (state.count::<Deployment>(), state.count::<PodRecord>()),
        (0, 10)
    );
}

#[derive(Debug, Clone, Copy)]
enum Is {
    ConfigMap,
    Deployment,
    Template,
    Pod,
    BoundPod,
}

const RECORDS: usize = 16;
const NODES: usize = 2;

/// Of each record what it is, and by whom it is owned in what way.
type Graph = Vec<(Is, Vec<(usize, bool)>)>;

fn graphs() -> impl Strategy<Value = Graph> {
    let is = prop_oneof![
        3 => Just(Is::ConfigMap),
        2 => Just(Is::Deployment),
        1 => Just(Is::Template),
        2 => Just(Is::Pod),
        2 => Just(Is::BoundPod),
    ];
    let owners = prop_oneof![
        4 => vec((0..RECORDS, any::<bool>()), 0..2),
        1 => vec((0..RECORDS, Just(false)), 2),
    ];
    vec((is, owners), RECORDS)
}

/// Owners come first, so there are no circles: those that block wait for ever in the foreground.
fn build(state: &mut State, graph: &Graph) {
    accept(state, (0..NODES).map(|n| put(node(&format!("n{n}")))));
    accept(state, [put(revision("t", "1m", "1Mi"))]);
    for (number, (is, owners)) in graph.iter().enumerate() {
        let uid = format!("u{number:02}");
        let owners = owners.iter().filter(|(owner, _)| *owner < number);
        let owners: Vec<_> = owners
            .map(|(owner, blocks)| (format!("u{owner:02}"), *blocks))
            .filter(|(owner, _)| state.stored().any(|record| record.uid() == owner))
            .collect();
        fn with<K: Kind>(record: K, owners: &[(String, bool)]) -> change::Change {
            let owners = owners.iter();
            put(owners.fold(record, |record, (owner, blocks)| {
                owned(record, owner, *blocks)
            }))
        }
        let put = match is {
            Is::ConfigMap => with(config_map(&uid), &owners),
            Is::Deployment => with(deployment(&uid, 1), &owners),
            Is::Template => with(revision(&uid, "1m", "1Mi"), &owners),
            Is::Pod | Is::BoundPod => with(pod(&uid, "t"), &owners),
        };
        accept(state, [put]);
        if matches!(is, Is::BoundPod) {
            accept(state, [bind(&uid, &format!("n{}", number % NODES))]);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Delete(usize, DeletionPropagation),
    Node(usize),
    Namespace,
    PodsEnd,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        3 => Just(DeletionPropagation::Background),
        3 => Just(DeletionPropagation::Foreground),
        1 => Just(DeletionPropagation::Orphan),
    ];
    let step = prop_oneof![
        6 => (0..RECORDS, how).prop_map(|(owner, how)| Step::Delete(owner, how)),
        1 => (0..NODES).prop_map(Step::Node),
        1 => Just(Step::Namespace),
        2 => Just(Step::PodsEnd),
    ];
    vec(step, 1..5)
}

fn take(state: &mut State, step: &Step, limit: usize) {
    let change = match step {
        Step::Delete(number, how) => {
            let uid = format!("u{number:02}");
            let Some(found) = state.stored().find(|record| record.uid() == uid) else {
                return;
            };
            match found {
                // As the API does.
                Stored::Pod(_) => terminate(&uid, None),
                found => delete(found.kind(), &uid, *how),
            }
        }
        Step::Node(number) => remove(RecordKind::Node, &format!("n{number}")),
        Step::Namespace => remove(RecordKind::Namespace, "ns-default"),
        Step::PodsEnd => return pods_end(state, limit),
    };
    accept(state, [change]);
    crate::indexes::check(state);
    work_off(state, limit);
}

proptest! {
    #[test]
    fn in_the_end_slices_leave_what_one_transaction_leaves(
        graph in graphs(),
        steps in steps(),
        limit in 1..4usize,
    ) {
        let (mut sliced, mut whole) = (cluster(limit), cluster(1_000_000));
        for state in [&mut sliced, &mut whole] {
            build(state, &graph);
        }
        for step in &steps {
            take(&mut sliced, step, limit);
            take(&mut whole, step, 1_000_000);
        }
        // What waits in the foreground may have let go of more by then.
        pods_end(&mut sliced, limit);
        pods_end(&mut whole, 1_000_000);
        prop_assert_eq!(content(&sliced), content(&whole));
    }
}
