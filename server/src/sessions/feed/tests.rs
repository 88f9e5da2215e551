#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! What a node hears of, and what it does not.

use barge_proto::v1::{
    Bind, ClusterRecord, ConfigMapEnvSource, Container, EnvFromSource, Namespace, NodeSpec,
    NodeStatus, ObjectMeta, PodSpec, PodStatus, PodTemplateSpec, Quantity, Revision, TerminatePod,
    change::Change as Action,
};

use barge_state::PODS;

use super::*;
use crate::sessions::needs::{self, Needs};
use crate::store::transaction::Draft;

fn meta(namespace: &str, uid: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        namespace: namespace.to_owned(),
        name: uid.to_owned(),
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    })
}

fn node(uid: &str, range: &str) -> Node {
    let amount = |value: &str| Quantity {
        value: value.to_owned(),
    };
    Node {
        metadata: meta("", uid),
        spec: Some(NodeSpec {
            pod_cidr: range.to_owned(),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            allocatable: [("cpu", "4"), ("memory", "8Gi"), ("pods", "110")]
                .map(|(name, value)| (name.to_owned(), amount(value)))
                .into(),
            conditions: vec![barge_proto::v1::Condition {
                r#type: "Ready".to_owned(),
                status: "True".to_owned(),
                ..barge_proto::v1::Condition::default()
            }],
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

fn apply(state: &mut State, fill: impl FnOnce(&mut Draft)) -> Vec<Changed> {
    let mut draft = Draft::new();
    fill(&mut draft);
    let applied = state.apply(1, draft.build("test".to_owned(), None));
    assert_eq!(applied.outcome.refusal, None);
    assert!(applied.outcome.binds.iter().all(String::is_empty));
    applied.changes
}

fn put_pod(draft: &mut Draft, uid: &str) {
    draft.put(PodRecord {
        metadata: meta("default", uid),
        template_uid: "t".to_owned(),
        ..PodRecord::default()
    });
}

fn bind(draft: &mut Draft, pod: &str, node: &str) {
    draft.change(Action::Bind(Bind {
        pod_uid: pod.to_owned(),
        node_uid: node.to_owned(),
    }));
}

fn beginning() -> State {
    let mut state = State::default();
    apply(&mut state, |draft| {
        draft.put(ClusterRecord {
            metadata: meta("", "cluster"),
            feature_level: barge_state::LEVEL,
            ..ClusterRecord::default()
        });
        draft.put(Namespace {
            metadata: meta("", "default"),
            ..Namespace::default()
        });
        draft.put(node("n1", "10.244.0.0/24"));
        draft.put(node("n2", "10.244.1.0/24"));
        draft.put(Revision {
            metadata: meta("default", "t"),
            number: 1,
            template: Some(PodTemplateSpec::default()),
        });
        put_pod(draft, "p1");
        bind(draft, "p1", "n1");
    });
    state
}

fn render(state: &State, news: News, node: &str) -> Assignment {
    let node = state.by_uid::<Node>(node).unwrap().clone();
    let (assignment, more) = news.parts(node, usize::MAX).next_part();
    assert!(!more);
    assignment
}

fn told(state: &State, changes: &[Changed], node: &str) -> Option<Assignment> {
    let mut news = News::new(PODS);
    changes.iter().for_each(|change| news.add(change, node));
    (!news.is_empty()).then(|| render(state, news, node))
}

fn full(state: &State, node: &str) -> Assignment {
    render(state, News::full(state, node, PODS), node)
}

#[test]
fn other_labels_and_annotations_of_a_pod_are_told_and_its_owners_are_not() {
    let mut state = beginning();
    let mut change = |edit: &dyn Fn(&mut PodRecord)| {
        let mut record = state.by_uid::<PodRecord>("p1").unwrap().record();
        edit(&mut record);
        let changes = apply(&mut state, |draft| {
            draft.change(Action::Put(record.into_record()));
        });
        let here = told(&state, &changes, "n1").map(|it| it.pods[0].metadata.clone().unwrap());
        assert!(told(&state, &changes, "n2").is_none());
        here
    };
    let pair = ("app".to_owned(), "debug".to_owned());
    let pair = || [pair.clone()].into();
    let labelled = change(&|pod| pod.metadata.as_mut().unwrap().labels = pair());
    assert_eq!(labelled.unwrap().labels, pair());
    let noted = change(&|pod| pod.metadata.as_mut().unwrap().annotations = pair());
    assert_eq!(noted.unwrap().annotations, pair());
    let back = change(&|pod| pod.metadata.as_mut().unwrap().labels.clear());
    assert!(back.unwrap().labels.is_empty());
    let owner = barge_proto::v1::OwnerReference::default();
    let owned = change(&|pod| {
        let owners = &mut pod.metadata.as_mut().unwrap().owner_references;
        owners.push(owner.clone());
    });
    assert!(owned.is_none());
}

#[test]
fn the_first_set_is_the_nodes_own_pods_and_the_other_nodes() {
    let state = beginning();
    let first = full(&state, "n1");
    assert_eq!(first.pods.len(), 1);
    assert_eq!(first.peers.len(), 1);
    assert_eq!(first.peers[0].node_uid, "n2");
    assert!(full(&state, "n2").pods.is_empty());
}

#[test]
fn a_pod_concerns_the_node_that_it_is_bound_to() {
    let mut state = beginning();
    let changes = apply(&mut state, |draft| {
        put_pod(draft, "p2");
        bind(draft, "p2", "n2");
    });
    assert_eq!(told(&state, &changes, "n1"), None);
    let assignment = told(&state, &changes, "n2").unwrap();
    let [pod] = assignment.pods.as_slice() else {
        panic!("{assignment:?}");
    };
    let of_state = state.by_uid::<PodRecord>("p2").unwrap();
    assert_eq!(*pod, state.pod(of_state), "whole");
}

#[test]
fn what_the_agent_reported_is_not_told_back_but_an_order_is() {
    let mut state = beginning();
    let changes = apply(&mut state, |draft| {
        draft.put_status(PodRecord {
            metadata: meta("default", "p1"),
            status: Some(PodStatus {
                phase: "Running".to_owned(),
                ..PodStatus::default()
            }),
            ..PodRecord::default()
        });
    });
    assert!(!changes.is_empty());
    assert_eq!(told(&state, &changes, "n1"), None);
    let changes = apply(&mut state, |draft| {
        draft.change(Action::TerminatePod(TerminatePod {
            uid: "p1".to_owned(),
            ..TerminatePod::default()
        }));
    });
    let pods = told(&state, &changes, "n1").unwrap().pods;
    assert!(
        pods[0]
            .metadata
            .as_ref()
            .unwrap()
            .deletion_timestamp
            .is_some()
    );
}

#[test]
fn a_removed_pod_is_told_even_when_its_end_is_seen_with_its_beginning() {
    let mut state = beginning();
    let mut changes = apply(&mut state, |draft| {
        put_pod(draft, "p3");
        bind(draft, "p3", "n1");
    });
    changes.extend(apply(&mut state, |draft| draft.remove::<PodRecord>("p3")));
    let assignment = told(&state, &changes, "n1").unwrap();
    assert!(assignment.pods.is_empty());
    assert_eq!(assignment.removed_pod_uids, ["p3"]);
}

#[test]
fn a_full_set_names_the_deletions_that_the_node_has_not_confirmed() {
    let mut state = beginning();
    let changes = apply(&mut state, |draft| draft.remove::<PodRecord>("p1"));
    let difference = told(&state, &changes, "n1").unwrap();
    assert_eq!(difference.removed_pod_uids, ["p1"]);
    // An agent that never heard of the pod has to confirm all the same.
    assert_eq!(difference.tombstones[0].uid, "p1");
    assert_eq!(told(&state, &changes, "n2"), None);
    let first = full(&state, "n1");
    assert!(first.pods.is_empty());
    assert_eq!(first.tombstones, difference.tombstones);
    let tombstone = &first.tombstones[0];
    assert_eq!(
        (tombstone.uid.as_str(), tombstone.namespace.as_str()),
        ("p1", "default")
    );
    assert!(tombstone.revision > 0 && tombstone.revision <= state.revision());
    assert!(full(&state, "n2").tombstones.is_empty());
}

#[test]
fn services_and_peers_concern_every_node() {
    let mut state = beginning();
    let changes = apply(&mut state, |draft| {
        draft.put(Service {
            metadata: meta("default", "s"),
            ..Service::default()
        });
        draft.remove::<Node>("n2");
    });
    let assignment = told(&state, &changes, "n1").unwrap();
    assert_eq!(assignment.services.len(), 1);
    assert_eq!(assignment.removed_peer_uids, ["n2"]);
}

#[test]
fn what_came_since_is_told_as_it_is_last() {
    let mut state = beginning();
    let mut changes = apply(&mut state, |draft| {
        put_pod(draft, "p4");
        bind(draft, "p4", "n1");
        draft.put(Service {
            metadata: meta("default", "s"),
            ..Service::default()
        });
    });
    changes.extend(apply(&mut state, |draft| {
        draft.put_status(PodRecord {
            metadata: meta("default", "p4"),
            status: Some(PodStatus {
                phase: "Running".to_owned(),
                ..PodStatus::default()
            }),
            ..PodRecord::default()
        });
        draft.remove::<Service>("s");
    }));
    let assignment = told(&state, &changes, "n1").unwrap();
    assert_eq!(assignment.pods[0].status.as_ref().unwrap().phase, "Running");
    assert_eq!(assignment.removed_service_uids, ["s"]);
    assert!(assignment.services.is_empty());
}

#[test]
fn a_large_set_is_told_in_parts_that_are_bounded_and_complete() {
    let mut state = beginning();
    for number in 0..40 {
        let name = format!("s{number:02}");
        apply(&mut state, |draft| {
            draft.put(Service {
                metadata: Some(ObjectMeta {
                    annotations: [("a".to_owned(), "x".repeat(1000))].into(),
                    ..meta("default", &name).unwrap()
                }),
                ..Service::default()
            });
        });
    }
    let whole = full(&state, "n1");
    let node = state.by_uid::<Node>("n1").unwrap().clone();
    let mut parts = News::full(&state, "n1", PODS).parts(node, 4096);
    let mut together = Assignment::default();
    for count in 1.. {
        let (part, more) = parts.next_part();
        assert!(part.encoded_len() < 4096 + 1200);
        together.merge(part.encode_to_vec().as_slice()).unwrap();
        if !more {
            assert!(count >= 10, "{count} parts");
            break;
        }
    }
    assert_eq!(together, whole);
}

/// A template of pods that take all variables of the ConfigMap `web`.
fn put_needy(draft: &mut Draft) {
    let container = Container {
        env_from: vec![EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource {
                name: "web".to_owned(),
                optional: None,
            }),
            ..EnvFromSource::default()
        }],
        ..Container::default()
    };
    draft.put(Revision {
        metadata: meta("default", "needy"),
        number: 1,
        template: Some(PodTemplateSpec {
            spec: Some(PodSpec {
                containers: vec![container],
                ..PodSpec::default()
            }),
            ..PodTemplateSpec::default()
        }),
    });
    draft.put(PodRecord {
        metadata: meta("default", "p2"),
        template_uid: "needy".to_owned(),
        ..PodRecord::default()
    });
    bind(draft, "p2", "n1");
}

#[test]
fn what_pods_of_a_node_use_follows_from_their_templates() {
    let mut state = beginning();
    assert!(needs::of_node(&state, "n1").is_empty());
    let changes = apply(&mut state, put_needy);
    let web = (Source::ConfigMap, "default".to_owned(), "web".to_owned());
    let account = (
        Source::ServiceAccount,
        "default".to_owned(),
        "default".to_owned(),
    );
    let used = [web.clone(), account.clone()];
    assert_eq!(needs::of_node(&state, "n1"), used.clone().into());
    let told = Needs::told([account].into(), 1);
    assert!(told.have(&used[1..]) && !told.have(&used));
    assert!(needs::of_node(&state, "n2").is_empty());
    let of_changes = |node: &str| -> Vec<Need> {
        let needs = changes.iter().map(|it| needs::of_change(it, node));
        needs.flatten().collect()
    };
    assert!(of_changes("n1").contains(&web));
    assert!(of_changes("n2").is_empty());
}

#[test]
fn configuration_goes_before_pods_and_an_older_agent_gets_neither() {
    let mut state = beginning();
    let changes = apply(&mut state, put_needy);
    let mut news = News::full(&state, "n1", PODS);
    let web = ConfigMap {
        metadata: meta("default", "web"),
        data: [("a".to_owned(), "b".repeat(10_000))].into(),
        ..ConfigMap::default()
    };
    let need = (Source::ConfigMap, "default".to_owned(), "web".to_owned());
    news.put_configuration(need, Found::ConfigMap(Arc::new(web)));
    let node = state.by_uid::<Node>("n1").unwrap().clone();
    let (first, more) = news.parts(node, 4096).next_part();
    assert!(more && first.pods.is_empty());
    assert_eq!(first.config_maps.len(), 1);

    let older = render(&state, News::full(&state, "n1", 0), "n1");
    let uids = older
        .pods
        .iter()
        .map(|pod| pod.metadata.clone().unwrap().uid);
    assert_eq!(uids.collect::<Vec<_>>(), ["p1"]);
    let mut news = News::new(0);
    changes.iter().for_each(|change| news.add(change, "n1"));
    assert!(news.is_empty());
}

#[test]
fn a_change_is_told_once_and_only_if_it_is_newer() {
    let mut state = beginning();
    let name = |name: &str| (Source::ConfigMap, "default".to_owned(), name.to_owned());
    let put = |draft: &mut Draft| {
        draft.put(ConfigMap {
            metadata: meta("default", "web"),
            ..ConfigMap::default()
        });
    };
    let before = state.revision();
    let made = apply(&mut state, put);
    let mut needs = Needs::told([name("web")].into(), before);
    assert!(needs.hear(&made[0]).is_some());
    assert!(needs.hear(&made[0]).is_none(), "it was told of that");
    let mut up_to_date = Needs::told([name("web")].into(), state.revision());
    assert!(up_to_date.hear(&made[0]).is_none());
    let mut others = Needs::told([name("db")].into(), before);
    assert!(others.hear(&made[0]).is_none());
    let (new, gone) = others.replace(&[name("web")].into(), state.revision());
    assert_eq!((new, gone), (vec![name("web")], vec![name("db")]));
}
