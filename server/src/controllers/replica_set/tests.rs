#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

//! The plan of a ReplicaSet, step by step.

mod claims;

use super::*;
use crate::controllers::{
    pods,
    testing::{World, web_set},
};
use barge_proto::v1::{MarkPod, change::Change, record::Record};
use std::collections::BTreeSet;

fn key() -> Name {
    Name {
        namespace: "default".into(),
        name: "web".into(),
    }
}

/// A world with a ReplicaSet in it.
fn world(replicas: i32) -> World {
    let mut world = World::default();
    let uid = world.uid();
    world.put(web_set(&uid, replicas));
    world
}

fn set(world: &World) -> Arc<ReplicaSet> {
    let found = world.state.get::<ReplicaSet>("default", "web");
    found.unwrap().clone()
}

fn edit(world: &mut World, edit: impl FnOnce(&mut ReplicaSetSpec)) {
    let mut set = ReplicaSet::clone(&set(world));
    edit(set.spec.as_mut().unwrap());
    world.put(Record::ReplicaSet(set));
}

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

/// All live pods run and are ready, ended ones are gone.
fn obey(world: &mut World) {
    for pod in world.pods() {
        if pods::is_live(&pod) {
            world.report(pod.uid(), "Running", true);
        } else if pods::is_terminating(&pod) {
            world.remove(&*pod);
        }
    }
    settle(world);
}

/// Replicas, fully labeled, ready, available, and the generation of that.
fn status(world: &World) -> [i64; 5] {
    let status = set(world).status.clone().unwrap();
    [
        status.replicas.into(),
        status.fully_labeled_replicas.into(),
        status.ready_replicas.into(),
        status.available_replicas.into(),
        status.observed_generation,
    ]
}

fn image(world: &World, pod: &PackedPod) -> String {
    let pod = world.state.pod(pod);
    pod.spec.unwrap().containers[0].image.clone()
}

#[test]
fn it_makes_pods_that_belong_to_it() {
    let mut world = world(3);
    settle(&mut world);
    let set = set(&world);
    let pods = world.live();
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        let [owner] = pod.owners() else {
            panic!("{:?}", pod.owners());
        };
        assert_eq!((&*owner.kind, &*owner.uid), ("ReplicaSet", set.uid()));
        assert_eq!(owner.controller, Some(true));
        assert!(pod.name().starts_with("web-"), "{}", pod.name());
        // The label tells the revisions of a Deployment apart; here there is nothing to be told apart.
        let labels = world.state.pod(pod).metadata.unwrap().labels;
        assert_eq!(labels, [("app".to_owned(), "nginx".to_owned())].into());
    }
    assert_eq!(status(&world), [3, 3, 0, 0, 1]);
    obey(&mut world);
    assert_eq!(status(&world), [3, 3, 3, 3, 1]);
    let [told] = &world.events("SuccessfulCreate")[..] else {
        panic!("{:?}", world.events("SuccessfulCreate"));
    };
    assert!(told.starts_with("Created 3 pods: web-"), "{told}");
}

#[test]
fn a_pod_that_ends_is_replaced() {
    let mut world = world(2);
    settle(&mut world);
    obey(&mut world);
    let pod = world.live()[0].clone();
    let mut draft = crate::store::transaction::Draft::new();
    draft.terminate(pod.uid(), "");
    assert_eq!(world.propose(draft).refusal, None);
    settle(&mut world);
    assert_eq!(world.live().len(), 2);
    assert!(world.live().iter().all(|it| it.uid() != pod.uid()));

    // One that has finished keeps its place for a moment.
    let finished = world.live()[0].clone();
    world.report(finished.uid(), "Failed", false);
    let held = step(&mut world);
    assert!(held.again.is_some());
    assert_eq!(world.live().len(), 1);
    world.advance(5);
    settle(&mut world);
    assert_eq!(world.live().len(), 2);
}

#[test]
fn a_scale_ends_what_is_missed_least() {
    let mut world = world(3);
    settle(&mut world);
    obey(&mut world);
    let slow = world.live()[1].clone();
    world.report(slow.uid(), "Running", false);
    edit(&mut world, |spec| spec.replicas = Some(2));
    settle(&mut world);
    assert_eq!(world.live().len(), 2);
    assert!(world.live().iter().all(|pod| pod.uid() != slow.uid()));
    let told = format!("Deleted pod: {}", slow.name());
    assert_eq!(world.events("SuccessfulDelete"), [told]);
    edit(&mut world, |spec| spec.replicas = Some(0));
    settle(&mut world);
    obey(&mut world);
    assert_eq!((world.pods().len(), status(&world)[0]), (0, 0));
}

#[test]
fn another_template_is_for_new_pods_only() {
    let mut world = world(2);
    settle(&mut world);
    obey(&mut world);
    edit(&mut world, |spec| {
        let template = spec.template.as_mut().unwrap();
        template.spec.as_mut().unwrap().containers[0].image = "nginx:2".into();
        let labels = &mut template.metadata.as_mut().unwrap().labels;
        labels.insert("tier".into(), "web".into());
    });
    settle(&mut world);
    let kept = world.live();
    assert!(kept.iter().all(|pod| image(&world, pod) == "nginx:latest"));
    // Both match the selector, and neither has the new label.
    assert_eq!(status(&world), [2, 0, 2, 2, 2]);

    world.remove(&*kept[0]);
    settle(&mut world);
    let images: BTreeSet<_> = world.live().iter().map(|pod| image(&world, pod)).collect();
    let both = ["nginx:2", "nginx:latest"].map(str::to_owned);
    assert_eq!(images, both.into());
    assert_eq!(status(&world)[..2], [2, 1]);

    // The old template goes with its last pod.
    assert_eq!(world.state.count::<Revision>(), 2);
    world.remove(&*kept[1]);
    settle(&mut world);
    assert_eq!(world.state.count::<Revision>(), 1);
}

#[test]
fn many_pods_are_made_in_batches() {
    let mut world = world(1_200);
    let first = step(&mut world);
    assert_eq!(first.again, Some(Duration::ZERO));
    assert!(world.live().len() <= MAX_BATCH);
    settle(&mut world);
    assert_eq!(world.live().len(), 1_200);
}

#[test]
fn a_second_leader_makes_no_second_pods() {
    let mut world = world(2);
    world.raise(barge_state::LEVEL);
    let mut stamp = world.stamp();
    let first = plan(&world.state, &key(), &mut stamp);
    let mut stamp = world.stamp();
    let second = plan(&world.state, &key(), &mut stamp);
    world.follow(first);
    assert!(world.propose(second.draft).refusal.is_some());
    assert_eq!(world.live().len(), 2);
}

#[test]
fn a_lost_pod_is_replaced_and_kept_until_then() {
    let mut world = world(2);
    settle(&mut world);
    let node = world.node("a", 8000, 8000, 100);
    for pod in world.live() {
        world.bind(&pod, &node);
        world.report(pod.uid(), "Running", true);
    }
    settle(&mut world);
    let lost = world.live()[0].clone();
    world.apply([Change::MarkPod(MarkPod {
        uid: lost.uid().to_owned(),
        lost: true,
        node_uid: lost.node_uid().to_owned(),
    })]);
    settle(&mut world);
    assert_eq!((world.pods().len(), world.live().len()), (3, 2));
    for pod in world.live() {
        world.report(pod.uid(), "Running", true);
    }
    settle(&mut world);
    assert_eq!((world.pods().len(), world.live().len()), (2, 2));
}

#[test]
fn its_pods_and_templates_go_with_it() {
    let mut world = world(2);
    settle(&mut world);
    world.remove(&*set(&world));
    settle(&mut world);
    assert_eq!(world.pods().len(), 0, "none was bound");
    assert_eq!(world.state.count::<Revision>(), 0);
}
