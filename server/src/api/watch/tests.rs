#![allow(clippy::unwrap_used)]
//! Pods that come into a watch by their labels, and leave it.

use super::*;
use crate::controllers::testing::{World, web_set};
use barge_proto::v1::{ObjectMeta, PodRecord, Revision, record::Record};

/// What a watcher with this selector sees of all changes so far.
fn seen(world: &mut World, selector: &str) -> Vec<(ChangeType, Object)> {
    let filter = Filter {
        prefix: String::new(),
        namespace: None,
        name: None,
        selector: names::selector(selector).unwrap(),
        fields: names::field_selector(Kind::Pod, "").unwrap(),
    };
    let changes = std::mem::take(&mut world.changes).into_iter();
    let pods = changes.filter(|change| change.kind() == Some(RecordKind::Pod));
    let event = |change: Changed| {
        let parts = |record: &Stored| world.state.parts(record.clone(), change.template.clone());
        let seen = Seen {
            before: change.before.as_ref().map(parts),
            after: change.after.as_ref().map(parts),
            change,
        };
        let event = seen.event(&filter)?;
        Some((event.r#type(), event.object?))
    };
    pods.filter_map(event).collect()
}

#[test]
fn a_pod_whose_labels_leave_the_selector_is_deleted_for_the_watcher() {
    let mut world = World::default();
    let (template, uid) = (world.uid(), world.uid());
    let Record::ReplicaSet(set) = web_set(&template, 1) else {
        unreachable!("a ReplicaSet");
    };
    let meta = |name: &str, uid: &str| ObjectMeta {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    };
    world.put(Record::Revision(Revision {
        metadata: Some(meta("template", &template)),
        number: 1,
        template: set.spec.unwrap().template,
    }));
    world.put(Record::Pod(PodRecord {
        metadata: Some(meta("web", &uid)),
        template_uid: template,
        ..PodRecord::default()
    }));
    let pod = world.pods()[0].clone();
    let types = |seen: &[(ChangeType, Object)]| seen.iter().map(|it| it.0).collect::<Vec<_>>();
    assert_eq!(types(&seen(&mut world, "app=nginx")), [ChangeType::Added]);
    world.label(&pod, &[("app", "nginx"), ("by", "ann")]);
    assert_eq!(
        types(&seen(&mut world, "app=nginx")),
        [ChangeType::Modified]
    );
    world.label(&pod, &[("app", "debug"), ("by", "ann")]);
    let changes = world.changes.clone();
    let left = seen(&mut world, "app=nginx");
    assert_eq!(types(&left), [ChangeType::Deleted]);
    assert_eq!(left[0].1.metadata().labels["app"], "debug");
    world.changes = changes;
    assert_eq!(types(&seen(&mut world, "app=debug")), [ChangeType::Added]);
    world.report(pod.uid(), "Running", true);
    assert_eq!(types(&seen(&mut world, "app=nginx")), []);
    world.label(&pod, &[("app", "nginx")]);
    assert_eq!(types(&seen(&mut world, "app=nginx")), [ChangeType::Added]);
}
