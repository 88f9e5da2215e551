#![allow(clippy::unwrap_used)]
use barge_proto::v1::ObjectMeta;

use super::*;

fn pod(uid: &str) -> Pod {
    Pod {
        metadata: Some(ObjectMeta {
            uid: uid.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn tombstone(uid: &str) -> DeletedPod {
    DeletedPod {
        uid: uid.into(),
        ..Default::default()
    }
}

fn full(revision: u64, uids: &[&str]) -> Assignment {
    Assignment {
        revision,
        full: true,
        pods: uids.iter().map(|uid| pod(uid)).collect(),
        ..Default::default()
    }
}

#[test]
fn a_full_set_replaces_and_a_difference_adds_and_removes() {
    let (desired, touched) = Desired::default()
        .apply(full(5, &["a", "b"]), false)
        .unwrap();
    assert!(touched.pods && !touched.network);
    assert_eq!(desired.epoch, 1);
    let difference = Assignment {
        revision: 6,
        pods: vec![pod("c")],
        removed_pod_uids: vec!["a".into()],
        ..Default::default()
    };
    let (desired, _) = desired.apply(difference, true).unwrap();
    assert_eq!(desired.pods.keys().collect::<Vec<_>>(), ["b", "c"]);
    let (desired, touched) = desired.apply(full(6, &["b", "c"]), false).unwrap();
    assert!(!touched.pods && !touched.network && !touched.configuration);
    let tombstones = ["b", "c"].map(tombstone).to_vec();
    let replacement = Assignment {
        tombstones,
        ..full(9, &["z"])
    };
    let (desired, _) = desired.apply(replacement, false).unwrap();
    assert_eq!(desired.pods.keys().collect::<Vec<_>>(), ["z"]);
    assert_eq!(Vec::from_iter(&desired.deleted), ["a", "b", "c"]);
}

#[test]
fn a_full_set_without_a_pod_and_without_its_tombstone_leaves_it() {
    let (desired, _) = Desired::default()
        .apply(full(5, &["a", "b"]), false)
        .unwrap();
    let (desired, touched) = desired.apply(full(9, &["b"]), false).unwrap();
    assert!(touched.pods);
    assert_eq!(desired.pods.len(), 2);
    assert_eq!(Vec::from_iter(&desired.unknown), ["a"]);
    assert!(desired.deleted.is_empty());
    // The managers know it after all.
    let (known, _) = desired.apply(full(9, &["a", "b"]), false).unwrap();
    assert!(known.unknown.is_empty());
    // Its deletion is recorded.
    let deletion = Assignment {
        tombstones: vec![tombstone("a")],
        ..full(10, &["b"])
    };
    let (desired, _) = desired.apply(deletion, false).unwrap();
    assert_eq!(desired.pods.keys().collect::<Vec<_>>(), ["b"]);
    assert!(desired.unknown.is_empty());
    assert_eq!(Vec::from_iter(&desired.deleted), ["a"]);
}

#[test]
fn a_deletion_is_remembered_until_the_managers_know_that_the_pod_is_gone() {
    let (desired, _) = Desired::default()
        .apply(full(5, &["a", "b"]), false)
        .unwrap();
    let removal = Assignment {
        revision: 6,
        removed_pod_uids: vec!["a".into(), "never here".into()],
        ..Default::default()
    };
    let (desired, _) = desired.apply(removal.clone(), true).unwrap();
    assert_eq!(Vec::from_iter(&desired.deleted), ["a"]);
    // Of a state that is older than the pod and its deletion.
    let (mut desired, _) = desired.apply(full(7, &["b"]), false).unwrap();
    assert_eq!(Vec::from_iter(&desired.deleted), ["a"]);
    assert!(desired.confirm(&["a".into(), "b".into()]));
    assert!(desired.pods.is_empty() && desired.deleted.is_empty());
    // Acknowledged first, removed second: nothing is left to remember.
    let removal = Assignment {
        revision: 8,
        ..removal
    };
    let (desired, touched) = desired.apply(removal, true).unwrap();
    assert!(desired.deleted.is_empty() && !touched.pods);
}

#[test]
fn a_tombstone_in_a_difference_is_confirmed_even_of_a_pod_that_was_never_here() {
    let (desired, _) = Desired::default()
        .apply(full(5, &["a", "b"]), false)
        .unwrap();
    let difference = Assignment {
        revision: 6,
        removed_pod_uids: vec!["a".into(), "never here".into()],
        tombstones: ["a", "never here"].map(tombstone).to_vec(),
        ..Default::default()
    };
    let (desired, touched) = desired.apply(difference, true).unwrap();
    assert!(touched.pods);
    assert_eq!(Vec::from_iter(desired.pods.keys()), ["b"]);
    assert_eq!(Vec::from_iter(&desired.deleted), ["a", "never here"]);
}

#[test]
fn differences_will_do_for_a_node_that_has_all_of_a_full_set() {
    let from_disk = Desired {
        revision: 4,
        ..Desired::default()
    };
    assert_eq!(from_disk.held(), None);
    let (desired, _) = from_disk.apply(full(5, &["a"]), false).unwrap();
    assert_eq!(desired.held(), Some(Held::default()));
    let (unsure, _) = desired.apply(full(6, &[]), false).unwrap();
    assert_eq!(unsure.held(), None, "the managers lack a pod");
    // Welcomed in another life, it has nothing of that before the full set.
    let mut next = desired;
    next.welcome = Some(Arc::new(Welcome {
        life: "2".into(),
        ..Welcome::default()
    }));
    assert_eq!(next.held(), Some(Held::default()));
    let (next, _) = next.apply(full(7, &["a"]), false).unwrap();
    assert_eq!(next.held(), Some(Held { life: "2".into() }));
}

#[test]
fn a_deleted_node_s_pods_end_and_unknown_ones_run_on() {
    let (desired, _) = Desired::default()
        .apply(full(5, &["a", "b"]), false)
        .unwrap();
    let (mut desired, _) = desired.apply(full(6, &["a"]), false).unwrap();
    assert!(!desired.has_left());
    desired.leave();
    assert!(desired.has_left());
    assert_eq!(Vec::from_iter(&desired.deleted), ["a"]);
    assert_eq!(Vec::from_iter(desired.pods.keys()), ["b"]);
}

#[test]
fn what_is_older_or_baseless_is_refused() {
    let (desired, _) = Desired::default().apply(full(5, &["a"]), false).unwrap();
    assert_eq!(
        desired.apply(full(4, &[]), false).unwrap_err(),
        Refused::Older {
            offered: 4,
            acted: 5
        }
    );
    let difference = Assignment {
        revision: 7,
        ..Default::default()
    };
    assert_eq!(
        desired.apply(difference, false).unwrap_err(),
        Refused::NoFullSet
    );
}

#[test]
fn it_is_known_at_which_revision_a_pod_of_this_node_left_its_endpoints() {
    use barge_proto::v1::{EndpointAddress, EndpointSubset, ObjectReference};

    let endpoints = |uid: &str, pods: &[&str]| {
        let addresses = pods.iter().map(|pod| EndpointAddress {
            node_name: "node".into(),
            target_ref: Some(ObjectReference {
                uid: (*pod).into(),
                ..Default::default()
            }),
            ..Default::default()
        });
        Endpoints {
            metadata: Some(ObjectMeta {
                uid: uid.into(),
                ..Default::default()
            }),
            subsets: vec![EndpointSubset {
                addresses: addresses.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    };
    let node = Node {
        metadata: Some(ObjectMeta {
            name: "node".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let welcomed = Desired {
        welcome: Some(Arc::new(Welcome {
            node: Some(node),
            ..Welcome::default()
        })),
        ..Desired::default()
    };
    let first = Assignment {
        endpoints: vec![endpoints("web", &["a", "b"]), endpoints("other", &["b"])],
        ..full(5, &["a", "b"])
    };
    let (desired, _) = welcomed.apply(first, false).unwrap();
    assert_eq!(desired.serving.place("a"), Place::Serves);
    assert_eq!(desired.network_revision, 5);
    let gone = Assignment {
        revision: 7,
        endpoints: vec![endpoints("web", &["b"])],
        removed_endpoints_uids: vec!["other".into()],
        ..Default::default()
    };
    let (desired, _) = desired.apply(gone, true).unwrap();
    assert_eq!(desired.serving.place("a"), Place::Left(7));
    assert_eq!(desired.serving.place("b"), Place::Serves);
    // A full set without the Endpoints; the deletion of one pod is recorded in it.
    let last = Assignment {
        tombstones: vec![tombstone("b")],
        ..full(9, &["a"])
    };
    let (mut desired, _) = desired.apply(last, false).unwrap();
    assert_eq!(desired.serving.place("a"), Place::Left(7));
    assert_eq!(desired.serving.place("b"), Place::Left(9));
    // A start does not know when pods left that end now.
    desired.serving = Serving::default();
    desired.find_places();
    assert_eq!(desired.serving.place("a"), Place::Nowhere);
    assert_eq!(desired.serving.place("b"), Place::Left(9));
}
