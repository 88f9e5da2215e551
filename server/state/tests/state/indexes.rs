//! Indexes are equal to what a look at every record gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use barge_proto::{
    for_each_kind,
    selector::Labels,
    v1::{Event, ManagerRecord, Node, PodRecord, PodTombstone, Revision, Service, Time},
};
use barge_state::{Kind, PackedPod, PortsInUse, State, Stored, Usage, claimed, is_finished};

/// Compares every index of a state with its records.
pub fn check(state: &State) {
    let records: Vec<Stored> = state.stored().collect();
    for stored in &records {
        macro_rules! check_each {
            ($($variant:ident($message:ident) $table:ident = $number:literal $object:tt $options:tt,)*) => {
                match stored {
                    $(Stored::$variant(record) => check_keys(state, record, &records),)*
                }
            };
        }
        for_each_kind!(check_each);
    }
    check_pods(state);
    check_tombstones(state);
    check_claims(state);
    check_deletions(state, &records);
}

fn check_deletions(state: &State, records: &[Stored]) {
    let is_deleted = |record: &&Stored| match record {
        Stored::Namespace(namespace) => namespace.meta().deletion_timestamp.is_some(),
        other => !other.finalizers().is_empty(),
    };
    let deleted = records.iter().filter(is_deleted);
    let mut expected: Vec<_> = deleted
        .map(|record| (record.uid(), record.kind()))
        .collect();
    expected.sort();
    assert_eq!(state.deletions().collect::<Vec<_>>(), expected);
}

fn check_keys<R: barge_state::Kept>(state: &State, record: &Arc<R>, all: &[Stored]) {
    let meta = record.message().meta().clone();
    assert!(Arc::ptr_eq(
        state.by_uid::<R::Message>(&meta.uid).unwrap(),
        record
    ));
    assert!(Arc::ptr_eq(
        state
            .get::<R::Message>(&meta.namespace, &meta.name)
            .unwrap(),
        record
    ));
    let same = |other: &&Stored| other.kind() == R::Message::KIND;
    let mut named: Vec<_> = all
        .iter()
        .filter(same)
        .map(|r| (r.namespace(), r.name()))
        .collect();
    named.sort();
    assert!(
        named.windows(2).all(|pair| pair[0] != pair[1]),
        "names are unique"
    );
    let listed: Vec<_> = state
        .list::<R::Message>(None)
        .map(|r| (r.namespace(), r.name()))
        .collect();
    assert_eq!(listed, named);
    for owner in record.owner_uids() {
        let mut owned: Vec<_> = all
            .iter()
            .filter(same)
            .filter_map(R::Message::from_stored)
            .filter(|other| other.owner_uids().contains(&owner))
            .collect();
        owned.sort_by(|a, b| a.uid().cmp(b.uid()));
        assert!(
            state.owned::<R::Message>(owner).eq(owned.iter().copied()),
            "owned by {owner}"
        );
        assert_eq!(state.owned_count::<R::Message>(owner), owned.len());
    }
}

fn check_pods(state: &State) {
    let mut by_node: BTreeMap<&str, Vec<&Arc<PackedPod>>> = BTreeMap::new();
    let mut by_template: BTreeMap<&str, Vec<&Arc<PackedPod>>> = BTreeMap::new();
    let mut pods: Vec<_> = state.list::<PodRecord>(None).collect();
    pods.sort_by_key(|pod| pod.uid());
    let namespaces: BTreeSet<_> = pods.iter().map(|pod| pod.namespace()).collect();
    for namespace in namespaces {
        let inside = || {
            pods.iter()
                .copied()
                .filter(|it| it.namespace() == namespace)
        };
        let own = inside().filter(|pod| !pod.own_labels().is_none());
        assert!(state.pods_with_own_labels(namespace).eq(own));
        let alone = inside().filter(|pod| !pod.has_controller());
        assert!(state.pods_without_controller(namespace).eq(alone));
        check_labels(state, namespace);
    }
    for pod in pods {
        by_node.entry(pod.node_uid()).or_default().push(pod);
        by_template.entry(pod.template_uid()).or_default().push(pod);
    }
    let nodes = state.list::<Node>(None).map(|node| node.uid());
    for uid in nodes.chain([""]) {
        let expected = by_node.remove(uid).unwrap_or_default();
        assert_eq!(state.pods_on(uid).collect::<Vec<_>>(), expected);
        assert_eq!(state.pods_on_count(uid), expected.len());
        let lost = expected.iter().copied().filter(|pod| pod.is_lost());
        assert!(state.lost_on(uid).eq(lost));
        if !uid.is_empty() {
            assert_eq!(state.node_usage(uid), recomputed(state, &expected));
            assert_eq!(
                state.node_ports(uid).cloned().unwrap_or_default(),
                recomputed_ports(state, &expected)
            );
        }
    }
    assert!(
        by_node.is_empty(),
        "pods on nodes that are gone: {by_node:?}"
    );
    for revision in state.list::<Revision>(None) {
        let expected = by_template.remove(revision.uid()).unwrap_or_default();
        assert_eq!(state.pods_of(revision.uid()).collect::<Vec<_>>(), expected);
        assert_eq!(state.pods_of_count(revision.uid()), expected.len());
    }
    assert!(
        by_template.is_empty(),
        "pods without their template: {by_template:?}"
    );
}

/// What is selected by labels is what has them when it is shown.
fn check_labels(state: &State, namespace: &str) {
    let shown = |pod: &PackedPod| state.pod(pod).metadata.unwrap_or_default().labels;
    // As they are outside of tests: a pod's template is in its own namespace.
    let at_home = |pod: &PackedPod| {
        let template = state.template(pod);
        let home = template.map(|template| &*template.meta().namespace);
        home == Some(namespace) && pod.namespace() == namespace
    };
    for key in ["app", "a"] {
        let fit = |labels: &Labels| labels.contains_key(key);
        let found = state.pods_labelled(namespace, fit);
        let found = found.filter(|(_, pod)| at_home(pod));
        let mut found: Vec<_> = found.map(|(_, pod)| pod.name()).collect();
        found.sort_unstable();
        let pods = state.list::<PodRecord>(Some(namespace));
        let expected = pods.filter(|pod| at_home(pod) && fit(&shown(pod)));
        assert!(expected.map(|pod| pod.name()).eq(found), "{key}");
    }
}

fn check_tombstones(state: &State) {
    let nodes: Vec<_> = state.list::<Node>(None).map(|node| node.uid()).collect();
    for node in &nodes {
        let mut expected: Vec<_> = state.list::<PodTombstone>(None).collect();
        expected.retain(|tombstone| tombstone.node_uid == *node);
        assert!(expected.len() <= state.limits().tombstones_per_node);
        assert_eq!(state.tombstones_on(node).collect::<Vec<_>>(), expected);
    }
    let mut of_nodes = 0;
    for tombstone in state.list::<PodTombstone>(None) {
        let of_node = state.deleted_node(tombstone.uid()).is_some();
        of_nodes += usize::from(of_node);
        assert!(of_node || nodes.contains(&tombstone.node_uid.as_str()));
    }
    assert!(of_nodes <= state.limits().node_tombstones);
}

fn recomputed(state: &State, pods: &[&Arc<PackedPod>]) -> Usage {
    let reserving = pods.iter().filter(|pod| !is_finished(pod));
    reserving.fold(Usage::default(), |sum, pod| {
        let template = state.template(pod).unwrap().template.clone().unwrap();
        sum.plus(Usage::of_spec(&template.spec.unwrap()))
    })
}

fn recomputed_ports(state: &State, pods: &[&Arc<PackedPod>]) -> PortsInUse {
    let mut ports = PortsInUse::default();
    for pod in pods.iter().filter(|pod| !is_finished(pod)) {
        let template = state.template(pod).unwrap().template.clone().unwrap();
        ports.add(&claimed(&template.spec.unwrap()));
    }
    ports
}

fn check_claims(state: &State) {
    let mut count = 0;
    for service in state.list::<Service>(None) {
        let spec = service.spec.clone().unwrap();
        if !matches!(spec.cluster_ip.as_str(), "" | "None") {
            assert_eq!(
                state.service_with_cluster_ip(&spec.cluster_ip),
                Some(service)
            );
            count += 1;
        }
        for port in spec.ports.iter().filter(|port| port.node_port != 0) {
            assert_eq!(
                state.service_with_node_port(port.node_port, "TCP"),
                Some(service)
            );
            count += 1;
        }
    }
    for node in state.list::<Node>(None) {
        let range = node.spec.clone().unwrap().pod_cidr;
        if !range.is_empty() {
            assert_eq!(state.node_with_pod_cidr(&range), Some(node));
            count += 1;
        }
    }
    for manager in state.list::<ManagerRecord>(None) {
        assert_eq!(state.manager_with_raft_id(manager.raft_id), Some(manager));
        count += 1;
    }
    assert_eq!(state.claims().count(), count);
    let limits = state.limits();
    assert!(state.count::<Event>() <= limits.events);
    let oldest = state.list::<Event>(None).map(|event| event.last_timestamp);
    let oldest = oldest.min_by_key(|time| time.map(|time| (time.seconds, time.nanos)));
    if let Some(Some(oldest)) = oldest {
        let after = Time {
            nanos: oldest.nanos + 1,
            ..oldest
        };
        assert!(!state.has_events_before(oldest) && state.has_events_before(after));
    }
    for event in state.list::<Event>(None) {
        let object = &event.involved_object.as_ref().unwrap().uid;
        assert!(state.owned_count::<Event>(object) <= limits.events_per_object);
    }
}
