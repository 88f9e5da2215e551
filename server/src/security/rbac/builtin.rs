//! The roles that every cluster has, with Kubernetes' meaning for what Barge has.

use barge_proto::v1::{ClusterRole, ClusterRoleBinding, ObjectMeta, PolicyRule, RoleRef, Subject};

use super::{GROUP, identity::MASTERS, review::everything};

/// As Kubernetes marks its own.
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// What whoever looks at a namespace sees; no Secrets, which may hold more rights, and no roles.
const SEEN: &[&str] = &[
    "configmaps",
    "endpoints",
    "events",
    "namespaces",
    "pods",
    "pods/log",
    "pods/status",
    "serviceaccounts",
    "services",
    "services/status",
];
const SEEN_APPS: &[&str] = &["deployments", "deployments/scale", "deployments/status"];
/// What whoever works in a namespace changes.
const CHANGED: &[&str] = &[
    "configmaps",
    "pods",
    "secrets",
    "serviceaccounts",
    "services",
];
const CHANGED_APPS: &[&str] = &["deployments", "deployments/scale"];
/// What whoever administers a namespace gives to others.
const GIVEN: &[&str] = &["rolebindings", "roles"];

/// The built-in roles.
#[must_use]
pub fn roles() -> Vec<ClusterRole> {
    let view = || vec![rule("", SEEN, READ), rule("apps", SEEN_APPS, READ)];
    let edit = || {
        let mut rules = view();
        rules.extend([
            rule("", &["secrets"], READ),
            rule("", CHANGED, WRITE),
            rule("apps", CHANGED_APPS, WRITE),
            // Whoever runs pods in a namespace can be whoever runs there.
            rule("", &["serviceaccounts"], &["impersonate"]),
        ]);
        rules
    };
    let admin = || {
        let mut rules = edit();
        rules.extend([rule(GROUP, GIVEN, READ), rule(GROUP, GIVEN, WRITE)]);
        rules
    };
    vec![
        role("cluster-admin", vec![everything()]),
        role("admin", admin()),
        role("edit", edit()),
        role("view", view()),
    ]
}

/// The built-in bindings. They say what is so anyway, for whoever looks.
#[must_use]
pub fn bindings() -> Vec<ClusterRoleBinding> {
    vec![ClusterRoleBinding {
        metadata: meta("cluster-admin"),
        subjects: vec![Subject {
            kind: "Group".to_owned(),
            api_group: GROUP.to_owned(),
            name: MASTERS.to_owned(),
            namespace: String::new(),
        }],
        role_ref: Some(RoleRef {
            api_group: GROUP.to_owned(),
            kind: "ClusterRole".to_owned(),
            name: "cluster-admin".to_owned(),
        }),
        ..ClusterRoleBinding::default()
    }]
}

fn role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole {
        metadata: meta(name),
        rules,
        ..ClusterRole::default()
    }
}

fn meta(name: &str) -> Option<ObjectMeta> {
    let (label, value) = BOOTSTRAPPING;
    Some(ObjectMeta {
        name: name.to_owned(),
        labels: [(label.to_owned(), value.to_owned())].into(),
        ..ObjectMeta::default()
    })
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    PolicyRule {
        verbs: owned(verbs),
        api_groups: vec![group.to_owned()],
        resources: owned(resources),
        resource_names: Vec::new(),
    }
}
