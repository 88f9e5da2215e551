#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::controllers::testing::{World, nginx};
use barge_proto::v1::{
    ClusterRecord, DeleteRecord, DeletionPropagation, Deployment, Node, ObjectMeta, OwnerReference,
    PodRecord, PodTemplateSpec, Revision, record::Record,
};

const PODS: usize = 1_200;

fn meta(name: String, owner: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: "default".to_owned(),
        uid: name.clone(),
        name,
        owner_references: vec![OwnerReference {
            kind: "Deployment".to_owned(),
            uid: owner.to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        }],
        ..ObjectMeta::default()
    }
}

/// A Deployment with many pods, the first of which runs.
fn world() -> World {
    let mut world = World::default();
    world.put(Record::Cluster(ClusterRecord {
        metadata: Some(ObjectMeta {
            name: "cluster".to_owned(),
            uid: "cluster".to_owned(),
            ..ObjectMeta::default()
        }),
        feature_level: LOSS,
        ..ClusterRecord::default()
    }));
    world.put(nginx("d", 0));
    world.put(Record::Revision(Revision {
        metadata: Some(meta("r".to_owned(), "d")),
        template: Some(PodTemplateSpec::default()),
        number: 1,
        status: None,
    }));
    let pod = |number| PodRecord {
        metadata: Some(meta(format!("p{number:04}"), "d")),
        template_uid: "r".to_owned(),
        ..PodRecord::default()
    };
    world.apply((0..PODS).map(|number| {
        Change::Put(barge_proto::v1::Record {
            record: Some(Record::Pod(pod(number))),
        })
    }));
    let node = world.node("one", 1000, 1000, 10);
    let first = world.by_uid::<PodRecord>("p0000");
    world.bind(&first, &node);
    world
}

fn delete(world: &mut World, propagation: DeletionPropagation) {
    world.apply([Change::Delete(DeleteRecord {
        target: Some(RecordRef {
            kind: RecordKind::Deployment.number(),
            uid: "d".to_owned(),
            ..RecordRef::default()
        }),
        propagation: propagation.into(),
    })]);
}

/// One look at everything that there is to look at; whether anything is to be done at once.
fn look(world: &mut World, controller: &Deletions) -> bool {
    let mut again = false;
    for key in controller.all(&world.state) {
        let mut stamp = world.stamp();
        let plan = controller.plan(&world.state, &key, &mut stamp);
        again |= plan.again == Some(Duration::ZERO);
        world.follow(plan);
    }
    again
}

#[test]
fn slices_follow_one_another_until_the_record_is_gone() {
    let mut world = world();
    delete(&mut world, DeletionPropagation::Background);
    assert_eq!(world.state.count::<PodRecord>(), PODS, "only a mark");
    let controller = Deletions::default();
    let mut looks = 0;
    while look(&mut world, &controller) {
        looks += 1;
        assert!(looks < 20, "it never ends");
    }
    assert_eq!(world.state.count::<Deployment>(), 0);
    assert_eq!(world.pods().len(), 1, "the one that runs ends");
}

#[test]
fn the_next_leader_goes_on() {
    let mut world = world();
    delete(&mut world, DeletionPropagation::Background);
    let mut looks = 0;
    while look(&mut world, &Deletions::default()) {
        looks += 1;
        assert!(looks < 20, "it never ends");
    }
    assert_eq!(world.state.count::<Deployment>(), 0);
}

#[test]
fn what_waits_is_not_looked_at_until_something_changes() {
    let mut world = world();
    delete(&mut world, DeletionPropagation::Foreground);
    let controller = Deletions::default();
    while look(&mut world, &controller) {}
    assert_eq!(world.state.count::<Deployment>(), 1, "it waits for its pod");
    world.changes.clear();
    let pod = world.by_uid::<PodRecord>("p0000");
    world.remove(&*pod);
    assert_eq!(world.state.count::<Deployment>(), 0);
    let mut dirty = Vec::new();
    for change in &world.changes {
        controller.dirtied(&world.state, change, &mut |key| dirty.push(key));
    }
    assert!(dirty.contains(&"d".to_owned()), "so that it is forgotten");
    let mut stamp = world.stamp();
    let plan = controller.plan(&world.state, &"d".to_owned(), &mut stamp);
    assert_eq!(plan, Plan::default());
    assert!(controller.places().is_empty());
    assert_eq!(world.state.count::<Node>(), 1);
}

#[test]
fn another_mark_begins_again() {
    let mut world = world();
    delete(&mut world, DeletionPropagation::Foreground);
    let controller = Deletions::default();
    while look(&mut world, &controller) {}
    delete(&mut world, DeletionPropagation::Background);
    while look(&mut world, &controller) {}
    assert_eq!(world.state.count::<Deployment>(), 0);
}
