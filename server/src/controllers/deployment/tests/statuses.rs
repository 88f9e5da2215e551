//! Conditions and counts.

use super::*;
use crate::controllers::conditions;
use barge_proto::v1::{Condition, DeploymentStatus};

fn status(world: &World) -> DeploymentStatus {
    world.deployment(NAME).status.clone().unwrap()
}

fn condition(world: &World, kind: &str) -> Condition {
    conditions::find(&status(world).conditions, kind)
        .unwrap()
        .clone()
}

fn progressing(world: &World) -> (String, String) {
    let condition = condition(world, "Progressing");
    (condition.status, condition.reason)
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_rollout_goes_through_kubernetes_reasons() {
    let mut world = world(3);
    step(&mut world);
    assert_eq!(progressing(&world), is("True", "NewReplicaSetCreated"));
    assert_eq!(
        condition(&world, "Available").reason,
        "MinimumReplicasUnavailable"
    );
    settle(&mut world);
    assert_eq!(progressing(&world), is("True", "ReplicaSetUpdated"));
    converge(&mut world);
    assert_eq!(progressing(&world), is("True", "NewReplicaSetAvailable"));
    assert_eq!(
        condition(&world, "Available").reason,
        "MinimumReplicasAvailable"
    );
    let status = status(&world);
    assert_eq!(
        status.observed_generation,
        world.deployment(NAME).meta().generation
    );
    let counts = (
        status.replicas,
        status.updated_replicas,
        status.ready_replicas,
        status.available_replicas,
        status.unavailable_replicas,
    );
    assert_eq!(counts, (3, 3, 3, 3, 0));
}

#[test]
fn a_status_that_is_right_is_not_written_again() {
    let mut world = world(3);
    converge(&mut world);
    world.advance(100);
    assert_eq!(step(&mut world), Plan::default());
}

#[test]
fn a_rollout_that_stands_still_fails_at_its_deadline() {
    let mut world = world(3);
    converge(&mut world);
    world.edit(NAME, |spec| {
        set_image(spec, "nginx:missing");
        spec.progress_deadline_seconds = Some(60);
    });
    settle(&mut world);
    let wait = step(&mut world).again.unwrap();
    assert_eq!(wait, Duration::from_secs(60));
    world.advance(59);
    settle(&mut world);
    assert_eq!(progressing(&world), is("True", "ReplicaSetUpdated"));
    world.advance(2);
    settle(&mut world);
    assert_eq!(progressing(&world), is("False", "ProgressDeadlineExceeded"));
    assert_eq!(condition(&world, "Available").status, "True");
    // It stays so, until something moves.
    world.advance(1000);
    assert_eq!(step(&mut world), Plan::default());
    world.edit(NAME, |spec| set_image(spec, "nginx:fixed"));
    converge(&mut world);
    assert_eq!(progressing(&world), is("True", "NewReplicaSetAvailable"));
}

#[test]
fn progress_moves_the_deadline() {
    let mut world = world(10);
    world.edit(NAME, |spec| spec.progress_deadline_seconds = Some(60));
    settle(&mut world);
    for pod in world.live() {
        world.advance(50);
        world.report(pod.uid(), "Running", true);
        settle(&mut world);
        assert_eq!(condition(&world, "Progressing").status, "True");
    }
    assert_eq!(progressing(&world), is("True", "NewReplicaSetAvailable"));
}

#[test]
fn losing_a_pod_later_is_not_a_failed_rollout() {
    let mut world = world(2);
    converge(&mut world);
    let pod = world.live()[0].clone();
    world.report(pod.uid(), "Running", false);
    settle(&mut world);
    world.advance(10_000);
    settle(&mut world);
    assert_eq!(progressing(&world), is("True", "NewReplicaSetAvailable"));
    assert_eq!(condition(&world, "Available").status, "False");
    assert_eq!(status(&world).unavailable_replicas, 1);
}

#[test]
fn a_pod_is_available_after_min_ready_seconds() {
    let mut world = world(1);
    world.edit(NAME, |spec| spec.min_ready_seconds = 30);
    settle(&mut world);
    obey(&mut world);
    settle(&mut world);
    assert_eq!(
        (
            status(&world).ready_replicas,
            status(&world).available_replicas
        ),
        (1, 0)
    );
    assert_eq!(step(&mut world).again, Some(Duration::from_secs(30)));
    world.advance(30);
    settle(&mut world);
    assert_eq!(status(&world).available_replicas, 1);
}

#[test]
fn a_pause_is_not_a_delay() {
    let mut world = world(2);
    converge(&mut world);
    world.edit(NAME, |spec| {
        spec.paused = true;
        spec.progress_deadline_seconds = Some(60);
        set_image(spec, "nginx:2");
    });
    settle(&mut world);
    assert_eq!(progressing(&world), is("Unknown", "DeploymentPaused"));
    world.advance(1000);
    settle(&mut world);
    assert_eq!(images(&world), ["nginx:latest", "nginx:latest"]);
    world.edit(NAME, |spec| spec.paused = false);
    settle(&mut world);
    assert_eq!(condition(&world, "Progressing").status, "True");
    converge(&mut world);
    assert_eq!(images(&world), ["nginx:2", "nginx:2"]);
}
