#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! What may be seen and done of objects, by rights that fit in part.

use std::sync::Arc;

use barge_proto::v1::{ClusterRole, ClusterRoleBinding, ConfigMap, PolicyRule, RoleRef, Subject};
use barge_state::Kind as Recorded;

use super::*;
use crate::{security::rbac::Identity, store::transaction::Draft};

fn meta(namespace: &str, name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        uid: format!("{namespace}/{name}"),
        ..ObjectMeta::default()
    })
}

fn put<K: Recorded>(state: &mut State, record: K) {
    let mut draft = Draft::new();
    draft.put(record);
    let mut transaction = draft.build("test".to_owned(), None);
    // There is no cluster whose level could rise.
    transaction.feature_level = 0;
    ApiError::check(state.apply(1, transaction).outcome).unwrap();
}

/// A state in which alice may do this everywhere, and there is a ConfigMap shop/there.
fn with(verbs: &[&str], resource: &str) -> State {
    let mut state = State::default();
    put(
        &mut state,
        ClusterRole {
            metadata: meta("", "it"),
            rules: vec![PolicyRule {
                verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
                api_groups: vec!["*".to_owned()],
                resources: vec![resource.to_owned()],
                ..PolicyRule::default()
            }],
            ..ClusterRole::default()
        },
    );
    put(
        &mut state,
        ClusterRoleBinding {
            metadata: meta("", "it"),
            subjects: vec![Subject {
                kind: "User".to_owned(),
                name: "alice".to_owned(),
                ..Subject::default()
            }],
            role_ref: Some(RoleRef {
                kind: "ClusterRole".to_owned(),
                name: "it".to_owned(),
                ..RoleRef::default()
            }),
            ..ClusterRoleBinding::default()
        },
    );
    put(&mut state, config_map("there"));
    state
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: meta("shop", name),
        ..ConfigMap::default()
    }
}

fn alice() -> Access {
    Access::Bound(Arc::new(Identity {
        user: "alice".to_owned(),
        groups: vec![],
    }))
}

fn planned(object: impl Into<Object>, outcome: ApplyOutcome) -> Planned {
    let object = object.into();
    Planned {
        info: Registry::default().of(&object).unwrap(),
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        outcome,
        object: Some(object),
        warnings: Vec::new(),
    }
}

#[test]
fn creating_and_changing_are_two_rights() {
    let wanted = |verbs: &[&str], name: &str| {
        unwanted(
            &alice(),
            &with(verbs, "configmaps"),
            &Registry::default(),
            &config_map(name).into(),
        )
    };
    assert_eq!(wanted(&["create", "patch"], "there"), None);
    assert_eq!(wanted(&["create"], "new"), None);
    assert_eq!(wanted(&["patch"], "there"), None);
    let says = |verb: &str| Some(format!("alice may not {verb} configmaps in namespace shop"));
    assert_eq!(wanted(&["create"], "there"), says("patch"));
    assert_eq!(wanted(&["patch"], "new"), says("create"));
    // Whether it is there is not told who may do neither.
    for name in ["there", "new"] {
        assert_eq!(wanted(&["get"], name), says("create or patch"));
    }
}

#[test]
fn a_secret_that_was_read_without_its_values_is_not_put_back() {
    let wanted = |verbs: &[&str], resource_version: &str| {
        let mut secret = barge_proto::v1::Secret {
            metadata: meta("shop", "db"),
            ..Default::default()
        };
        let meta = secret.metadata.as_mut().unwrap();
        meta.resource_version = resource_version.to_owned();
        let state = with(verbs, "secrets");
        unwanted(&alice(), &state, &Registry::default(), &secret.into())
    };
    let refused = wanted(&["list", "patch", "create"], "7").unwrap();
    assert!(refused.contains("alice may not get secrets"), "{refused}");
    assert_eq!(wanted(&["list", "patch", "create"], ""), None);
    assert_eq!(wanted(&["get", "patch", "create"], "7"), None);
}

#[test]
fn a_plan_is_checked_by_what_it_does() {
    let state = with(&["create"], "configmaps");
    let check = |outcome| {
        let plan = [
            planned(config_map("there"), outcome),
            planned(config_map("b"), outcome),
        ];
        check_planned(&alice(), &state, &plan)
    };
    assert_eq!(check(ApplyOutcome::Created), Ok(()));
    // Created by somebody else since it was looked at; said once.
    let denied = "alice may not patch configmaps in namespace shop";
    for outcome in [ApplyOutcome::Configured, ApplyOutcome::Unchanged] {
        assert_eq!(check(outcome), Err(ApiError::Denied(denied.to_owned())));
    }
    assert_eq!(check_planned(&Access::Everything, &state, &[]), Ok(()));
    let plan = [planned(config_map("b"), ApplyOutcome::Created)];
    assert!(check_planned(&Access::Nothing, &state, &plan).is_err());
}

#[test]
fn what_a_plan_does_not_show_is_not_let_through() {
    let state = with(&["create"], "configmaps");
    let hidden = Planned {
        object: None,
        ..planned(config_map("b"), ApplyOutcome::Created)
    };
    assert!(check_planned(&alice(), &state, &[hidden]).is_err());
}

#[test]
fn a_role_as_it_was_gives_nobody_anything() {
    let state = with(&["patch"], "clusterroles");
    let wide = ClusterRole {
        metadata: meta("", "wide"),
        rules: vec![crate::security::rbac::review::everything()],
        ..ClusterRole::default()
    };
    let check = |outcome| check_planned(&alice(), &state, &[planned(wide.clone(), outcome)]);
    assert_eq!(check(ApplyOutcome::Unchanged), Ok(()));
    let refused = check(ApplyOutcome::Configured).unwrap_err().to_string();
    assert!(refused.contains("alice does not have (* *.*)"), "{refused}");
}

#[test]
fn who_scales_what_may_not_be_seen_sees_the_number() {
    let deployment = || {
        let mut it = Deployment {
            metadata: meta("shop", "web"),
            spec: Some(DeploymentSpec {
                replicas: Some(3),
                paused: true,
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        };
        it.meta_mut().labels.insert("tier".into(), "web".into());
        Object::from(it)
    };
    let seen = |verbs: &[&str]| scaled(&alice(), &with(verbs, "deployments"), deployment());
    assert_eq!(seen(&["get"]), deployment());
    let Some(object::Kind::Deployment(part)) = seen(&["list"]).kind else {
        panic!("another kind");
    };
    assert!(part.meta().labels.is_empty());
    let spec = part.spec.unwrap();
    assert_eq!((spec.replicas, spec.paused), (Some(3), false));

    let set = Object::from(ReplicaSet {
        metadata: meta("shop", "web"),
        spec: Some(ReplicaSetSpec {
            replicas: Some(2),
            min_ready_seconds: 9,
            ..ReplicaSetSpec::default()
        }),
        ..ReplicaSet::default()
    });
    let seen = scaled(&alice(), &with(&["list"], "replicasets"), set);
    let Some(object::Kind::ReplicaSet(part)) = seen.kind else {
        panic!("another kind");
    };
    let spec = part.spec.unwrap();
    assert_eq!((spec.replicas, spec.min_ready_seconds), (Some(2), 0));
}

#[test]
fn a_list_of_one_needs_the_right_to_that_one() {
    let kind = Kind::ConfigMap.into();
    assert_eq!(name_selected(kind, "metadata.name=web"), "web");
    assert_eq!(name_selected(kind, "metadata.name!=web"), "");
    assert_eq!(name_selected(kind, "nonsense"), "");
    assert_eq!(name_selected(99, ""), "");
}
