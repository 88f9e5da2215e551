//! Pods that come and go by their labels.

use super::*;
use crate::store::transaction::Draft;
use barge_proto::v1::{
    DeleteRecord, DeletionPropagation, ObjectMeta, OwnerReference, PodTemplateSpec,
};

/// A world where pods may have their own labels.
fn labelled(replicas: i32) -> World {
    let mut world = world(replicas);
    world.raise(barge_state::LEVEL);
    settle(&mut world);
    obey(&mut world);
    world
}

fn owner(world: &World, pod: &PackedPod) -> Option<String> {
    let pod = world.by_uid::<PodRecord>(pod.uid());
    let mut owners = pod.owners().iter();
    let owner = owners.find(|owner| owner.controller == Some(true));
    owner.map(|owner| owner.uid.clone())
}

fn own(world: &World) -> Vec<Arc<PackedPod>> {
    let uid = set(world).uid().to_owned();
    let mut own = world.live();
    own.retain(|pod| is_controlled(pod, &uid));
    own
}

/// A ready pod that was applied, with these labels.
fn bare(world: &mut World, name: &str, labels: &[(&str, &str)]) -> Arc<PackedPod> {
    let (uid, template) = (world.uid(), world.uid());
    let labels = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let meta = |name: &str, uid: &str| ObjectMeta {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    };
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: name.to_owned(),
        uid: uid.clone(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let mut revision = Revision {
        metadata: Some(meta(&template, &template)),
        number: 1,
        template: Some(PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: labels.collect(),
                ..ObjectMeta::default()
            }),
            spec: set(world).spec.clone().unwrap().template.unwrap().spec,
        }),
    };
    revision.metadata.as_mut().unwrap().owner_references = vec![owner];
    let pod = PodRecord {
        metadata: Some(meta(name, &uid)),
        template_uid: template,
        ..PodRecord::default()
    };
    let mut draft = Draft::new();
    draft.put(revision);
    draft.put(pod);
    assert_eq!(world.propose(draft).refusal, None);
    world.report(&uid, "Running", true);
    world.by_uid::<PodRecord>(&uid)
}

/// Whom the changes since then concern.
fn dirty(world: &mut World) -> Vec<String> {
    let mut dirty = Vec::new();
    for change in std::mem::take(&mut world.changes) {
        ReplicaSets.dirtied(&world.state, &change, &mut |key| dirty.push(key.name));
    }
    dirty
}

#[test]
fn a_pod_that_it_selects_no_longer_runs_on_and_is_replaced() {
    let mut world = labelled(2);
    let pod = own(&world)[0].clone();
    world.changes.clear();
    world.label(&pod, &[("app", "debug")]);
    assert_eq!(dirty(&mut world), ["web"]);
    let plan = step(&mut world);
    assert_eq!(owner(&world, &pod), None);
    assert_eq!(plan.again, Some(Duration::ZERO));
    assert_eq!(dirty(&mut world), ["web"], "it was its own before");
    settle(&mut world);
    obey(&mut world);
    assert_eq!((world.live().len(), own(&world).len()), (3, 2));
    assert_eq!(status(&world), [2, 2, 2, 2, 1]);
    let told = format!(
        "Released pod: {}: the selector does not select their labels",
        pod.name()
    );
    assert_eq!(world.events("ReleasedPod"), [told]);
    let after = world.by_uid::<PodRecord>(pod.uid());
    assert!(!after.is_terminating() && after.status().phase == "Running");
    // It goes on without its ReplicaSet, and with its template.
    world.remove(&*set(&world));
    obey_all(&mut world);
    assert_eq!(world.live().len(), 1);
    assert!(world.state.template(&after).is_some());
    world.remove(&*after);
    assert_eq!(world.state.count::<Revision>(), 0);
}

/// Ended pods are gone.
fn obey_all(world: &mut World) {
    for pod in world.pods() {
        if pods::is_terminating(&pod) {
            world.remove(&*pod);
        }
    }
}

#[test]
fn a_pod_that_it_selects_again_comes_back_and_one_is_too_many() {
    let mut world = labelled(2);
    let pod = own(&world)[0].clone();
    world.label(&pod, &[]);
    settle(&mut world);
    obey(&mut world);
    // The new one is not ready, so it is missed least.
    let new = own(&world)
        .into_iter()
        .max_by_key(|it| it.uid().to_owned())
        .unwrap();
    world.report(new.uid(), "Running", false);
    settle(&mut world);
    world.changes.clear();
    world.label(&pod, &[("app", "nginx"), ("by", "ann")]);
    assert_eq!(dirty(&mut world), ["web"]);
    settle(&mut world);
    assert_eq!(owner(&world, &pod).as_deref(), Some(set(&world).uid()));
    let live: BTreeSet<_> = own(&world).iter().map(|it| it.uid().to_owned()).collect();
    assert!(live.len() == 2 && live.contains(pod.uid()) && !live.contains(new.uid()));
    assert_eq!(
        world.events("AdoptedPod"),
        [format!("Adopted pod: {}", pod.name())]
    );
}

#[test]
fn pods_that_were_left_alone_are_adopted() {
    let mut world = labelled(2);
    let before = own(&world);
    world.apply([Change::Delete(DeleteRecord {
        target: Some(crate::controllers::plan::reference(&*set(&world))),
        propagation: DeletionPropagation::Orphan.into(),
    })]);
    assert!(before.iter().all(|pod| owner(&world, pod).is_none()));
    let uid = world.uid();
    world.put(web_set(&uid, 3));
    settle(&mut world);
    obey(&mut world);
    let after = own(&world);
    assert_eq!(after.len(), 3);
    for pod in &before {
        assert!(after.iter().any(|it| it.uid() == pod.uid()));
    }
    assert_eq!(status(&world)[..4], [3, 3, 3, 3]);
    // The templates of the first set go with their last pod.
    assert_eq!(world.state.count::<Revision>(), 2);
    for pod in &before {
        world.remove(&**pod);
    }
    settle(&mut world);
    assert_eq!(world.state.count::<Revision>(), 1);
}

#[test]
fn it_adopts_only_what_nobody_has_and_what_serves() {
    let mut world = labelled(1);
    let nginx = &[("app", "nginx")][..];
    let (failed, other) = (
        bare(&mut world, "failed", nginx),
        bare(&mut world, "other", &[("app", "other")]),
    );
    world.report(failed.uid(), "Failed", false);
    let node = world.node("a", 8000, 8000, 100);
    let ending = bare(&mut world, "ending", nginx);
    world.bind(&ending, &node);
    let mut draft = Draft::new();
    draft.terminate(ending.uid(), "");
    assert_eq!(world.propose(draft).refusal, None);
    let theirs = bare(&mut world, "theirs", nginx);
    let mut record = theirs.record();
    record.metadata.as_mut().unwrap().owner_references = vec![OwnerReference {
        kind: "Deployment".to_owned(),
        uid: "somebody".to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }];
    world.put(Record::Pod(record));
    settle(&mut world);
    for pod in [&failed, &other, &ending] {
        assert_eq!(owner(&world, pod), None, "{}", pod.name());
    }
    assert_eq!(owner(&world, &theirs).as_deref(), Some("somebody"));
    // What only was to end with it becomes its own.
    let uid = set(&world).uid().to_owned();
    let mut record = other.record();
    record.metadata.as_mut().unwrap().owner_references = vec![OwnerReference {
        kind: "ReplicaSet".to_owned(),
        name: "web".to_owned(),
        uid: uid.clone(),
        ..OwnerReference::default()
    }];
    world.put(Record::Pod(record));
    settle(&mut world);
    assert_eq!((owner(&world, &other), own(&world).len()), (None, 1));
    edit(&mut world, |spec| spec.replicas = Some(2));
    world.label(&other, nginx);
    settle(&mut world);
    assert_eq!(owner(&world, &other), Some(uid));
    assert_eq!(world.by_uid::<PodRecord>(other.uid()).owners().len(), 1);
    // Without the label it has its template's, which are others.
    world.label(&other, &[("app", "other")]);
    settle(&mut world);
    assert_eq!(owner(&world, &other), None);
    assert_eq!(own(&world).len(), 2);
}

#[test]
fn of_two_that_select_a_pod_the_first_one_gets_it() {
    let mut world = labelled(1);
    let pod = bare(&mut world, "alone", &[("app", "nginx")]);
    let plan_of = |world: &mut World| {
        let mut stamp = world.stamp();
        plan(&world.state, &key(), &mut stamp)
    };
    edit(&mut world, |spec| spec.replicas = Some(2));
    let (first, second) = (plan_of(&mut world), plan_of(&mut world));
    world.follow(first);
    assert!(world.propose(second.draft).refusal.is_some());
    // Nor is a plan carried out on a pod that has changed since, nor for an owner that is gone.
    settle(&mut world);
    assert!(owner(&world, &pod).is_some());
    world.label(&pod, &[("app", "debug")]);
    let release = plan_of(&mut world);
    world.label(&pod, &[("app", "nginx")]);
    assert!(world.propose(release.draft).refusal.is_some());
    assert!(owner(&world, &pod).is_some());
    bare(&mut world, "another", &[("app", "nginx")]);
    let adoption = plan_of(&mut world);
    world.remove(&*set(&world));
    assert!(world.propose(adoption.draft).refusal.is_some());
}

#[test]
fn one_that_is_being_deleted_adopts_nothing() {
    let mut world = labelled(1);
    let node = world.node("a", 8000, 8000, 100);
    world.bind(&own(&world)[0].clone(), &node);
    world.apply([Change::Delete(DeleteRecord {
        target: Some(crate::controllers::plan::reference(&*set(&world))),
        propagation: DeletionPropagation::Foreground.into(),
    })]);
    assert!(set(&world).meta().deletion_timestamp.is_some());
    let pod = bare(&mut world, "alone", &[("app", "nginx")]);
    assert!(step(&mut world).draft.is_empty());
    assert_eq!(owner(&world, &pod), None);
}

#[test]
fn its_end_does_not_wait_for_a_pod_that_it_released() {
    let mut world = labelled(2);
    let node = world.node("a", 8000, 8000, 100);
    for pod in own(&world) {
        world.bind(&pod, &node);
    }
    let released = own(&world)[0].clone();
    world.label(&released, &[("app", "debug")]);
    settle(&mut world);
    world.apply([Change::Delete(DeleteRecord {
        target: Some(crate::controllers::plan::reference(&*set(&world))),
        propagation: DeletionPropagation::Foreground.into(),
    })]);
    // While it has pods of its own, these are what it waits for.
    assert!(step(&mut world).draft.is_empty());
    obey_all(&mut world);
    assert!(world.state.get::<ReplicaSet>("default", "web").is_some());
    step(&mut world);
    assert!(world.state.get::<ReplicaSet>("default", "web").is_none());
    let [left] = &world.live()[..] else {
        panic!("{:?}", world.live());
    };
    assert_eq!(left.uid(), released.uid());
    assert!(world.state.template(left).is_some());
    world.remove(&**left);
    obey_all(&mut world);
    assert_eq!(
        (world.pods().len(), world.state.count::<Revision>()),
        (0, 0)
    );
}

#[test]
fn many_pods_come_in_batches() {
    let mut world = labelled(250);
    world.apply([Change::Delete(DeleteRecord {
        target: Some(crate::controllers::plan::reference(&*set(&world))),
        propagation: DeletionPropagation::Orphan.into(),
    })]);
    let uid = world.uid();
    world.put(web_set(&uid, 250));
    let first = step(&mut world);
    assert_eq!(
        (own(&world).len(), first.again),
        (100, Some(Duration::ZERO))
    );
    settle(&mut world);
    assert_eq!((own(&world).len(), world.live().len()), (250, 250));
}
