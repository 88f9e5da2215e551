//! Objects as the API shows them.

use barge_proto::v1::{self, Node, NodeAddress, NodeStatus, PodRecord, PodStatus, object};
use barge_state::{Kind, RecordKind, State};

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
