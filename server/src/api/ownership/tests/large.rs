//! Long lists.

use super::*;

/// The Deployment with as many variables as one may have, in as many containers.
fn large(value: &str) -> Object {
    let mut object = read(WEB);
    let Some(object::Kind::Deployment(deployment)) = &mut object.kind else {
        panic!("no Deployment");
    };
    let template = deployment.spec.as_mut().unwrap().template.as_mut().unwrap();
    let spec = template.spec.as_mut().unwrap();
    let first = spec.containers.remove(0);
    let container = |n| {
        let mut container = first.clone();
        container.name = format!("c{n}");
        container.env = (0..1000)
            .map(|n| barge_proto::v1::EnvVar {
                name: format!("V{n}"),
                value: value.to_owned(),
                ..Default::default()
            })
            .collect();
        container
    };
    spec.containers = (0..10).map(container).collect();
    object
}

#[test]
fn the_longest_lists_take_no_more_than_a_look_at_each_item() {
    let live = by("a", None, &large("1"));
    let begun = std::time::Instant::now();
    let mut scaled = live.clone();
    let Some(object::Kind::Deployment(deployment)) = &mut scaled.kind else {
        panic!("no Deployment");
    };
    deployment.spec.as_mut().unwrap().replicas = Some(9);
    let entries = update(&live, &scaled, "b", Time::from_seconds(3)).unwrap();
    assert_eq!(entries.len(), 2);
    let replaced = replace(&live, &large("2"), &applier("b", false)).unwrap();
    assert_eq!(replaced.metadata().managed_fields.len(), 2);
    let again = by("a", Some(&live), &large("3"));
    assert_eq!(value(&again), value(&by("a", None, &large("3"))));
    let without = by("a", Some(&live), &read(WEB));
    assert_eq!(value(&without), value(&by("a", None, &read(WEB))));
    let refused = apply(Some(&live), &large("4"), &applier("c", false)).unwrap_err();
    assert!(matches!(refused, ApiError::FieldConflict(fields) if fields.len() == MAX_TOLD + 1));
    // Each item beside each other is 10 million looks at JSON a time.
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
}

#[test]
fn items_that_stand_there_twice_are_one_after_the_next_apply() {
    let mut live = by("a", None, &read(WEB));
    let Some(object::Kind::Deployment(deployment)) = &mut live.kind else {
        panic!("no Deployment");
    };
    let template = deployment.spec.as_mut().unwrap().template.as_mut().unwrap();
    let env = &mut template.spec.as_mut().unwrap().containers[0].env;
    env.push(env[0].clone());
    let both = WEB.replace("'1'}", "'1'}\n        - {name: B, value: '2'}");
    let merged = value(&by("a", Some(&live), &read(&both)));
    let env = at(&merged, "/spec/template/spec/containers/0/env").unwrap();
    assert_eq!(
        *env,
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])
    );
}
