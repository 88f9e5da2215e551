//! The roles that every cluster has, with Kubernetes' meaning for the kinds that Barge has: each kind says in its options which of them
//! may read and write its objects.

use std::collections::BTreeMap;

use barge_proto::{
    kinds::{BuiltinRole, KindInfo},
    v1::{ClusterRole, ClusterRoleBinding, Kind, ObjectMeta, PolicyRule, RoleRef, Subject},
};

use super::{GROUP, identity::MASTERS, review::everything};

/// As Kubernetes marks its own.
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// Parts of objects that who may write an object may write, too.
const WRITTEN: &[&str] = &["scale"];

/// The names of the roles that are given within a namespace, the least first.
const WITHIN: &[(BuiltinRole, &str)] = &[
    (BuiltinRole::View, "view"),
    (BuiltinRole::Edit, "edit"),
    (BuiltinRole::Admin, "admin"),
];

/// A part of objects that came later than their kind, in the core group. Roles that were made before learn of it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaterPart {
    /// As rules name it.
    pub name: &'static str,
    /// The least of the roles that has it.
    least: BuiltinRole,
    verbs: &'static [&'static str],
}

/// All of them.
pub const LATER_PARTS: &[LaterPart] = &[
    LaterPart {
        name: "pods/metrics",
        least: BuiltinRole::View,
        verbs: READ,
    },
    made_by_editors("pods/attach"),
    made_by_editors("pods/exec"),
    made_by_editors("pods/portforward"),
    made_by_editors("serviceaccounts/token"),
];

const fn made_by_editors(name: &'static str) -> LaterPart {
    LaterPart {
        name,
        least: BuiltinRole::Edit,
        verbs: &["create"],
    }
}

impl LaterPart {
    /// What a role says of it; nothing when that is for greater ones.
    #[must_use]
    pub fn rule(&self, role: BuiltinRole) -> Option<PolicyRule> {
        (self.least <= role).then(|| rule("", vec![self.name.to_owned()], self.verbs))
    }
}

/// The built-in roles, with what they say of these kinds.
#[must_use]
pub fn roles(kinds: &[KindInfo]) -> Vec<ClusterRole> {
    let mut roles = vec![role("cluster-admin", vec![everything()])];
    let within = WITHIN.iter();
    roles.extend(within.map(|(least, name)| role(name, rules(*least, kinds))));
    roles
}

/// What a role says of these kinds: each role says what those before it do. No Secrets for `view`, which may hold more rights.
#[must_use]
pub fn rules(role: BuiltinRole, kinds: &[KindInfo]) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    for (step, _) in WITHIN.iter().filter(|(step, _)| *step <= role) {
        rules.extend(by_group(kinds, READ, |info| {
            named(info, info.read == Some(*step), |_| true)
        }));
        rules.extend(by_group(kinds, WRITE, |info| {
            named(info, info.write == Some(*step), |part| {
                WRITTEN.contains(&part)
            })
        }));
        // Whoever may make pods may get into them.
        if *step == BuiltinRole::Edit && kinds.iter().any(|it| it.kind == Kind::Pod) {
            let into = ["attach", "exec", "portforward"].map(|part| format!("pods/{part}"));
            rules.push(rule("", into.to_vec(), &["create"]));
        }
        // Whoever runs pods in a namespace can be whoever runs there.
        if *step == BuiltinRole::Edit && kinds.iter().any(|it| it.kind == Kind::ServiceAccount) {
            rules.push(rule(
                "",
                vec!["serviceaccounts".to_owned()],
                &["impersonate"],
            ));
            let token = vec!["serviceaccounts/token".to_owned()];
            rules.push(rule("", token, &["create"]));
        }
    }
    rules
}

/// The role of this name that is given within a namespace.
#[must_use]
pub fn within(name: &str) -> Option<BuiltinRole> {
    let known = WITHIN.iter().find(|(_, known)| *known == name);
    known.map(|(role, _)| *role)
}

/// A kind and its parts as rules name them; nothing when it is not asked for.
fn named(info: &KindInfo, asked: bool, part: impl Fn(&str) -> bool) -> Vec<String> {
    if !asked {
        return Vec::new();
    }
    let parts = info.parts.iter().filter(|it| part(it));
    let parts = parts.map(|part| format!("{}/{part}", info.plural));
    [info.plural.to_string()].into_iter().chain(parts).collect()
}

/// One rule for each API group, with the resources in order.
fn by_group(
    kinds: &[KindInfo],
    verbs: &[&str],
    named: impl Fn(&KindInfo) -> Vec<String>,
) -> Vec<PolicyRule> {
    let mut groups = BTreeMap::<&str, Vec<String>>::new();
    for info in kinds {
        let resources = named(info);
        if !resources.is_empty() {
            groups.entry(info.group()).or_default().extend(resources);
        }
    }
    let rules = groups.into_iter().map(|(group, mut resources)| {
        resources.sort();
        rule(group, resources, verbs)
    });
    rules.collect()
}

/// The built-in bindings. They show rights that hold without them, for people who look.
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

fn rule(group: &str, resources: Vec<String>, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        api_groups: vec![group.to_owned()],
        resources,
        resource_names: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use barge_proto::kinds::KINDS;

    use super::*;

    /// Verbs, group and resources of each rule.
    fn words(rules: &[PolicyRule]) -> Vec<String> {
        let words = rules.iter().map(|rule| {
            let verbs = match rule.verbs.iter().map(String::as_str).collect::<Vec<_>>() {
                verbs if verbs == READ => "read".to_owned(),
                verbs if verbs == WRITE => "write".to_owned(),
                verbs => verbs.join(","),
            };
            format!(
                "{verbs} {:?} {}",
                rule.api_groups[0],
                rule.resources.join(",")
            )
        });
        words.collect()
    }

    #[test]
    fn the_roles_say_what_they_always_said() {
        let view = [
            "read \"\" configmaps,endpoints,events,namespaces,pods,pods/log,pods/metrics,pods/status,serviceaccounts,services,services/status",
            "read \"apps\" deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status",
            "read \"policy\" poddisruptionbudgets,poddisruptionbudgets/status",
        ];
        let edit = [
            "read \"\" secrets",
            "write \"\" configmaps,pods,secrets,serviceaccounts,services",
            "write \"apps\" deployments,deployments/scale,replicasets,replicasets/scale",
            "write \"policy\" poddisruptionbudgets",
            "create \"\" pods/attach,pods/exec,pods/portforward",
            "impersonate \"\" serviceaccounts",
            "create \"\" serviceaccounts/token",
        ];
        let admin = [
            "read \"rbac.authorization.k8s.io\" rolebindings,roles",
            "write \"rbac.authorization.k8s.io\" rolebindings,roles",
        ];
        let all = [&view[..], &edit, &admin].concat();
        for (role, count) in [
            (BuiltinRole::View, 3),
            (BuiltinRole::Edit, 10),
            (BuiltinRole::Admin, 12),
        ] {
            assert_eq!(words(&rules(role, KINDS)), all[..count], "{role:?}");
        }
    }

    #[test]
    fn roles_that_are_made_anew_have_what_older_ones_learn() {
        for (role, _) in WITHIN {
            let all = rules(*role, KINDS);
            let later = LATER_PARTS.iter().filter_map(|part| part.rule(*role));
            for one in later {
                let has = |rule: &PolicyRule| {
                    rule.verbs == one.verbs && rule.resources.contains(&one.resources[0])
                };
                assert!(all.iter().any(has), "{role:?}: {one:?}");
            }
        }
    }
}
