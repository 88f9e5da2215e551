//! Rollouts: they keep their limits under any sequence of events, and they end.

use super::*;
use barge_proto::v1::{
    DeploymentStrategy, IntOrString, RollingUpdateDeployment, int_or_string::Value,
};
use proptest::prelude::*;

fn strategy(spec: &mut DeploymentSpec, surge: i32, unavailable: i32) {
    let limit = |number| {
        Some(IntOrString {
            value: Some(Value::Int(number)),
        })
    };
    spec.strategy = Some(DeploymentStrategy {
        r#type: "RollingUpdate".into(),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: limit(surge),
            max_unavailable: limit(unavailable),
        }),
    });
}

fn available(world: &World) -> usize {
    let spec = world.deployment(NAME).spec.clone().unwrap();
    let is_available = |pod: &Arc<PackedPod>| {
        pods::available_in(pod, spec.min_ready_seconds, &world.now)
            .is_some_and(|wait| wait.is_zero())
    };
    world.live().iter().filter(|pod| is_available(pod)).count()
}

#[test]
fn a_broken_image_stops_at_the_limit_and_the_old_pods_serve() {
    let mut world = world(4);
    converge(&mut world);
    world.edit(NAME, |spec| set_image(spec, "nginx:missing"));
    for _ in 0..20 {
        settle(&mut world);
        // Its pods run nowhere; those that end do so.
        for pod in world.pods() {
            if pods::is_terminating(&pod) {
                world.remove(&*pod);
            }
        }
    }
    assert_eq!(available(&world), 3, "maxUnavailable is 1");
    let images = images(&world);
    assert_eq!(
        images
            .iter()
            .filter(|image| *image == "nginx:latest")
            .count(),
        3
    );
    assert_eq!(images.len(), 5, "maxSurge is 1");
}

#[test]
fn old_pods_lost_in_a_broken_rollout_come_back_as_old_ones() {
    let mut world = world(4);
    converge(&mut world);
    world.edit(NAME, |spec| set_image(spec, "nginx:missing"));
    settle(&mut world);
    settle(&mut world);
    let serving = world
        .live()
        .into_iter()
        .find(|pod| pods::is_ready(pod))
        .unwrap();
    world.remove(&*serving);
    settle(&mut world);
    let images = images(&world);
    assert_eq!(
        images
            .iter()
            .filter(|image| *image == "nginx:latest")
            .count(),
        3
    );
}

fn count(world: &World, image: &str) -> usize {
    images(world).iter().filter(|known| *known == image).count()
}

#[test]
fn a_paused_rollout_stays_where_it_is() {
    let mut world = world(8);
    world.edit(NAME, |spec| strategy(spec, 2, 0));
    converge(&mut world);
    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    settle(&mut world);
    world.edit(NAME, |spec| spec.paused = true);
    for _ in 0..3 {
        settle(&mut world);
        obey(&mut world);
    }
    assert_eq!(
        (count(&world, "nginx:latest"), count(&world, "nginx:2")),
        (8, 2)
    );
    // A template that is even newer waits, too.
    world.edit(NAME, |spec| set_image(spec, "nginx:3"));
    settle(&mut world);
    assert_eq!((images(&world).len(), count(&world, "nginx:3")), (10, 0));
    assert_eq!(
        world
            .deployment(NAME)
            .status
            .clone()
            .unwrap()
            .updated_replicas,
        0
    );
    // What is lost comes back as what most of them are, as far as there are too few.
    for _ in 0..4 {
        let old = world.live().into_iter().find(|pod| {
            let template = world.state.template(pod).unwrap().template.clone().unwrap();
            template.spec.unwrap().containers[0].image == "nginx:latest"
        });
        world.remove(&*old.unwrap());
    }
    settle(&mut world);
    assert_eq!((images(&world).len(), count(&world, "nginx:3")), (8, 0));
    assert!(count(&world, "nginx:latest") >= 5, "{:?}", images(&world));
    // A scale changes each in proportion.
    obey(&mut world);
    world.edit(NAME, |spec| spec.replicas = Some(16));
    settle(&mut world);
    assert_eq!((images(&world).len(), count(&world, "nginx:3")), (16, 0));
    assert!(count(&world, "nginx:latest") >= 10, "{:?}", images(&world));
    obey(&mut world);
    world.edit(NAME, |spec| spec.replicas = Some(2));
    settle(&mut world);
    assert_eq!(images(&world).len(), 4, "replicas and the surge");
    assert!(count(&world, "nginx:latest") >= 2, "{:?}", images(&world));
    world.edit(NAME, |spec| spec.paused = false);
    converge(&mut world);
    assert_eq!(images(&world), ["nginx:3"; 2]);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = world(3);
    let node = world.node("a", 8000, 8000, 100);
    world.edit(NAME, |spec| {
        spec.strategy = Some(DeploymentStrategy {
            r#type: "Recreate".into(),
            rolling_update: None,
        });
    });
    settle(&mut world);
    for pod in world.live() {
        world.bind(&pod, &node);
    }
    converge(&mut world);
    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    settle(&mut world);
    assert_eq!((world.live().len(), world.pods().len()), (0, 3));
    let pods = world.pods();
    world.remove(&*pods[0]);
    world.remove(&*pods[1]);
    settle(&mut world);
    assert_eq!(world.live().len(), 0, "one still ends");
    world.remove(&*pods[2]);
    settle(&mut world);
    assert_eq!(images(&world), ["nginx:2"; 3]);
}

#[test]
fn going_back_uses_the_old_revision_as_the_newest() {
    let mut world = world(2);
    converge(&mut world);
    let first = revisions(&world);
    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    converge(&mut world);
    assert_eq!(revisions(&world).len(), 2);
    world.edit(NAME, |spec| set_image(spec, "nginx:latest"));
    converge(&mut world);
    let now = revisions(&world);
    assert_eq!(now.len(), 2);
    assert_eq!(now[1], (3, first[0].1.clone()));
    assert_eq!(images(&world), ["nginx:latest"; 2]);
}

#[test]
fn history_is_kept_up_to_its_limit() {
    let mut world = world(1);
    world.edit(NAME, |spec| spec.revision_history_limit = Some(2));
    for version in 0..6 {
        world.edit(NAME, |spec| set_image(spec, &format!("nginx:{version}")));
        converge(&mut world);
    }
    let numbers: Vec<_> = revisions(&world)
        .iter()
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(numbers, [4, 5, 6], "two old ones and the present one");
}

#[test]
fn a_scale_down_in_a_rollout_keeps_what_serves() {
    let mut world = world(10);
    converge(&mut world);
    world.edit(NAME, |spec| set_image(spec, "nginx:missing"));
    settle(&mut world);
    world.edit(NAME, |spec| spec.replicas = Some(4));
    settle(&mut world);
    assert!(available(&world) >= 3);
    assert!(world.live().len() <= 5);
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    Plan,
    Ready(prop::sample::Index),
    Unready(prop::sample::Index),
    Fail(prop::sample::Index),
    Gone(prop::sample::Index),
    Lost(prop::sample::Index),
    Advance(i64),
    Template(u8),
    Scale(i32),
    Limits(i32, i32),
    Pause(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    prop::collection::vec(
        prop_oneof![
            12 => Just(Step::Plan),
            8 => index().prop_map(Step::Ready),
            2 => index().prop_map(Step::Unready),
            1 => index().prop_map(Step::Fail),
            4 => index().prop_map(Step::Gone),
            2 => index().prop_map(Step::Lost),
            2 => (1..20_i64).prop_map(Step::Advance),
            1 => (0..4_u8).prop_map(Step::Template),
            1 => (0..12_i32).prop_map(Step::Scale),
            1 => (0..4_i32, 0..4_i32).prop_map(|(surge, unavailable)| Step::Limits(surge, unavailable)),
            1 => any::<bool>().prop_map(Step::Pause),
        ],
        1..80,
    )
}

/// Does one step; a plan must keep within the limits whatever went before.
fn perform(world: &mut World, step_: &Step) {
    let live = world.live();
    let pick = |index: &prop::sample::Index| (!live.is_empty()).then(|| index.get(&live).clone());
    match step_ {
        Step::Plan => {
            let spec = world.deployment(NAME).spec.clone().unwrap();
            let budget = Budget::of(&spec);
            let (total, serving) = (live.len(), available(world));
            step(world);
            let (new_total, new_serving) = (world.live().len(), available(world));
            assert!(
                new_total <= budget.max_total().max(total),
                "{total} pods became {new_total}, with {budget:?}"
            );
            assert!(
                new_serving >= budget.min_available().min(serving),
                "{serving} available pods became {new_serving}, with {budget:?}"
            );
        }
        Step::Ready(index) => {
            if let Some(pod) = pick(index) {
                world.report(pod.uid(), "Running", true);
            }
        }
        Step::Unready(index) => {
            if let Some(pod) = pick(index) {
                world.report(pod.uid(), "Running", false);
            }
        }
        Step::Fail(index) => {
            if let Some(pod) = pick(index) {
                world.report(pod.uid(), "Failed", false);
            }
        }
        Step::Gone(index) => {
            let mut ending = world.pods();
            ending.retain(|pod| pods::is_terminating(pod));
            if !ending.is_empty() {
                world.remove(&**index.get(&ending));
            }
        }
        Step::Lost(index) => {
            if let Some(pod) = pick(index) {
                world.remove(&*pod);
            }
        }
        Step::Advance(seconds) => world.advance(*seconds),
        Step::Template(version) => {
            world.edit(NAME, |spec| set_image(spec, &format!("nginx:{version}")));
        }
        Step::Scale(replicas) => world.edit(NAME, |spec| spec.replicas = Some(*replicas)),
        Step::Limits(surge, unavailable) => {
            world.edit(NAME, |spec| strategy(spec, *surge, *unavailable));
        }
        Step::Pause(paused) => world.edit(NAME, |spec| spec.paused = *paused),
    }
    // Each pod is bound as soon as it is there, so that it ends gracefully.
    let node = world
        .state
        .get::<barge_proto::v1::Node>("", "node")
        .unwrap()
        .clone();
    for pod in world.live() {
        if !pod.is_bound() {
            world.bind(&pod, &node);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn limits_hold_always_and_every_rollout_ends(
        replicas in 0..10_i32,
        min_ready in prop_oneof![Just(0), Just(5)],
        steps in steps(),
    ) {
        let mut world = world(replicas);
        world.raise(REPLICA_SETS);
        world.node("node", 1_000_000, 1_000_000, 10_000);
        world.edit(NAME, |spec| spec.min_ready_seconds = min_ready);
        for step in &steps {
            perform(&mut world, step);
        }
        // From wherever that led: agents that work bring it to its end.
        world.edit(NAME, |spec| spec.paused = false);
        for _ in 0..300 {
            perform(&mut world, &Step::Plan);
            obey(&mut world);
            world.advance(1);
        }
        let mut stamp = world.stamp();
        let last = plan(&world.state, &key(), &mut stamp);
        prop_assert_eq!(last.draft.changes(), vec![]);
        let deployment = world.deployment(NAME);
        let spec = deployment.spec.as_ref().unwrap();
        let image = &spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image;
        let wanted = usize::try_from(spec.replicas.unwrap()).unwrap();
        prop_assert_eq!(images(&world), vec![image.clone(); wanted]);
        prop_assert_eq!(available(&world), wanted);
        let progressing = crate::controllers::conditions::find(
            &deployment.status.as_ref().unwrap().conditions,
            "Progressing",
        );
        prop_assert_eq!(&progressing.unwrap().reason, "NewReplicaSetAvailable");
        // What the ReplicaSets show is what there is.
        let mut shown = super::counts::shown(&world);
        prop_assert_eq!(shown.pop(), Some([spec.replicas.unwrap(); 4]));
        prop_assert!(shown.iter().all(|counts| *counts == [0; 4]), "{shown:?}");
    }
}
