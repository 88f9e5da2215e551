//! Objects as the API shows them.

use barge_proto::v1::{
    self, Node, NodeAddress, NodeStatus, OwnerReference, PodRecord, PodStatus, ReplicaSet,
    Revision, RevisionStatus, object,
};
use barge_state::{HASH_LABEL, Kind, RecordKind, State};

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

/// The Deployment d1, its revision r1 with one pod that it made and one that somebody else did, and what nobody is shown.
fn revisions() -> State {
    let controlled = |by: &str| OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: format!("name-of-{by}"),
        uid: by.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let labelled = |uid: &str| {
        let mut revision = revision(uid, "1", "1Gi");
        let labels = &mut revision.meta_mut().labels;
        labels.insert(HASH_LABEL.to_owned(), uid.to_owned());
        revision
    };
    let mut shown = labelled("r1");
    shown.meta_mut().owner_references = vec![controlled("d1")];
    shown.number = 7;
    let mut without_label = revision("r2", "1", "1Gi");
    without_label.meta_mut().owner_references = vec![controlled("d1")];
    let mut made = pod("p1", "r1");
    made.meta_mut().owner_references = vec![controlled("d1")];
    let mut foreign = pod("p2", "r1");
    foreign.meta_mut().owner_references = vec![controlled("d2")];
    state([
        put(deployment("d1", 1)),
        put(deployment("d2", 1)),
        put(shown),
        put(without_label),
        put(labelled("r3")),
        put(made),
        put(foreign),
        put_status(Revision {
            status: Some(RevisionStatus {
                desired: 4,
                replicas: 3,
                ready: 2,
                available: 1,
            }),
            ..revision("r1", "1", "1Gi")
        }),
    ])
}

fn replica_set_of(state: &State, uid: &str) -> Option<ReplicaSet> {
    let object = state.object(v1::Kind::ReplicaSet, "default", &format!("name-of-{uid}"))?;
    Some(ReplicaSet::try_from(object).unwrap())
}

#[test]
fn a_revision_of_a_deployment_is_shown_as_a_replica_set() {
    let state = revisions();
    let set = replica_set_of(&state, "r1").unwrap();
    let metadata = set.metadata.unwrap();
    assert_eq!((&*set.api_version, &*set.kind), ("apps/v1", "ReplicaSet"));
    assert_eq!((&*metadata.uid, metadata.generation), ("r1", 1));
    assert_eq!(metadata.resource_version, state.revision().to_string());
    assert_eq!(
        metadata.annotations["deployment.kubernetes.io/revision"],
        "7"
    );
    let spec = set.spec.unwrap();
    assert_eq!(spec.replicas, Some(4));
    assert_eq!(spec.selector.unwrap().match_labels, metadata.labels);
    assert_eq!(
        spec.template,
        state.by_uid::<Revision>("r1").unwrap().template
    );
    let status = set.status.unwrap();
    let counts = [
        status.replicas,
        status.ready_replicas,
        status.available_replicas,
    ];
    assert_eq!(counts, [3, 2, 1]);
    assert_eq!(status.observed_generation, metadata.generation);
    let restored = State::restore(state.records(), state.meta());
    assert_eq!(
        replica_set_of(&restored, "r1"),
        replica_set_of(&state, "r1")
    );
    // Without its label or its owner it is a template and nothing else.
    assert_eq!(replica_set_of(&state, "r2"), None);
    assert_eq!(replica_set_of(&state, "r3"), None);

    let owner = |uid: &str| {
        let pod = state.pod(state.by_uid::<PodRecord>(uid).unwrap());
        let [owner] = &pod.metadata.unwrap().owner_references[..] else {
            panic!("one owner")
        };
        (owner.kind.clone(), owner.name.clone(), owner.uid.clone())
    };
    let shown = |kind: &str, uid: &str| (kind.into(), format!("name-of-{uid}"), uid.into());
    assert_eq!(owner("p1"), shown("ReplicaSet", "r1"));
    assert_eq!(owner("p2"), shown("Deployment", "d2"));
}

#[test]
fn the_revisions_of_a_deleted_deployment_count_nothing_and_those_that_it_left_are_not_shown() {
    let mut state = revisions();
    let node = [put(node("n1")), bind("p1", "n1"), bind("p2", "n1")];
    accept(&mut state, node);
    let delete = |how: v1::DeletionPropagation| {
        v1::change::Change::Delete(v1::DeleteRecord {
            target: Some(v1::RecordRef {
                kind: RecordKind::Deployment.number(),
                uid: "d1".to_owned(),
                ..v1::RecordRef::default()
            }),
            propagation: how.into(),
        })
    };
    let mut orphaned = State::restore(state.records(), state.meta());
    accept(&mut orphaned, [delete(v1::DeletionPropagation::Orphan)]);
    assert!(orphaned.by_uid::<Revision>("r1").is_some());
    assert_eq!(replica_set_of(&orphaned, "r1"), None);
    let left = orphaned.pod(orphaned.by_uid::<PodRecord>("p1").unwrap());
    assert_eq!(left.metadata.unwrap().owner_references, []);

    accept(&mut state, [delete(v1::DeletionPropagation::Background)]);
    let ends = replica_set_of(&state, "r1").unwrap();
    assert!(ends.metadata.unwrap().deletion_timestamp.is_some());
    assert_eq!(ends.spec.unwrap().replicas, Some(0));
    assert_eq!(ends.status.unwrap().replicas, 0);
}
