//! Revisions as ReplicaSets.

use super::*;
use barge_proto::v1::{Kind as Shown, ReplicaSet};

/// What is shown of each revision, oldest first: desired, current, ready, available.
pub(super) fn shown(world: &World) -> Vec<[i32; 4]> {
    let mut revisions: Vec<_> = world.state.list::<Revision>(None).collect();
    revisions.sort_by_key(|revision| revision.number);
    let sets = revisions.iter().map(|revision| {
        let set = set(world, &revision.meta().name);
        let (spec, status) = (set.spec.unwrap(), set.status.unwrap());
        [
            spec.replicas.unwrap(),
            status.replicas,
            status.ready_replicas,
            status.available_replicas,
        ]
    });
    sets.collect()
}

fn set(world: &World, name: &str) -> ReplicaSet {
    let object = world.state.object(Shown::ReplicaSet, "default", name);
    ReplicaSet::try_from(object.unwrap()).unwrap()
}

#[test]
fn a_revision_reads_as_a_replica_set() {
    let mut world = world(3);
    world.raise(REPLICA_SETS);
    settle(&mut world);
    obey(&mut world);
    settle(&mut world);
    assert_eq!(shown(&world), [[3, 3, 3, 3]]);
    let revision = world.state.list::<Revision>(None).next().unwrap().clone();
    let set = set(&world, &revision.meta().name);
    let metadata = set.metadata.unwrap();
    let [owner] = &metadata.owner_references[..] else {
        panic!("{metadata:?}");
    };
    assert_eq!((&*owner.kind, &*owner.name), ("Deployment", NAME));
    assert_eq!(
        metadata.annotations["deployment.kubernetes.io/revision"],
        "1"
    );

    // Its pods say that they belong to it, and match its selector.
    let selector = set.spec.unwrap().selector.unwrap().match_labels;
    for pod in world.live() {
        let pod = world.state.pod(&pod).metadata.unwrap();
        let [owner] = &pod.owner_references[..] else {
            panic!("{pod:?}");
        };
        assert_eq!((&*owner.kind, &*owner.uid), ("ReplicaSet", &*metadata.uid));
        assert_eq!(owner.name, metadata.name);
        assert_eq!(pod.labels, selector);
    }

    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    settle(&mut world);
    // One more than wanted, which does not run yet.
    assert_eq!(shown(&world), [[3, 3, 3, 3], [1, 1, 0, 0]]);
    for _ in 0..20 {
        obey(&mut world);
        settle(&mut world);
    }
    assert_eq!(shown(&world), [[0, 0, 0, 0], [3, 3, 3, 3]]);
}

#[test]
fn a_pod_that_has_finished_is_wanted_until_another_takes_its_place() {
    let mut world = world(2);
    world.raise(REPLICA_SETS);
    settle(&mut world);
    obey(&mut world);
    settle(&mut world);
    let failed = world.live()[0].clone();
    world.report(failed.uid(), "Failed", false);
    settle(&mut world);
    // Its place is held for five seconds.
    assert_eq!(shown(&world), [[2, 1, 1, 1]]);
    world.advance(10);
    settle(&mut world);
    assert_eq!(shown(&world), [[2, 2, 1, 1]]);
    world.edit(NAME, |spec| spec.replicas = Some(0));
    settle(&mut world);
    assert_eq!(shown(&world), [[0; 4]]);
}

#[test]
fn no_revision_has_counts_before_all_managers_know_them() {
    let mut world = world(2);
    world.raise(REPLICA_SETS - 1);
    settle(&mut world);
    let revision = world.state.list::<Revision>(None).next().unwrap();
    assert_eq!(revision.status, None);
    world.raise(REPLICA_SETS);
    let risen = world.changes.last().unwrap().clone();
    let mut dirty = Vec::new();
    Deployments.dirtied(&world.state, &risen, &mut |name| dirty.push(name));
    assert_eq!(dirty, [key()]);
    settle(&mut world);
    assert_eq!(shown(&world), [[2, 2, 0, 0]]);
}

#[test]
fn a_revision_takes_no_name_of_a_replica_set() {
    let mut world = world(1);
    world.raise(REPLICA_SETS);
    let mut stamp = world.stamp();
    let first = plan(&world.state, &key(), &mut stamp);
    let uid = world.uid();
    let name = |world: &World| {
        let revision = world.state.list::<Revision>(None).next();
        revision.map(|it| it.meta().name.clone())
    };
    let taken = first
        .draft
        .changes()
        .iter()
        .find_map(|change| match &change.change {
            Some(barge_proto::v1::change::Change::Put(record)) => match &record.record {
                Some(barge_proto::v1::record::Record::Revision(it)) => Some(it.meta().name.clone()),
                _ => None,
            },
            _ => None,
        });
    let taken = taken.unwrap();
    world.put(barge_proto::v1::record::Record::ReplicaSet(ReplicaSet {
        metadata: Some(barge_proto::v1::ObjectMeta {
            name: taken.clone(),
            namespace: "default".into(),
            uid,
            ..barge_proto::v1::ObjectMeta::default()
        }),
        ..ReplicaSet::default()
    }));
    assert!(world.propose(first.draft).refusal.is_some());
    settle(&mut world);
    assert_ne!(name(&world).unwrap(), taken);
}
