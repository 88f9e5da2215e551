#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use barge_proto::v1::{ConfigMap, DeleteRecord, DeletionPropagation, change::Change as Action};
use barge_state::{Kind as _, RecordKind};

use super::*;
use crate::store::transaction::Draft;

fn config_map(name: &str, owner: &str) -> ConfigMap {
    ConfigMap {
        metadata: Some(ObjectMeta {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            owner_references: vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                name: owner.to_owned(),
                uid: owner.to_owned(),
                block_owner_deletion: Some(true),
                ..OwnerReference::default()
            }],
            ..ObjectMeta::default()
        }),
        ..ConfigMap::default()
    }
}

#[test]
fn nothing_new_belongs_to_an_owner_that_is_being_deleted() {
    // Two that wait for each other.
    let mut draft = Draft::new();
    draft.put(config_map("one", "two"));
    draft.put(config_map("two", "one"));
    draft.change(Action::Delete(DeleteRecord {
        target: Some(RecordRef {
            kind: RecordKind::ConfigMap.number(),
            uid: "one".to_owned(),
            ..RecordRef::default()
        }),
        propagation: DeletionPropagation::Foreground.into(),
    }));
    let mut state = State::default();
    let outcome = state.apply(1, draft.build("t".to_owned(), None)).outcome;
    assert_eq!(outcome.refusal, None);
    let new = config_map("new", "one");
    let known = new.meta().clone();
    let refused =
        check_owners(&state, &Registry::default(), &new.clone().into(), None).unwrap_err();
    assert!(matches!(refused, ApiError::Conflict(_)), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("ConfigMap one is being deleted"),
        "{refused}"
    );
    check_owners(&state, &Registry::default(), &new.into(), Some(&known)).unwrap();
}
