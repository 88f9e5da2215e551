#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

//! The plan of a Deployment, step by step and against everything that can happen to its pods.

mod claims;
mod configuration;
mod lost;
mod once;
mod rollouts;
mod statuses;

use super::{plan, *};
use crate::controllers::{
    pods,
    testing::{World, nginx, set_image},
};
use std::time::Duration;

const NAME: &str = "nginx-deployment";

fn key() -> Name {
    Name {
        namespace: "default".into(),
        name: NAME.into(),
    }
}

/// A world with the Deployment in it.
fn world(replicas: i32) -> World {
    let mut world = World::default();
    let uid = world.uid();
    world.put(nginx(&uid, replicas));
    world
}

/// One look, applied; returns what was planned.
fn step(world: &mut World) -> Plan {
    let mut stamp = world.stamp();
    let plan = plan(&world.state, &key(), &mut stamp);
    world.follow(plan.clone());
    plan
}

/// Looks until there is nothing to do.
fn settle(world: &mut World) {
    for _ in 0..100 {
        if step(world).draft.changes().is_empty() {
            return;
        }
    }
    panic!("the plan never settles");
}

/// Plays agents that do what they should: pods become ready, ended ones go.
fn obey(world: &mut World) {
    for pod in world.pods() {
        if pods::is_live(&pod) {
            world.report(pod.uid(), "Running", true);
        } else if pods::is_terminating(&pod) {
            world.remove(&*pod);
        }
    }
}

/// Lets agents work until nothing changes any more.
fn converge(world: &mut World) {
    for _ in 0..200 {
        settle(world);
        obey(world);
        world.advance(1);
        let mut stamp = world.stamp();
        if plan(&world.state, &key(), &mut stamp)
            .draft
            .changes()
            .is_empty()
        {
            return;
        }
    }
    panic!("the rollout never ends");
}

fn images(world: &World) -> Vec<String> {
    let pods = world.live();
    let mut images: Vec<_> = pods
        .iter()
        .map(|pod| {
            let template = world.state.template(pod).unwrap().template.clone();
            template.unwrap().spec.unwrap().containers[0].image.clone()
        })
        .collect();
    images.sort();
    images
}

fn revisions(world: &World) -> Vec<(i64, String)> {
    let mut revisions: Vec<_> = world
        .state
        .owned::<Revision>(world.deployment(NAME).uid())
        .map(|revision| (revision.number, revision.uid().to_owned()))
        .collect();
    revisions.sort();
    revisions
}

#[test]
fn pods_are_named_after_deployment_and_revision_and_carry_the_hash() {
    let mut world = world(3);
    settle(&mut world);
    let pods = world.live();
    assert_eq!(pods.len(), 3);
    let revision = world.state.template(&pods[0]).unwrap();
    let hash = &revision.meta().labels[HASH_LABEL];
    for pod in &pods {
        let name = &pod.meta().name;
        let suffix = name.strip_prefix(&format!("{NAME}-{hash}-")).unwrap();
        assert_eq!(suffix.len(), 5);
        assert_eq!(
            pod.meta().owner_references[0].uid,
            world.deployment(NAME).uid()
        );
    }
    let template = revision
        .template
        .as_ref()
        .unwrap()
        .metadata
        .as_ref()
        .unwrap();
    assert_eq!(&template.labels[HASH_LABEL], hash);
    assert_eq!(template.labels["app"], "nginx");
    let name = &revision.meta().name;
    let scaled = format!("Scaled up revision {name} from 0 to 3");
    assert_eq!(world.events("ScalingReplicaSet"), [scaled]);
}

#[test]
fn a_plan_is_a_function_of_the_state() {
    let mut world = world(5);
    converge(&mut world);
    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    step(&mut world);
    // Another manager, in the middle of a rollout, from what is on its disk.
    let other = State::restore(world.state.records(), world.state.meta());
    let mut stamp = world.stamp();
    let here = plan(&world.state, &key(), &mut stamp);
    let there = plan(&other, &key(), &mut Stamp::new(world.now, [9; 32]));
    assert_eq!(here.draft.changes().len(), there.draft.changes().len());
    let mut same = Stamp::new(world.now, [9; 32]);
    assert_eq!(plan(&world.state, &key(), &mut same), there);
}

#[test]
fn a_large_deployment_comes_in_batches() {
    let mut world = world(1200);
    let first = step(&mut world);
    assert_eq!(first.again, Some(Duration::ZERO));
    assert_eq!(
        world.live().len(),
        MAX_BATCH - 1,
        "one change is the revision"
    );
    settle(&mut world);
    assert_eq!(world.live().len(), 1200);
    world.edit(NAME, |spec| spec.replicas = Some(0));
    let plan = step(&mut world);
    assert_eq!(plan.again, Some(Duration::ZERO));
    settle(&mut world);
    assert_eq!(world.pods().len(), 0, "pods that aren't bound go at once");
}

#[test]
fn scaling_is_not_a_rollout() {
    let mut world = world(3);
    converge(&mut world);
    let before = revisions(&world);
    world.edit(NAME, |spec| spec.replicas = Some(5));
    converge(&mut world);
    assert_eq!(world.live().len(), 5);
    assert_eq!(revisions(&world), before);
    world.edit(NAME, |spec| spec.replicas = Some(1));
    converge(&mut world);
    assert_eq!(world.live().len(), 1);
    assert_eq!(revisions(&world), before);
}

#[test]
fn scaling_down_ends_those_that_are_missed_least() {
    let mut world = world(4);
    let nodes = [
        world.node("a", 8000, 8000, 100),
        world.node("b", 8000, 8000, 100),
    ];
    settle(&mut world);
    let pods = world.live();
    // Two share a node, one is alone, one isn't ready.
    for (pod, node) in pods.iter().zip([0, 0, 1, 1]) {
        world.bind(pod, &nodes[node]);
    }
    for pod in &pods[..3] {
        world.report(pod.uid(), "Running", true);
        world.advance(10);
    }
    world.report(pods[3].uid(), "Running", false);
    for (replicas, left) in [(3, vec![0, 1, 2]), (2, vec![0, 2]), (1, vec![0])] {
        world.edit(NAME, |spec| spec.replicas = Some(replicas));
        settle(&mut world);
        let mut live: Vec<_> = world
            .live()
            .iter()
            .map(|pod| pod.uid().to_owned())
            .collect();
        let mut expected: Vec<_> = left
            .iter()
            .map(|at: &usize| pods[*at].uid().to_owned())
            .collect();
        live.sort();
        expected.sort();
        assert_eq!(live, expected, "with {replicas} replicas");
    }
}

#[test]
fn a_finished_pod_is_replaced_and_removed_but_not_in_a_hot_loop() {
    let mut world = world(2);
    converge(&mut world);
    let node = world.node("a", 8000, 8000, 100);
    let pod = world.live()[0].clone();
    world.bind(&pod, &node);
    world.advance(10);
    world.report(pod.uid(), "Failed", false);
    settle(&mut world);
    assert_eq!(world.live().len(), 2, "there is a new one");
    assert!(pods::is_terminating(&world.by_uid::<PodRecord>(pod.uid())));

    // One that fails as soon as it is made.
    world.edit(NAME, |spec| spec.replicas = Some(1));
    converge(&mut world);
    let mut made = 0;
    for _ in 0..20 {
        settle(&mut world);
        for pod in world.live() {
            made += 1;
            world.report(pod.uid(), "Failed", false);
        }
        world.advance(1);
    }
    assert!((2..=6).contains(&made), "made {made} pods in 20 seconds");
}

#[test]
fn what_was_lost_comes_back() {
    let mut world = world(3);
    converge(&mut world);
    let pod = world.live()[1].clone();
    world.remove(&*pod);
    settle(&mut world);
    assert_eq!(world.live().len(), 3);
}

#[test]
fn a_deleted_deployment_is_left_alone() {
    let mut world = world(3);
    converge(&mut world);
    let deployment = world.deployment(NAME);
    let mut stamp = world.stamp();
    world.edit(NAME, |spec| spec.replicas = Some(9));
    let late = plan(&world.state, &key(), &mut stamp);
    world.remove(&*deployment);
    assert_eq!(step(&mut world), Plan::default());
    // A plan that was made before is refused after.
    let outcome = world.propose(late.draft);
    assert!(outcome.refusal.is_some());
    assert_eq!(world.live().len(), 0);
}

#[test]
fn a_deployment_of_the_same_name_has_its_own_pods() {
    let mut world = world(2);
    let node = world.node("a", 8000, 8000, 100);
    settle(&mut world);
    for pod in world.live() {
        world.bind(&pod, &node);
    }
    let old = world.deployment(NAME);
    world.remove(&*old);
    assert_eq!(world.pods().len(), 2, "they still end");
    let uid = world.uid();
    world.put(nginx(&uid, 2));
    settle(&mut world);
    assert_eq!(world.live().len(), 2);
    assert!(
        world
            .live()
            .iter()
            .all(|pod| pod.meta().owner_references[0].uid == uid)
    );
    obey(&mut world);
    assert_eq!(world.pods().len(), 2);
}
