//! Lost nodes and their pods.

use super::*;
use crate::controllers::{pods as asked, testing::nginx_service};
use barge_proto::v1::{PodRecord, PodSpec, Taint, Toleration};
use barge_state::PackedPod;

/// Two nodes with two pods each, in a cluster whose managers all know of lost pods.
fn world() -> World {
    let mut world = super::world();
    world.raise(LOSS);
    world
}

/// Gives a node up, as the brakes let it.
fn lose_node(world: &mut World, name: &str) {
    let node = node(world, name);
    let mut stamp = world.stamp();
    let mut plan = Plan::default();
    lose(&node, &mut stamp, &mut plan);
    world.follow(plan);
}

fn taint(world: &mut World, name: &str, key: &str) {
    let mut node = Node::clone(&node(world, name));
    node.spec.as_mut().unwrap().taints.push(Taint {
        key: key.to_owned(),
        effect: taints::NO_EXECUTE.to_owned(),
        ..Taint::default()
    });
    world.put(Record::Node(node));
}

fn pods_on(world: &World, name: &str) -> Vec<Arc<PackedPod>> {
    let uid = node(world, name).uid().to_owned();
    world.state.pods_on(&uid).cloned().collect()
}

/// Looks until nothing is left to do.
fn silent(world: &mut World, name: &str) {
    for _ in 0..3 {
        look(world, name, Heard::Silent);
    }
}

/// One node with the only pod of a Deployment, which tolerates its loss for that long.
fn tolerant(seconds: Option<i64>) -> World {
    let mut world = World::default();
    world.raise(LOSS);
    let a = world.node("a", 8000, 8000, 100);
    let uid = world.uid();
    world.put(nginx(&uid, 1));
    world.edit("nginx-deployment", |spec| {
        let pod: &mut PodSpec = spec.template.as_mut().unwrap().spec.as_mut().unwrap();
        pod.tolerations = vec![Toleration {
            key: "node.kubernetes.io/unreachable".to_owned(),
            operator: "Exists".to_owned(),
            effect: "NoExecute".to_owned(),
            toleration_seconds: seconds,
            ..Toleration::default()
        }];
    });
    roll(&mut world);
    let pod = world.live().remove(0);
    world.bind(&pod, &a);
    world.report(pod.uid(), "Running", true);
    world
}

#[test]
fn silence_alone_takes_nothing_down() {
    let mut world = world();
    silent(&mut world, "a");
    assert_eq!(ready(&world, "a").status, "Unknown");
    assert_eq!(world.live().len(), 4);
    assert!(taints::of(&node(&world, "a")).is_empty());
}

#[test]
fn pods_of_a_lost_node_are_replaced_and_their_records_stay_until_then() {
    let mut world = world();
    silent(&mut world, "a");
    lose_node(&mut world, "a");
    silent(&mut world, "a");
    let lost = pods_on(&world, "a");
    assert!(lost.len() == 2 && lost.iter().all(|pod| pod.is_lost()));
    let events = world.events("NodeLost");
    assert_eq!(events.len(), 3, "one for each pod, and one for the node");
    roll(&mut world);
    let mut fresh = world.live();
    fresh.retain(|pod| !pod.is_bound());
    assert_eq!(fresh.len(), 2, "replaced at once, beyond the surge");
    assert_eq!(pods_on(&world, "a").len(), 2);
    let b = node(&world, "b");
    for left in [1, 0] {
        world.bind(&fresh[left], &b);
        world.report(fresh[left].uid(), "Running", true);
        roll(&mut world);
        assert_eq!(pods_on(&world, "a").len(), left, "one for each ready one");
    }
    assert_eq!(world.live().len(), 4);
}

#[test]
fn a_node_that_is_back_in_time_keeps_its_pods_and_the_surplus_goes() {
    let mut world = world();
    let old = pods_on(&world, "a");
    silent(&mut world, "a");
    lose_node(&mut world, "a");
    silent(&mut world, "a");
    roll(&mut world);
    assert_eq!(world.live().len(), 4);
    // Signs that waited somewhere bring nothing back.
    let lost = node(&world, "a");
    let mut stamp = world.stamp();
    let stale = plan(&world.state, &lost, Heard::Lately, false, &mut stamp);
    assert_eq!(stale.draft.changes(), []);
    look(&mut world, "a", Heard::Lately);
    assert!(taints::of(&node(&world, "a")).is_empty());
    assert_eq!(ready(&world, "a").status, "True");
    assert_eq!(world.events("NodeBack").len(), 1);
    look(&mut world, "a", Heard::Lately);
    assert_eq!(world.state.lost_on(lost.uid()).count(), 0);
    roll(&mut world);
    let live = world.live();
    assert_eq!(live.len(), 4);
    for pod in old {
        let stays = live.iter().any(|other| other.uid() == pod.uid());
        assert!(stays, "the old ones stay");
    }
}

#[test]
fn a_pod_that_is_ending_on_a_lost_node_goes_at_once() {
    let mut world = world();
    let ending = pods_on(&world, "a").remove(0);
    let mut plan = Plan::default();
    plan.draft.terminate(ending.uid(), "");
    world.follow(plan);
    silent(&mut world, "a");
    assert_eq!(pods_on(&world, "a").len(), 2, "the node may be heard again");
    lose_node(&mut world, "a");
    silent(&mut world, "a");
    assert_eq!(pods_on(&world, "a").len(), 1);
    // Also when its Deployment goes later.
    let deployment = world.deployment("nginx-deployment");
    world.remove(&*deployment);
    silent(&mut world, "a");
    assert_eq!(pods_on(&world, "a").len(), 0);
}

#[test]
fn a_pod_stays_for_as_long_as_it_tolerates_the_loss() {
    let mut world = tolerant(Some(30));
    silent(&mut world, "a");
    lose_node(&mut world, "a");
    let plan = look(&mut world, "a", Heard::Silent);
    assert_eq!(plan.again, Some(Duration::from_secs(30)));
    world.advance(29);
    silent(&mut world, "a");
    assert!(!pods_on(&world, "a")[0].is_lost());
    world.advance(1);
    silent(&mut world, "a");
    assert!(pods_on(&world, "a")[0].is_lost());

    let mut world = tolerant(None);
    silent(&mut world, "a");
    lose_node(&mut world, "a");
    world.advance(100_000);
    silent(&mut world, "a");
    assert!(!pods_on(&world, "a")[0].is_lost(), "for ever");
}

#[test]
fn pods_of_a_machine_that_is_off_go_whatever_they_tolerate() {
    let mut world = tolerant(None);
    silent(&mut world, "a");
    taint(&mut world, "a", taints::OUT_OF_SERVICE);
    silent(&mut world, "a");
    assert_eq!(world.live().len(), 1, "not before the leader agrees");
    lose_node(&mut world, "a");
    silent(&mut world, "a");
    assert_eq!(pods_on(&world, "a").len(), 0);
    look(&mut world, "a", Heard::Lately);
    assert!(taints::of(&node(&world, "a")).is_empty(), "both taints end");
}

#[test]
fn a_taint_of_a_person_ends_pods_that_do_not_tolerate_it() {
    let mut world = world();
    taint(&mut world, "a", "gpu");
    look(&mut world, "a", Heard::Lately);
    look(&mut world, "a", Heard::Lately);
    let ending = pods_on(&world, "a");
    assert!(ending.len() == 2 && ending.iter().all(|pod| asked::is_terminating(pod)));
    assert!(taints::has(&node(&world, "a"), "gpu"), "it is theirs");
    assert_eq!(look(&mut world, "a", Heard::Lately).draft.changes(), []);
}

#[test]
fn lost_pods_leave_the_endpoints_at_once() {
    let mut world = world();
    let uid = world.uid();
    world.put(Record::Service(nginx_service(&uid)));
    let key = Name {
        namespace: "default".into(),
        name: "nginx-service".into(),
    };
    let addresses = |world: &mut World| {
        let mut stamp = world.stamp();
        let plan = crate::controllers::endpoints::plan(&world.state, &key, &mut stamp);
        world.follow(plan);
        let endpoints = world
            .state
            .get::<barge_proto::v1::Endpoints>("default", "nginx-service");
        endpoints.unwrap().subsets[0].addresses.len()
    };
    assert_eq!(addresses(&mut world), 4);
    silent(&mut world, "a");
    assert_eq!(addresses(&mut world), 4);
    lose_node(&mut world, "a");
    silent(&mut world, "a");
    assert_eq!(addresses(&mut world), 2);
}

#[test]
fn a_node_with_many_pods_loses_them_in_slices() {
    let mut world = World::default();
    world.raise(LOSS);
    let big = world.node("a", 1_000_000, 1_000_000, 10_000);
    let uid = world.uid();
    world.put(nginx(&uid, 1100));
    roll(&mut world);
    for pod in world.live() {
        world.bind(&pod, &big);
    }
    look(&mut world, "a", Heard::Silent);
    lose_node(&mut world, "a");
    for left in [600, 100, 0] {
        look(&mut world, "a", Heard::Silent);
        assert_eq!(world.live().len(), left);
    }
    assert_eq!(look(&mut world, "a", Heard::Silent).draft.changes(), []);
    look(&mut world, "a", Heard::Lately);
    for back in [500, 1000, 1100] {
        look(&mut world, "a", Heard::Lately);
        assert_eq!(world.live().len(), back);
    }
}

#[test]
fn a_pod_without_a_controller_stays_until_it_is_deleted() {
    let mut world = world();
    let template = world.live()[0].template_uid().to_owned();
    let uid = world.uid();
    world.put(Record::Pod(PodRecord {
        metadata: Some(ObjectMeta {
            name: "alone".into(),
            namespace: "default".into(),
            uid: uid.clone(),
            ..ObjectMeta::default()
        }),
        template_uid: template,
        ..PodRecord::default()
    }));
    let alone = world.by_uid::<PodRecord>(&uid);
    let a = node(&world, "a");
    world.bind(&alone, &a);
    silent(&mut world, "a");
    lose_node(&mut world, "a");
    silent(&mut world, "a");
    roll(&mut world);
    let alone = world.by_uid::<PodRecord>(&uid);
    let shown = world.state.pod(&alone).status.unwrap();
    assert_eq!(shown.reason, "NodeLost");
    assert!(shown.message.contains("Node a,"), "{}", shown.message);
    let condition = conditions::find(&shown.conditions, "Ready").unwrap();
    let condition = (condition.status.as_str(), condition.reason.as_str());
    assert_eq!(condition, ("False", "NodeLost"));
    let mut plan = Plan::default();
    plan.draft.terminate(&uid, "");
    world.follow(plan);
    silent(&mut world, "a");
    assert!(world.state.by_uid::<PodRecord>(&uid).is_none());
}
