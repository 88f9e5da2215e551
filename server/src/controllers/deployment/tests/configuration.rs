//! Rolling when a ConfigMap changes.

use super::*;
use crate::controllers::deployment::configuration::DIGEST;
use barge_proto::configuration::ROLL;
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
    using_as(asks, None)
}

fn using_as(asks: bool, optional: Option<bool>) -> World {
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
        optional,
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
    config_map(&mut world, "one");
    converge(&mut world);
    assert_ne!(templates(&world), second);
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
    let found = |world: &World| {
        let status = world.deployment(NAME).status.clone().unwrap();
        let mut conditions = status.conditions.into_iter();
        conditions.find(|it| it.r#type == "ConfigurationFound")
    };
    let told = found(&world).unwrap();
    assert!(told.message.contains("ConfigMap web does not exist"));
    config_map(&mut world, "two");
    converge(&mut world);
    assert_eq!(found(&world), None);
    assert_ne!(templates(&world), first);
}

#[test]
fn what_may_be_missing_counts_as_absent() {
    let mut world = using_as(true, Some(true));
    converge(&mut world);
    let first = templates(&world);
    assert_eq!(first.len(), 1);
    config_map(&mut world, "one");
    converge(&mut world);
    let second = templates(&world);
    assert_ne!(second, first);
    config_map(&mut world, "two");
    converge(&mut world);
    assert_ne!(templates(&world), second);
}

#[test]
fn labels_and_annotations_of_configuration_roll_nothing() {
    let mut world = using(true);
    config_map(&mut world, "one");
    converge(&mut world);
    let first = templates(&world);
    let map = world.state.get::<ConfigMap>("default", "web").unwrap();
    let mut map = ConfigMap::clone(map);
    let metadata = map.metadata.as_mut().unwrap();
    metadata.annotations.insert("lease".into(), "7".into());
    world.put(record::Record::ConfigMap(map));
    converge(&mut world);
    assert_eq!(templates(&world), first);
}

#[test]
fn to_ask_no_longer_replaces_no_pods() {
    let mut world = using(true);
    config_map(&mut world, "one");
    converge(&mut world);
    let first = templates(&world);
    let mut deployment = Deployment::clone(&world.deployment(NAME));
    let metadata = deployment.metadata.as_mut().unwrap();
    metadata.annotations.clear();
    world.put(record::Record::Deployment(deployment));
    converge(&mut world);
    config_map(&mut world, "two");
    converge(&mut world);
    assert_eq!(templates(&world), first);
    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    converge(&mut world);
    assert_ne!(templates(&world), first);
}

#[test]
fn configuration_takes_no_room_in_the_history() {
    let mut world = using(true);
    world.edit(NAME, |spec| set_image(spec, "nginx:1"));
    for value in 0..15 {
        config_map(&mut world, &value.to_string());
        converge(&mut world);
    }
    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    for value in 15..30 {
        config_map(&mut world, &value.to_string());
        converge(&mut world);
    }
    let revisions = world.state.list::<Revision>(Some("default"));
    let images = revisions.map(|it| {
        let template = it.template.clone().unwrap().spec.unwrap();
        template.containers[0].image.clone()
    });
    let mut images: Vec<_> = images.collect();
    images.sort();
    assert_eq!(images, ["nginx:1", "nginx:2"]);
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
