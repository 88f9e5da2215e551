//! Pods that are lost with their node.

use super::*;
use barge_proto::v1::{DeploymentStrategy, MarkPod, change::Change};
use std::collections::BTreeSet;

/// A Deployment of so many ready pods on a node, some of which are lost.
fn with_lost(replicas: i32, lost: usize) -> World {
    let mut world = world(replicas);
    settle(&mut world);
    let node = world.node("a", 8000, 8000, 100);
    for pod in world.live() {
        world.bind(&pod, &node);
        world.report(pod.uid(), "Running", true);
        world.advance(1);
    }
    settle(&mut world);
    for pod in world.live().iter().take(lost) {
        mark(&mut world, pod, true);
    }
    world
}

fn mark(world: &mut World, pod: &PackedPod, lost: bool) {
    world.apply([Change::MarkPod(MarkPod {
        uid: pod.uid().to_owned(),
        lost,
        node_uid: pod.node_uid().to_owned(),
    })]);
}

fn lost(world: &World) -> usize {
    world.pods().iter().filter(|pod| pod.is_lost()).count()
}

#[test]
fn they_are_replaced_without_counting_against_the_surge() {
    let mut world = with_lost(4, 4);
    settle(&mut world);
    assert_eq!((world.live().len(), lost(&world)), (4, 4));
    let status = world.deployment(NAME).status.clone().unwrap();
    assert_eq!((status.replicas, status.ready_replicas), (4, 0));
}

#[test]
fn as_many_are_kept_as_ready_ones_are_missing() {
    let mut world = with_lost(4, 2);
    settle(&mut world);
    assert_eq!(lost(&world), 2);
    world.edit(NAME, |spec| spec.replicas = Some(3));
    settle(&mut world);
    assert_eq!(lost(&world), 1);
    world.edit(NAME, |spec| spec.replicas = Some(0));
    settle(&mut world);
    assert_eq!(lost(&world), 0);
}

#[test]
fn those_that_come_back_stay_and_the_surplus_that_is_not_ready_goes() {
    let mut world = with_lost(3, 2);
    settle(&mut world);
    let mut old = world.pods();
    old.retain(|pod| pod.is_bound());
    for pod in &old {
        mark(&mut world, pod, false);
    }
    settle(&mut world);
    let uids = |pods: &[Arc<PackedPod>]| {
        let uids = pods.iter().map(|pod| pod.uid().to_owned());
        uids.collect::<BTreeSet<_>>()
    };
    assert_eq!(uids(&world.live()), uids(&old));
}

#[test]
fn recreate_replaces_them_and_starts_no_other_revision_beside_them() {
    let mut world = with_lost(2, 1);
    world.edit(NAME, |spec| {
        spec.strategy = Some(DeploymentStrategy {
            r#type: "Recreate".into(),
            rolling_update: None,
        });
    });
    converge(&mut world);
    assert_eq!(
        (world.live().len(), lost(&world)),
        (2, 1),
        "it may still run, also when it is replaced"
    );
    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    converge(&mut world);
    assert_eq!((world.live().len(), lost(&world)), (0, 1));
    let deployment = world.deployment(NAME);
    let conditions = &deployment.status.as_ref().unwrap().conditions;
    let reasons: Vec<_> = conditions.iter().map(|it| &*it.reason).collect();
    assert!(reasons.contains(&"WaitingForLostPods"), "{reasons:?}");
    let pods = world.pods();
    let back = pods.iter().find(|pod| pod.is_lost()).unwrap();
    mark(&mut world, back, false);
    converge(&mut world);
    assert_eq!(images(&world), ["nginx:2", "nginx:2"]);
}
