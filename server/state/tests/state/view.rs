//! Objects as the API shows them.

use barge_proto::v1::{self, Node, NodeAddress, NodeStatus, PodRecord, PodStatus, object};
use barge_state::{Kind, OWN_LABELS, Own, RecordKind, State, needed};

use crate::fixtures::*;

fn cluster() -> State {
    let mut own = pod("p1", "r1");
    own.meta_mut()
        .labels
        .insert("own".to_owned(), "yes".to_owned());
    let address = NodeAddress {
        r#type: "InternalIP".to_owned(),
        address: "192.0.2.1".to_owned(),
    };
    let mut node = node("n1");
    node.status.get_or_insert_default().addresses = vec![address];
    state([
        put(node),
        put(revision("r1", "1", "1Gi")),
        put(own),
        put(pod("p2", "r1")),
    ])
}

#[test]
fn a_pod_has_its_own_labels_instead_of_its_templates() {
    let mut state = cluster();
    let shown = |state: &State| {
        let pod = state.by_uid::<PodRecord>("p2").unwrap();
        let shown = state.pod(pod).metadata.unwrap().labels;
        assert_eq!(*state.labels(pod), shown);
        shown
    };
    let before = state.by_uid::<PodRecord>("p2").unwrap().size();
    let labelled = |labels: &[(&str, &str)]| {
        let all = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let all = all.collect();
        let template = [("app".to_owned(), "web".to_owned())].into();
        let (set, removed) = Own::between(&template, &all);
        let mut pod = pod("p2", "r1");
        pod.meta_mut().labels = set;
        pod.removed_labels = removed;
        (put(pod), all)
    };
    for labels in [
        &[("app", "debug"), ("by", "ann")][..],
        &[("by", "ann")],
        &[],
        &[("app", "web")],
    ] {
        let (change, wanted) = labelled(labels);
        accept(&mut state, [change]);
        assert_eq!(shown(&state), wanted);
    }
    let pod = state.by_uid::<PodRecord>("p2").unwrap();
    assert!(pod.own_labels().is_none() && pod.own_annotations().is_none());
    assert_eq!(pod.size(), before, "as if nothing had been");
}

#[test]
fn other_labels_than_the_templates_need_a_feature_level() {
    let plain = pod("p1", "r1");
    assert_eq!(needed(&put(plain.clone())), 0);
    let mut labelled = plain.clone();
    labelled.meta_mut().labels = [("a".to_owned(), "b".to_owned())].into();
    let mut noted = plain.clone();
    noted.meta_mut().annotations = [("a".to_owned(), "b".to_owned())].into();
    let (mut without, mut without_note) = (plain.clone(), plain);
    without.removed_labels.push("app".to_owned());
    without_note.removed_annotations.push("app".to_owned());
    for pod in [labelled, noted, without, without_note] {
        assert_eq!(needed(&put(pod)), OWN_LABELS);
    }
}

#[test]
fn a_pod_is_put_together() {
    let mut state = cluster();
    let running = PodStatus {
        pod_ip: "10.244.1.2".to_owned(),
        ..phase("Running")
    };
    accept(&mut state, [bind("p1", "n1"), report("p1", running)]);
    let object = state
        .object(v1::Kind::Pod, "default", "name-of-p1")
        .unwrap();
    let Some(object::Kind::Pod(pod)) = object.kind else {
        panic!("not a pod")
    };
    assert_eq!((pod.api_version.as_str(), pod.kind.as_str()), ("v1", "Pod"));
    let labels = pod.metadata.unwrap().labels;
    assert_eq!(
        labels.into_iter().collect::<Vec<_>>(),
        [("app".into(), "web".into()), ("own".into(), "yes".into())]
    );
    let spec = pod.spec.unwrap();
    assert_eq!(
        (spec.node_name.as_str(), spec.containers.len()),
        ("name-of-n1", 1)
    );
    let status = pod.status.unwrap();
    assert_eq!(status.host_ip, "192.0.2.1");
    assert_eq!(status.pod_ips[0].ip, "10.244.1.2");
    let scheduled = &status.conditions[0];
    assert_eq!(
        (scheduled.r#type.as_str(), scheduled.status.as_str()),
        ("PodScheduled", "True")
    );
    assert_eq!(scheduled.last_transition_time, Some(time(1000)));
    let waiting = state.by_uid::<PodRecord>("p2").unwrap();
    let status = state.pod(waiting).status.unwrap();
    assert_eq!(status, phase("Pending"));
}

#[test]
fn a_watcher_sees_a_removed_pod_whole() {
    let mut state = cluster();
    let gone = ["p1", "p2"].map(|uid| remove(RecordKind::Pod, uid));
    let applied = accept(&mut state, gone);
    assert_eq!(state.count::<v1::Revision>(), 0);
    let object = state.changed_object(&applied.changes[0]).unwrap();
    assert_eq!(object.metadata().resource_version, "5");
    let Some(object::Kind::Pod(pod)) = object.kind else {
        panic!("not a pod")
    };
    assert_eq!(pod.spec.unwrap().containers.len(), 1);
    assert_eq!(
        state.changed_object(&applied.changes[2]),
        None,
        "templates are not shown"
    );
}

#[test]
fn lists_go_on_where_they_stopped() {
    let in_namespace = |namespace: &str, name: &str| {
        let uid = format!("{namespace}-{name}");
        v1::Deployment {
            metadata: Some(meta(namespace, name, &uid)),
            ..deployment("", 1)
        }
    };
    let names = [("a", "x"), ("a", "y"), ("b", "a"), ("b", "x"), ("c", "a")];
    let state = state(names.map(|(namespace, name)| put(in_namespace(namespace, name))));
    let list = |namespace, after| -> Vec<_> {
        let objects = state.objects(v1::Kind::Deployment, namespace, after);
        objects
            .map(|object| (object.namespace().to_owned(), object.name().to_owned()))
            .collect()
    };
    let expect = |namespace: Option<&str>, after: Option<(&str, &str)>| -> Vec<_> {
        let names = names
            .into_iter()
            .filter(|name| namespace.is_none_or(|n| n == name.0));
        let names = names.filter(|name| after.is_none_or(|after| *name > after));
        names
            .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
            .collect()
    };
    for namespace in [None, Some("a"), Some("b"), Some("bb"), Some("c")] {
        for after in ["", "a", "aa", "b", "c", "d"] {
            for name in ["", "a", "x", "xx"] {
                let after = Some((after, name));
                assert_eq!(
                    list(namespace, after),
                    expect(namespace, after),
                    "{namespace:?} {after:?}"
                );
            }
        }
        assert_eq!(list(namespace, None), expect(namespace, None));
    }
}

#[test]
fn other_kinds_get_their_type() {
    let state = state([
        put(deployment("d1", 1)),
        put(Node {
            status: Some(NodeStatus::default()),
            ..node("n1")
        }),
    ]);
    let object = state
        .object(v1::Kind::Deployment, "default", "name-of-d1")
        .unwrap();
    assert_eq!(object.stated_type(), ("apps/v1", "Deployment"));
    assert_eq!(state.object(v1::Kind::Node, "", "other"), None);
}
