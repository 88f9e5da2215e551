//! Rolling when a ConfigMap changes.

use super::*;
use crate::controllers::deployment::configuration::{DIGEST, ROLL};
use barge_proto::level::PODS;
use barge_proto::v1::{ConfigMap, ConfigMapEnvSource, EnvFromSource, ObjectMeta, record};

fn config_map(world: &mut World, value: &str) {
    let old = world.state.get::<ConfigMap>("default", "web").cloned();
    let uid = old.map_or_else(|| world.uid(), |old| old.uid().to_owned());
    world.put(record::Record::ConfigMap(ConfigMap {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        metadata: Some(ObjectMeta {
            name: "web".into(),
            namespace: "default".into(),
            uid,
            ..ObjectMeta::default()
        }),
        data: [("key".to_owned(), value.to_owned())].into(),
        ..ConfigMap::default()
    }));
}

/// A Deployment whose pods use the ConfigMap.
fn using(asks: bool) -> World {
    let mut world = World::default();
    world.raise(PODS);
    let uid = world.uid();
    let record::Record::Deployment(mut deployment) = nginx(&uid, 2) else {
        panic!("no Deployment");
    };
    if asks {
        let metadata = deployment.metadata.as_mut().unwrap();
        metadata.annotations.insert(ROLL.into(), "true".into());
    }
    let template = deployment.spec.as_mut().unwrap().template.as_mut().unwrap();
    let from = ConfigMapEnvSource {
        name: "web".into(),
        ..ConfigMapEnvSource::default()
    };
    template.spec.as_mut().unwrap().containers[0].env_from = vec![EnvFromSource {
        config_map_ref: Some(from),
        ..EnvFromSource::default()
    }];
    world.put(record::Record::Deployment(deployment));
    world
}

fn templates(world: &World) -> Vec<String> {
    let mut uids: Vec<_> = world
        .pods()
        .iter()
        .filter(|pod| pods::is_live(pod))
        .map(|pod| pod.template_uid().to_owned())
        .collect();
    uids.sort();
    uids.dedup();
    uids
}

#[test]
fn a_change_of_configuration_rolls_a_deployment_that_asks_for_it() {
    let mut world = using(true);
    config_map(&mut world, "one");
    converge(&mut world);
    let first = templates(&world);
    assert_eq!(first.len(), 1);
    config_map(&mut world, "one");
    converge(&mut world);
    assert_eq!(templates(&world), first, "nothing changed");
    config_map(&mut world, "two");
    converge(&mut world);
    let second = templates(&world);
    assert_eq!(second.len(), 1);
    assert_ne!(second, first);
    // Back to what an earlier revision was.
    config_map(&mut world, "one");
    converge(&mut world);
    assert_eq!(templates(&world), first);
    let deployment = world.state.get::<Deployment>("default", NAME).unwrap();
    let template = deployment.spec.as_ref().unwrap().template.as_ref().unwrap();
    let own = template.metadata.clone().unwrap_or_default();
    assert!(
        !own.annotations.contains_key(DIGEST),
        "it is as it was written"
    );
}

#[test]
fn what_is_missing_rolls_nothing() {
    let mut world = using(true);
    config_map(&mut world, "one");
    converge(&mut world);
    let first = templates(&world);
    let map = world
        .state
        .get::<ConfigMap>("default", "web")
        .unwrap()
        .clone();
    world.remove(&*map);
    converge(&mut world);
    assert_eq!(templates(&world), first);
}

#[test]
fn a_deployment_that_does_not_ask_stays() {
    let mut world = using(false);
    config_map(&mut world, "one");
    converge(&mut world);
    let first = templates(&world);
    config_map(&mut world, "two");
    converge(&mut world);
    assert_eq!(templates(&world), first);
}
