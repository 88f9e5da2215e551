#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{plan, *};
use crate::controllers::{
    deployment, replica_set,
    testing::{World, nginx, web_set},
};
use barge_proto::v1::{LabelSelector, ObjectMeta, record::Record};

fn key(name: &str) -> Name {
    Name {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn int(number: i32) -> Option<IntOrString> {
    Some(IntOrString::int(number))
}

fn percent(text: &str) -> Option<IntOrString> {
    Some(IntOrString::string(text))
}

/// A Deployment with that many pods, of which so many are ready, and the budget of all of them.
fn world(replicas: i32, ready: usize, spec: PodDisruptionBudgetSpec) -> World {
    let mut world = World::default();
    world.raise(8);
    let uid = world.uid();
    world.put(nginx(&uid, replicas));
    let node = world.node("one", 8000, 8000, 100);
    for _ in 0..10 {
        let mut stamp = world.stamp();
        let plan = deployment::plan(&world.state, &key("nginx-deployment"), &mut stamp);
        world.follow(plan);
    }
    for pod in world.live() {
        world.bind(&pod, &node);
    }
    for pod in world.live().into_iter().take(ready) {
        world.report(pod.uid(), "Running", true);
    }
    let uid = world.uid();
    world.put(Record::PodDisruptionBudget(PodDisruptionBudget {
        metadata: Some(ObjectMeta {
            name: "budget".into(),
            namespace: "default".into(),
            uid,
            ..ObjectMeta::default()
        }),
        spec: Some(PodDisruptionBudgetSpec {
            selector: spec.selector.or(Some(LabelSelector::default())),
            ..spec
        }),
        ..PodDisruptionBudget::default()
    }));
    world
}

fn look(world: &mut World) -> PodDisruptionBudgetStatus {
    let mut stamp = world.stamp();
    let plan = plan(&world.state, &key("budget"), &mut stamp);
    world.follow(plan);
    let budget = world.state.get::<PodDisruptionBudget>("default", "budget");
    budget.unwrap().status.clone().unwrap()
}

/// Healthy, desired, expected, allowed.
fn counted(status: &PodDisruptionBudgetStatus) -> (i32, i32, i32, i32) {
    (
        status.current_healthy,
        status.desired_healthy,
        status.expected_pods,
        status.disruptions_allowed,
    )
}

fn least(share: Option<IntOrString>) -> PodDisruptionBudgetSpec {
    PodDisruptionBudgetSpec {
        min_available: share,
        ..PodDisruptionBudgetSpec::default()
    }
}

fn most(share: Option<IntOrString>) -> PodDisruptionBudgetSpec {
    PodDisruptionBudgetSpec {
        max_unavailable: share,
        ..PodDisruptionBudgetSpec::default()
    }
}

#[test]
fn numbers_are_as_in_kubernetes() {
    for (spec, ready, expected) in [
        (least(int(2)), 5, (5, 2, 5, 3)),
        (least(int(2)), 1, (1, 2, 5, 0)),
        (least(percent("50%")), 5, (5, 3, 5, 2)),
        (least(percent("100%")), 5, (5, 5, 5, 0)),
        (most(int(1)), 5, (5, 4, 5, 1)),
        (most(int(1)), 4, (4, 4, 5, 0)),
        (most(int(9)), 5, (5, 0, 5, 5)),
        (most(percent("30%")), 5, (5, 3, 5, 2)),
        (most(int(0)), 5, (5, 5, 5, 0)),
    ] {
        let mut world = world(5, ready, spec.clone());
        let status = look(&mut world);
        assert_eq!(counted(&status), expected, "{spec:?}, {ready} ready");
        let allowed = if expected.3 > 0 { "True" } else { "False" };
        assert_eq!(status.conditions[0].status, allowed);
        // Nothing changed, and nothing is written.
        let mut stamp = world.stamp();
        assert!(
            plan(&world.state, &key("budget"), &mut stamp)
                .draft
                .is_empty()
        );
    }
}

#[test]
fn a_budget_counts_what_it_selects() {
    let other = LabelSelector {
        match_labels: [("app".to_owned(), "other".to_owned())].into(),
        ..LabelSelector::default()
    };
    let spec = PodDisruptionBudgetSpec {
        selector: Some(other),
        ..most(int(1))
    };
    assert_eq!(counted(&look(&mut world(3, 3, spec))), (0, 0, 0, 0));
}

#[test]
fn a_budget_counts_pods_by_their_own_labels_and_owners() {
    let nginx = LabelSelector {
        match_labels: [("app".to_owned(), "nginx".to_owned())].into(),
        ..LabelSelector::default()
    };
    let spec = PodDisruptionBudgetSpec {
        selector: Some(nginx),
        ..most(int(1))
    };
    let mut world = world(3, 3, spec);
    world.raise(barge_state::LEVEL);
    assert_eq!(counted(&look(&mut world)), (3, 2, 3, 1));
    let apart = world.live()[0].clone();
    world.changes.clear();
    world.label(&apart, &[("app", "debug")]);
    assert!(dirty(&world).contains(&key("budget")));
    // The Deployment still wants three.
    assert_eq!(counted(&look(&mut world)), (2, 2, 3, 0));
    for _ in 0..3 {
        let mut stamp = world.stamp();
        let plan = deployment::plan(&world.state, &key("nginx-deployment"), &mut stamp);
        world.follow(plan);
    }
    for pod in world.live() {
        world.report(pod.uid(), "Running", true);
    }
    assert_eq!(world.live().len(), 4);
    assert_eq!(counted(&look(&mut world)), (3, 2, 3, 1));
    // Nobody wants this one, so it counts for itself.
    world.label(&apart, &[("app", "nginx")]);
    assert_eq!(counted(&look(&mut world)), (4, 3, 4, 1));
}

fn dirty(world: &World) -> BTreeSet<Name> {
    let mut keys = BTreeSet::new();
    for change in &world.changes {
        DisruptionBudgets.dirtied(&world.state, change, &mut |key| {
            keys.insert(key);
        });
    }
    keys
}

#[test]
fn changes_that_matter_are_looked_at() {
    let mut world = world(3, 2, most(int(1)));
    assert_eq!(counted(&look(&mut world)), (2, 2, 3, 0));
    world.changes.clear();
    let unready = world
        .live()
        .into_iter()
        .find(|pod| !pods::is_ready(pod))
        .unwrap();
    world.report(unready.uid(), "Running", true);
    assert!(dirty(&world).contains(&key("budget")));
    assert_eq!(counted(&look(&mut world)), (3, 2, 3, 1));
    world.changes.clear();
    world.edit("nginx-deployment", |spec| spec.replicas = Some(9));
    assert!(dirty(&world).contains(&key("budget")));
    assert_eq!(counted(&look(&mut world)), (3, 8, 9, 0));
}

#[test]
fn pods_of_a_replica_set_count_as_its_owner_wants_them() {
    let mut world = world(
        2,
        2,
        PodDisruptionBudgetSpec {
            max_unavailable: percent("50%"),
            ..PodDisruptionBudgetSpec::default()
        },
    );
    let uid = world.uid();
    world.put(web_set(&uid, 4));
    let changed = world.changes.last().unwrap().clone();
    let mut dirty = Vec::new();
    DisruptionBudgets.dirtied(&world.state, &changed, &mut |name| dirty.push(name));
    assert_eq!(dirty, [key("budget")]);
    let mut stamp = world.stamp();
    let plan = replica_set::plan(&world.state, &key("web"), &mut stamp);
    world.follow(plan);
    let status = look(&mut world);
    let counted = (
        status.expected_pods,
        status.desired_healthy,
        status.current_healthy,
    );
    assert_eq!(counted, (6, 3, 2));
}
