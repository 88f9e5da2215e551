#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! The list of roots through a rotation, and who believes whom meanwhile.

use barge_client::{
    identity::Identity,
    tls::{ShownRoots, provider, root_store},
};
use barge_proto::v1::{ObjectMeta, Role};
use rustls::{
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::*;
use crate::{
    pki::chain,
    pki::{Subject, authority::LEAF_LIFE},
};

fn cluster(authority: &Authority, key: &SealingKey) -> ClusterRecord {
    ClusterRecord {
        metadata: Some(ObjectMeta {
            name: "cluster".to_owned(),
            uid: "c".to_owned(),
            ..ObjectMeta::default()
        }),
        roots: vec![authority.root().to_vec()],
        sealed_ca_key: key.seal(Purpose::AuthorityKey, authority.key()).unwrap(),
        ..ClusterRecord::default()
    }
}

/// A manager with a certificate as the cluster's record has it issued.
fn manager(cluster: &ClusterRecord, key: &SealingKey) -> Identity {
    let ca_key = key
        .open(Purpose::AuthorityKey, &cluster.sealed_ca_key)
        .unwrap();
    let authority = Authority::open(&cluster.roots[0], &ca_key).unwrap();
    let subject = Subject {
        cluster_id: "c".to_owned(),
        role: Role::Manager,
        uid: "m".to_owned(),
        raft_id: Some(1),
    };
    let (key, leaf) = authority
        .issue_with_new_key(&subject, SystemTime::now(), LEAF_LIFE)
        .unwrap();
    Identity {
        cluster_id: "c".to_owned(),
        role: Role::Manager,
        uid: "m".to_owned(),
        key: key.serialize_pem(),
        chain: chain(cluster, leaf),
        roots: cluster.roots.iter().map(|r| r.clone().into()).collect(),
        members: Vec::new(),
    }
}

fn believes(roots: &[Vec<u8>], manager: &Identity) -> bool {
    let roots: Vec<CertificateDer<'static>> = roots.iter().map(|r| r.clone().into()).collect();
    let roots = Arc::new(root_store(&roots).unwrap());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .unwrap();
    let shown = manager.presented_chain();
    let name = ServerName::try_from("manager.barge").unwrap();
    verifier
        .verify_server_cert(&shown[0], &shown[1..], &name, &[], UnixTime::now())
        .is_ok()
}

fn request(cluster: &ClusterRecord) -> RotateCaRequest {
    RotateCaRequest {
        replaces_sha256: ca_digest(&cluster.roots[0]).to_vec(),
        ..RotateCaRequest::default()
    }
}

#[test]
fn everybody_is_believed_until_the_old_root_goes() {
    let key = SealingKey::generate();
    let old = Authority::create("c", SystemTime::now()).unwrap();
    let before = cluster(&old, &key);
    let spreading = begun(before.clone(), &key, &request(&before), SystemTime::now())
        .unwrap()
        .unwrap();
    let renewing = signing(&spreading, clock::now());
    let after = finished(&renewing, CaProgress::default(), clock::now());
    let new = after.roots.clone();
    assert_eq!(
        spreading.roots,
        [before.roots.clone(), new.clone()].concat()
    );
    assert_eq!(renewing.roots, [new.clone(), before.roots.clone()].concat());
    assert_eq!((after.roots.len(), &after.ca_rotation), (1, &None));

    // Who has only the old root goes on, also with a token that pins it; who has both, always.
    for now in [&before, &spreading, &renewing] {
        let manager = manager(now, &key);
        assert!(believes(&before.roots, &manager), "{:?}", now.ca_rotation);
        assert!(believes(&spreading.roots, &manager));
        let pinned = ca_digest(&before.roots[0]);
        let shown = manager.presented_chain();
        assert!(shown[1..].iter().any(|der| ca_digest(der) == pinned));
    }
    let renewed = manager(&renewing, &key);
    assert!(believes(&new, &renewed));
    let last = manager(&after, &key);
    assert!(believes(&new, &last) && !believes(&before.roots, &last));
    assert!(!believes(&new, &manager(&before, &key)));
    // What a manager shows in its handshake is the list.
    assert_eq!(renewed.presented_chain().len(), 4);
}

#[test]
fn asking_again_changes_nothing_but_the_times() {
    let key = SealingKey::generate();
    let old = Authority::create("c", SystemTime::now()).unwrap();
    let before = cluster(&old, &key);
    let request = request(&before);
    let now = SystemTime::now();
    let going = begun(before, &key, &request, now).unwrap().unwrap();
    assert_eq!(begun(going.clone(), &key, &request, now).unwrap(), None);
    let hurry = RotateCaRequest {
        overlap_seconds: Some(0),
        leave_behind_seconds: Some(0),
        ..request.clone()
    };
    let hurried = begun(going.clone(), &key, &hurry, now).unwrap().unwrap();
    let rotation = hurried.ca_rotation.clone().unwrap();
    assert_eq!(rotation.overlap_seconds, 0);
    assert_eq!(rotation.leave_behind_after, Some(clock::time(now)));
    assert_eq!(hurried.roots, going.roots);
    // One that comes late, when it is over, begins no other.
    let done = finished(
        &signing(&going, clock::now()),
        CaProgress::default(),
        clock::now(),
    );
    assert_eq!(begun(done, &key, &request, now).unwrap(), None);
}

#[test]
fn the_list_is_what_is_shown() {
    let key = SealingKey::generate();
    let old = Authority::create("c", SystemTime::now()).unwrap();
    let before = cluster(&old, &key);
    let spreading = begun(before.clone(), &key, &request(&before), SystemTime::now())
        .unwrap()
        .unwrap();
    let renewing = signing(&spreading, clock::now());
    let manager = manager(&renewing, &key);
    let digest = barge_client::identity::roots_sha256(&manager.roots);
    assert_eq!(digest, roots_sha256(&renewing.roots));
    assert_ne!(digest, roots_sha256(&spreading.roots));
    assert!(!ShownRoots::default().differ_from(&manager.roots));
}

#[test]
fn tokens_that_pin_the_old_root_are_known() {
    let mut draft = Draft::new();
    for (name, seconds) in [("before", 10), ("after", 30)] {
        draft.put(TokenRecord {
            metadata: Some(ObjectMeta {
                name: name.to_owned(),
                uid: name.to_owned(),
                creation_timestamp: Some(Time { seconds, nanos: 0 }),
                ..ObjectMeta::default()
            }),
            ..TokenRecord::default()
        });
    }
    let mut state = State::default();
    state.apply(1, draft.build("test".to_owned(), None));
    let rotation = CaRotation {
        signs_since: Some(Time {
            seconds: 20,
            nanos: 0,
        }),
        ..CaRotation::default()
    };
    assert_eq!(tokens_before(&state, &rotation), ["before"]);
}
