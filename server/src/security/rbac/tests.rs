#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Who may do what: cases by hand, and random bindings against a simple model.

use barge_proto::{
    kinds::KINDS,
    v1::{
        ClusterRole, ClusterRoleBinding, Namespace, Object, ObjectMeta, PolicyRule, RbacRole,
        RoleBinding, RoleRef, Subject,
    },
};
use barge_state::{Kind, State};

use super::{Asked, BARGE, GROUP, Identity, Review, builtin, grants, rule};
use crate::{error::ApiError, store::transaction::Draft};

mod ending;
mod property;

fn words(text: &str) -> Vec<String> {
    let words = text
        .split(',')
        .map(|word| word.trim_matches('\'').to_owned());
    words.collect()
}

/// "get,list apps deployments" or, with names, "get apps deployments web,api"; the core group is ''.
fn rule_of(text: &str) -> PolicyRule {
    let parts: Vec<_> = text.split(' ').collect();
    PolicyRule {
        verbs: words(parts[0]),
        api_groups: words(parts[1]),
        resources: words(parts[2]),
        resource_names: parts.get(3).map(|names| words(names)).unwrap_or_default(),
    }
}

fn rules_of(texts: &[&str]) -> Vec<PolicyRule> {
    texts.iter().map(|text| rule_of(text)).collect()
}

fn meta(namespace: &str, name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        uid: format!("{namespace}/{name}"),
        ..ObjectMeta::default()
    })
}

fn role(namespace: &str, name: &str, rules: &[&str]) -> RbacRole {
    RbacRole {
        metadata: meta(namespace, name),
        rules: rules_of(rules),
        ..RbacRole::default()
    }
}

fn cluster_role(name: &str, rules: &[&str]) -> ClusterRole {
    ClusterRole {
        metadata: meta("", name),
        rules: rules_of(rules),
        ..ClusterRole::default()
    }
}

/// "User alice", "Group devs", "ServiceAccount shop/ci"
fn subject(text: &str) -> Subject {
    let (kind, name) = text.split_once(' ').unwrap();
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    Subject {
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ..Subject::default()
    }
}

/// "Role reader" or "ClusterRole view"
fn role_ref(text: &str) -> Option<RoleRef> {
    let (kind, name) = text.split_once(' ').unwrap();
    Some(RoleRef {
        api_group: GROUP.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    })
}

fn binding(namespace: &str, name: &str, to: &str, gives: &str) -> RoleBinding {
    RoleBinding {
        metadata: meta(namespace, name),
        subjects: vec![subject(to)],
        role_ref: role_ref(gives),
        ..RoleBinding::default()
    }
}

fn everywhere(name: &str, to: &str, gives: &str) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: meta("", name),
        subjects: vec![subject(to)],
        role_ref: role_ref(gives),
        ..ClusterRoleBinding::default()
    }
}

fn who(user: &str, groups: &[&str]) -> Identity {
    Identity {
        user: user.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

fn put<K: Kind>(state: &mut State, record: K) {
    let mut draft = Draft::new();
    draft.put(record);
    let mut transaction = draft.build("test".to_owned(), None);
    // There is no cluster whose level could rise.
    transaction.feature_level = 0;
    ApiError::check(state.apply(1, transaction).outcome).unwrap();
}

/// With the built-in roles, and two namespaces.
fn state() -> State {
    let mut state = State::default();
    for name in ["shop", "lab"] {
        put(
            &mut state,
            Namespace {
                metadata: meta("", name),
                ..Namespace::default()
            },
        );
    }
    for mut role in builtin::roles(KINDS) {
        role.meta_mut().uid = role.meta().name.clone();
        put(&mut state, role);
    }
    state
}

/// "get pods shop/web", "list deployments.apps shop/", "get pods/log shop/web", "list nodes"
fn may(state: &State, who: &Identity, text: &str) -> bool {
    let parts: Vec<_> = text.split(' ').collect();
    let (resource, group) = parts[1].split_once('.').unwrap_or((parts[1], ""));
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let place = parts.get(2).copied().unwrap_or_default();
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    let asked = Asked {
        verb: parts[0],
        group,
        resource,
        part,
        namespace,
        name,
    };
    Review::new(state, who).may(&asked)
}

#[test]
fn a_rule_allows_what_it_names() {
    for (rule, asked, expected) in [
        ("get '' pods", "get pods shop/web", true),
        ("get '' pods", "list pods shop/", false),
        ("get '' pods", "get pods.apps shop/web", false),
        ("get '' pods", "get pods/log shop/web", false),
        ("get '' pods/log", "get pods/log shop/web", true),
        ("get '' pods/log", "get pods shop/web", false),
        ("get '' */log", "get pods/log shop/web", true),
        ("get '' */log", "get pods shop/web", false),
        ("get '' *", "get pods/log shop/web", true),
        ("* * *", "drain tokens.barge.dev", true),
        (
            "get,patch apps,'' deployments web",
            "patch deployments.apps shop/web",
            true,
        ),
        (
            "get,patch apps deployments web",
            "patch deployments.apps shop/api",
            false,
        ),
        (
            "list apps deployments web",
            "list deployments.apps shop/",
            false,
        ),
        ("get '' pod", "get pods shop/web", false),
    ] {
        let mut state = state();
        put(&mut state, cluster_role("it", &[rule]));
        put(&mut state, everywhere("it", "User alice", "ClusterRole it"));
        let got = may(&state, &who("alice", &[]), asked);
        assert_eq!(got, expected, "{rule}: {asked}");
    }
}

#[test]
fn bindings_give_roles_where_they_are() {
    let mut state = state();
    put(&mut state, role("shop", "reader", &["get '' pods"]));
    put(&mut state, role("lab", "reader", &["delete '' pods"]));
    put(
        &mut state,
        binding("shop", "a", "User alice", "Role reader"),
    );
    put(
        &mut state,
        binding("shop", "b", "Group devs", "ClusterRole edit"),
    );
    put(
        &mut state,
        binding("shop", "c", "ServiceAccount lab/ci", "ClusterRole view"),
    );
    put(&mut state, binding("lab", "d", "User alice", "Role gone"));
    put(
        &mut state,
        everywhere("e", "User carol", "ClusterRole view"),
    );
    let (alice, dave) = (who("alice", &[]), who("dave", &["devs"]));
    let (ci, carol) = (who("system:serviceaccount:lab:ci", &[]), who("carol", &[]));
    for (who, asked, expected) in [
        (&alice, "get pods shop/web", true),
        (&alice, "get pods lab/web", false),
        (&alice, "delete pods shop/web", false),
        (&alice, "get pods", false),
        (&dave, "delete pods shop/web", true),
        (&dave, "get secrets shop/db", true),
        (&dave, "get secrets lab/db", false),
        (
            &dave,
            "create roles.rbac.authorization.k8s.io shop/it",
            false,
        ),
        (&ci, "list pods shop/", true),
        (&ci, "get secrets shop/db", false),
        (&ci, "list pods lab/", false),
        (&carol, "list pods", true),
        (&carol, "get pods/log lab/web", true),
        (&carol, "get secrets lab/db", false),
        (&carol, "list nodes", false),
        (&carol, "get namespaces shop/shop", true),
        (&carol, "list tokens.barge.dev", false),
    ] {
        assert_eq!(may(&state, who, asked), expected, "{}: {asked}", who.user);
    }
}

#[test]
fn the_masters_may_do_everything_without_any_binding() {
    let state = State::default();
    let root = who("root", &["system:masters"]);
    assert!(may(&state, &root, "create tokens.barge.dev"));
    assert_eq!(Review::new(&state, &root).rules("shop").len(), 1);
}

#[test]
fn administrators_of_a_namespace_give_its_roles() {
    let mut state = state();
    put(
        &mut state,
        binding("shop", "a", "User alice", "ClusterRole admin"),
    );
    let alice = who("alice", &[]);
    assert!(may(
        &state,
        &alice,
        "create rolebindings.rbac.authorization.k8s.io shop/it"
    ));
    assert!(!may(
        &state,
        &alice,
        "create clusterroles.rbac.authorization.k8s.io it"
    ));
    let refused = |objects: &[Object]| {
        let objects: Vec<_> = objects.iter().collect();
        grants::refusals(&Review::new(&state, &alice), &objects)
    };
    let give = |namespace: &str, gives: &str| binding(namespace, "it", "User bob", gives).into();
    assert!(refused(&[give("shop", "ClusterRole edit")]).is_empty());
    assert!(refused(&[give("shop", "ClusterRole admin")]).is_empty());
    let more = refused(&[give("shop", "ClusterRole cluster-admin")]);
    assert!(more[0].contains("alice does not have (* *.*)"), "{more:?}");
    assert_eq!(refused(&[give("lab", "ClusterRole view")]).len(), 1);
    assert!(refused(&[give("shop", "Role gone")])[0].contains("there is no Role gone"));
    // With the role in the same request.
    let own: Object = role("shop", "own", &["get '' secrets db"]).into();
    assert!(refused(&[give("shop", "Role own"), own]).is_empty());
    let nodes: Object = role("shop", "nodes", &["get '' pods,nodes"]).into();
    let both = refused(&[nodes, give("shop", "Role nodes")]);
    assert_eq!(both.len(), 2);
    assert!(both[0].contains("get nodes"), "{both:?}");
    assert!(!both[0].contains("get pods"), "{both:?}");
    let wide: Object = cluster_role("wide", &["get '' pods"]).into();
    assert_eq!(
        refused(&[wide]).len(),
        1,
        "what one has in a namespace is not had everywhere"
    );
    let wide: Object = everywhere("wide", "User bob", "ClusterRole view").into();
    assert_eq!(refused(&[wide]).len(), 1);
}

#[test]
fn escalate_and_bind_make_exceptions() {
    let mut state = state();
    put(
        &mut state,
        cluster_role(
            "giver",
            &[
                &format!("escalate {GROUP} roles special"),
                &format!("bind {GROUP} clusterroles view"),
            ],
        ),
    );
    put(
        &mut state,
        everywhere("giver", "User alice", "ClusterRole giver"),
    );
    let alice = who("alice", &[]);
    let refused =
        |object: Object| !grants::refusals(&Review::new(&state, &alice), &[&object]).is_empty();
    assert!(!refused(role("shop", "special", &["* * *"]).into()));
    assert!(refused(role("shop", "other", &["* * *"]).into()));
    assert!(!refused(
        binding("shop", "it", "User bob", "ClusterRole view").into()
    ));
    assert!(!refused(
        everywhere("it", "User bob", "ClusterRole view").into()
    ));
    assert!(refused(
        everywhere("it", "User bob", "ClusterRole edit").into()
    ));
}

#[test]
fn what_is_held_covers_what_is_given() {
    for (held, wanted, missing) in [
        ("get,list '' pods,services", "get '' services", 0),
        ("get '' pods", "get,list '' pods", 1),
        ("get '' pods web", "get '' pods", 1),
        ("get '' pods web,api", "get '' pods api", 0),
        ("get '' pods web", "get '' pods api", 1),
        ("* * *", "* * *", 0),
        ("get '' *", "get '' pods/log", 0),
        ("get '' */log", "get '' pods/log", 0),
        ("get '' */log", "get '' */log", 0),
        ("get '' pods/log", "get '' */log", 1),
        ("get '' pods", "get '' *", 1),
        ("get '',apps pods", "get * pods", 1),
        ("get,list,watch '' pods", "* '' pods", 1),
        (
            &format!("* {BARGE} tokens"),
            &format!("create {BARGE} tokens,credentials"),
            1,
        ),
    ] {
        let left = rule::missing(&[rule_of(held)], &[rule_of(wanted)]).unwrap();
        assert_eq!(left.len(), missing, "{held} for {wanted}: {left:?}");
    }
}

#[test]
fn what_multiplies_is_bounded() {
    let many: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    let rule = PolicyRule {
        verbs: many.clone(),
        api_groups: many.clone(),
        resources: many.clone(),
        resource_names: many,
    };
    let all = rule_of("* * *");
    assert_eq!(rule::missing(&[all], &[rule]), Err(rule::TooMany));
}
