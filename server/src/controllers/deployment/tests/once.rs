//! No pod is created twice, at any change of leader and with any answers lost.

use super::*;
use barge_state::ORDER;
use proptest::{prelude::*, sample::Index};

fn world(replicas: i32) -> World {
    let mut world = World::default();
    world.raise(ORDER);
    let uid = world.uid();
    world.put(nginx(&uid, replicas));
    world
}

fn planned(world: &mut World) -> Plan {
    let mut stamp = world.stamp();
    plan(&world.state, &key(), &mut stamp)
}

#[test]
fn of_two_plans_on_the_same_state_one_makes_pods() {
    let mut world = world(3);
    let first = planned(&mut world);
    world.follow(first);
    world.edit(NAME, |spec| spec.replicas = Some(5));
    // The answer to the first one is lost, and the next plan is made before it is applied.
    let (first, second) = (planned(&mut world), planned(&mut world));
    world.follow(first);
    let refusal = world.propose(second.draft).refusal.unwrap();
    assert_eq!(refusal.reason(), barge_proto::v1::RefusalReason::Conflict);
    assert_eq!(world.live().len(), 5);
}

#[test]
fn pods_that_end_meanwhile_do_not_hold_up_a_plan() {
    let mut world = world(3);
    let first = planned(&mut world);
    world.follow(first);
    world.edit(NAME, |spec| spec.replicas = Some(5));
    let late = planned(&mut world);
    for pod in world.pods() {
        world.remove(&*pod);
    }
    assert_eq!(world.propose(late.draft).refusal, None);
}

#[derive(Debug, Clone)]
enum Step {
    /// Somebody who leads makes a plan; it is applied later, or never.
    Plan,
    /// A plan that was made some time ago is applied.
    Apply(Index),
    /// A plan is lost.
    Lose(Index),
    Scale(i32),
    Image(u8),
    Report(Index, bool),
    Remove(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Plan),
        6 => any::<Index>().prop_map(Step::Apply),
        1 => any::<Index>().prop_map(Step::Lose),
        1 => (0..7).prop_map(Step::Scale),
        1 => (0..3_u8).prop_map(Step::Image),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(pod, ready)| Step::Report(pod, ready)),
        2 => any::<Index>().prop_map(Step::Remove),
    ]
}

proptest! {
    /// Plans are made on any state by several leaders, and applied in any order. There are never more live pods than replicas and surge,
    /// unless that was the user's doing.
    #[test]
    fn never_more_pods_than_the_surge(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = world(3);
        let mut plans: Vec<Plan> = Vec::new();
        for step in steps {
            let before = world.live().len();
            match step {
                Step::Plan => {
                    let plan = planned(&mut world);
                    plans.push(plan);
                }
                Step::Apply(which) if !plans.is_empty() => {
                    let plan = plans.swap_remove(which.index(plans.len()));
                    // A refusal changes nothing.
                    world.propose(plan.draft);
                    let deployment = world.deployment(NAME);
                    let budget = Budget::of(deployment.spec.as_ref().unwrap());
                    let live = world.live().len();
                    prop_assert!(live <= budget.max_total().max(before), "{live} of {budget:?}");
                }
                Step::Lose(which) if !plans.is_empty() => {
                    plans.swap_remove(which.index(plans.len()));
                }
                Step::Scale(replicas) => world.edit(NAME, |spec| spec.replicas = Some(replicas)),
                Step::Image(number) => {
                    world.edit(NAME, |spec| set_image(spec, &format!("nginx:{number}")));
                }
                Step::Report(which, ready) if !world.live().is_empty() => {
                    let live = world.live();
                    let uid = live[which.index(live.len())].uid().to_owned();
                    world.report(&uid, "Running", ready);
                }
                Step::Remove(which) if !world.pods().is_empty() => {
                    let pods = world.pods();
                    world.remove(&*pods[which.index(pods.len())]);
                }
                _ => {}
            }
            world.advance(1);
        }
    }
}

/// How long a plan looks at the state for a Deployment of 100,000 pods: `cargo test --release -p barge-server large_plan -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn a_large_plan() {
    let mut world = world(100_000);
    while world.pods().len() < 100_000 {
        let plan = planned(&mut world);
        world.follow(plan);
    }
    for pod in world.pods() {
        world.report(pod.uid(), "Running", true);
    }
    for what in ["all are ready", "a rollout"] {
        let began = std::time::Instant::now();
        let plan = planned(&mut world);
        println!(
            "{what}: {:?}, {} changes",
            began.elapsed(),
            plan.draft.changes().len()
        );
        world.follow(plan);
        world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    }
    for _ in 0..100 {
        let plan = planned(&mut world);
        world.follow(plan);
    }
    let began = std::time::Instant::now();
    let plan = planned(&mut world);
    println!(
        "within it: {:?}, {} changes",
        began.elapsed(),
        plan.draft.changes().len()
    );
}
