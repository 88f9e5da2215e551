//! Pods that are taken out of a Deployment by their labels, and come back.

use super::*;
use barge_proto::v1::record::Record;

fn dirty(world: &mut World) -> Vec<String> {
    let mut dirty = Vec::new();
    for change in std::mem::take(&mut world.changes) {
        Deployments.dirtied(&world.state, &change, &mut |key| dirty.push(key.name));
    }
    dirty
}

#[test]
fn a_pod_that_is_taken_out_runs_on_and_is_replaced() {
    let mut world = world(2);
    world.raise(barge_state::LEVEL);
    converge(&mut world);
    let pod = world.live()[0].clone();
    let hash = world.state.labels(&pod).get(HASH_LABEL).unwrap().clone();
    world.changes.clear();
    world.label(&pod, &[("app", "debug"), (HASH_LABEL, &hash)]);
    assert_eq!(dirty(&mut world), [NAME]);
    converge(&mut world);
    let owned = |world: &World| {
        let owned = world.state.owned::<PodRecord>(world.deployment(NAME).uid());
        owned.map(|pod| pod.uid().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((owned(&world).len(), world.live().len()), (2, 3));
    assert!(!owned(&world).iter().any(|uid| uid == pod.uid()));
    let status = world.deployment(NAME).status.clone().unwrap();
    assert_eq!((status.replicas, status.ready_replicas), (2, 2));
    let told = format!(
        "Released pod: {}: the selector does not select their labels",
        pod.name()
    );
    assert_eq!(world.events("ReleasedPod"), [told]);
    // A rollout leaves it alone, and its template stays with it.
    world.edit(NAME, |spec| set_image(spec, "nginx:2"));
    converge(&mut world);
    assert!(world.live().iter().any(|it| it.uid() == pod.uid()));
    assert_eq!(images(&world), ["nginx:2", "nginx:2", "nginx:latest"]);

    // With its labels it comes back, and the rollout ends it as any pod of an old template.
    world.changes.clear();
    world.label(&pod, &[("app", "nginx"), (HASH_LABEL, &hash)]);
    assert_eq!(dirty(&mut world), [NAME]);
    step(&mut world);
    assert!(owned(&world).iter().any(|uid| uid == pod.uid()));
    assert_eq!(
        world.events("AdoptedPod"),
        [format!("Adopted pod: {}", pod.name())]
    );
    converge(&mut world);
    assert_eq!(images(&world), ["nginx:2", "nginx:2"]);
}

#[test]
fn the_label_of_its_template_is_part_of_what_selects_a_pod() {
    let mut world = world(1);
    world.raise(barge_state::LEVEL);
    converge(&mut world);
    let pod = world.live()[0].clone();
    world.label(&pod, &[("app", "nginx")]);
    converge(&mut world);
    assert_eq!(world.live().len(), 2);
    assert!(world.by_uid::<PodRecord>(pod.uid()).owners().is_empty());
}

#[test]
fn a_pod_that_only_ends_with_it_stays_so() {
    let mut world = world(1);
    world.raise(barge_state::LEVEL);
    converge(&mut world);
    let uid = guest(&mut world, &[("app", "guest")], None);
    converge(&mut world);
    let guest = world.by_uid::<PodRecord>(&uid);
    assert_eq!(guest.owners()[0].controller, None);
}

#[test]
fn a_selector_that_does_not_select_its_own_pods_makes_none_without_end() {
    use barge_proto::v1::LabelSelectorRequirement;
    for named in [false, true] {
        let mut world = World::default();
        let uid = world.uid();
        let Record::Deployment(mut deployment) = nginx(&uid, 2) else {
            panic!("no Deployment");
        };
        let spec = deployment.spec.as_mut().unwrap();
        let selector = spec.selector.as_mut().unwrap();
        if named {
            let theirs = (HASH_LABEL.to_owned(), "mine".to_owned());
            let template = spec.template.as_mut().unwrap().metadata.as_mut().unwrap();
            template.labels.extend([theirs.clone()]);
            selector.match_labels.extend([theirs]);
        } else {
            selector.match_expressions = vec![LabelSelectorRequirement {
                key: HASH_LABEL.to_owned(),
                operator: "DoesNotExist".to_owned(),
                values: Vec::new(),
            }];
        }
        world.raise(barge_state::LEVEL);
        world.put(Record::Deployment(deployment));
        converge(&mut world);
        assert_eq!(world.live().len(), 2);
        // Nor does it release one whose other labels change.
        let pod = world.live()[0].clone();
        let hash = world.state.labels(&pod).get(HASH_LABEL).unwrap().clone();
        let labels = [("app", "nginx"), (HASH_LABEL, &hash), ("by", "ann")];
        world.label(&pod, &labels);
        converge(&mut world);
        assert_eq!(world.live().len(), 2);
        assert!(world.events("ReleasedPod").is_empty());
    }
}

/// A pod of a template that is not the Deployment's, with this reference to it.
fn guest(world: &mut World, labels: &[(&str, &str)], controller: Option<bool>) -> String {
    let uid = world.uid();
    let made = world.live()[0].clone();
    let mut template = Revision::clone(world.state.template(&made).unwrap());
    let metadata = template.metadata.as_mut().unwrap();
    (metadata.name, metadata.uid) = ("guest".into(), "guest".into());
    metadata.owner_references.clear();
    world.put(Record::Revision(template));
    let mut guest = made.record();
    guest.template_uid = "guest".into();
    let metadata = guest.metadata.as_mut().unwrap();
    (metadata.name, metadata.uid) = ("guest".into(), uid.clone());
    metadata.owner_references[0].controller = controller;
    let labels = labels.iter();
    metadata.labels = labels
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    world.put(Record::Pod(guest));
    uid
}

#[test]
fn a_pod_of_another_template_that_names_it_as_controller_stays() {
    let mut world = world(1);
    world.raise(barge_state::LEVEL);
    converge(&mut world);
    let uid = guest(&mut world, &[("app", "guest")], Some(true));
    converge(&mut world);
    let guest = world.by_uid::<PodRecord>(&uid);
    assert_eq!(guest.owners()[0].controller, Some(true));
    assert!(world.events("ReleasedPod").is_empty());
}
