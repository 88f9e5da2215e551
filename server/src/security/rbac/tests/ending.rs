//! A binding or role that is being deleted in slices exists for a while, and gives no rights.

use barge_proto::v1::{
    ClusterRecord, ConfigMap, CredentialIdentity, CredentialRecord, OwnerReference, ServiceAccount,
    ServiceAccountRef,
};
use barge_state::{LOSS, RecordKind};

use super::*;
use crate::security::rbac::identity::has_account;

/// Deletes a record that owns so much that it stays, marked, until that is dealt with.
fn begin_to_delete<K: Kind>(state: &mut State, record: &K) {
    let meta = |name: &str| ObjectMeta {
        name: name.to_owned(),
        uid: name.to_owned(),
        ..ObjectMeta::default()
    };
    let mut draft = Draft::new();
    draft.put(ClusterRecord {
        metadata: Some(meta("cluster")),
        feature_level: LOSS,
        ..ClusterRecord::default()
    });
    ApiError::check(state.apply(1, draft.build("test".to_owned(), None)).outcome).unwrap();
    let mut draft = Draft::new();
    for number in 0..501 {
        let mut owned = ConfigMap {
            metadata: Some(meta(&format!("owned-{number}"))),
            ..ConfigMap::default()
        };
        owned.meta_mut().namespace = "shop".to_owned();
        owned.meta_mut().owner_references = vec![OwnerReference {
            kind: K::KIND.name().to_owned(),
            name: record.meta().name.clone(),
            uid: record.uid().to_owned(),
            ..OwnerReference::default()
        }];
        draft.put(owned);
    }
    draft.remove::<K>(record.uid());
    ApiError::check(state.apply(1, draft.build("test".to_owned(), None)).outcome).unwrap();
    assert!(
        state.by_uid::<K>(record.uid()).is_some(),
        "it stays, marked"
    );
}

#[test]
fn what_is_being_deleted_gives_nothing() {
    fn gives_until_deleted<K: Kind>(record: &K) {
        let mut state = state();
        put(&mut state, role("shop", "reader", &["get '' pods"]));
        put(&mut state, cluster_role("all", &["get '' secrets"]));
        put(
            &mut state,
            binding("shop", "a", "User alice", "Role reader"),
        );
        put(&mut state, everywhere("b", "User alice", "ClusterRole all"));
        let asked = match K::KIND {
            RecordKind::Role | RecordKind::RoleBinding => "get pods shop/web",
            _ => "get secrets shop/db",
        };
        assert!(may(&state, &who("alice", &[]), asked));
        begin_to_delete(&mut state, record);
        assert!(!may(&state, &who("alice", &[]), asked), "{:?}", K::KIND);
    }
    gives_until_deleted(&role("shop", "reader", &[]));
    gives_until_deleted(&cluster_role("all", &[]));
    gives_until_deleted(&binding("shop", "a", "User alice", "Role reader"));
    gives_until_deleted(&everywhere("b", "User alice", "ClusterRole all"));
}

#[test]
fn a_service_account_that_is_being_deleted_is_nobody() {
    let mut state = state();
    let account = ServiceAccount {
        metadata: meta("shop", "ci"),
        ..ServiceAccount::default()
    };
    put(&mut state, account.clone());
    let credential = CredentialRecord {
        identity: Some(CredentialIdentity {
            groups: Vec::new(),
            service_account: Some(ServiceAccountRef {
                namespace: "shop".to_owned(),
                name: "ci".to_owned(),
                uid: account.uid().to_owned(),
            }),
        }),
        ..CredentialRecord::default()
    };
    assert!(has_account(&state, &credential));
    begin_to_delete(&mut state, &account);
    assert!(!has_account(&state, &credential));
}
