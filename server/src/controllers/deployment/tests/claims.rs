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
    metadata.owner_references[0].controller = None;
    metadata.labels = [("app".to_owned(), "guest".to_owned())].into();
    world.put(Record::Pod(guest));
    converge(&mut world);
    let guest = world.by_uid::<PodRecord>(&uid);
    assert_eq!(guest.owners()[0].controller, None);
}
