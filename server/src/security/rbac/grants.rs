//! No caller can give others, or itself, more rights than it has. As in Kubernetes, the verbs escalate (on a role) and bind (of one)
//! make an exception.

use std::collections::BTreeMap;

use barge_proto::v1::{Object, PolicyRule, RoleRef, object::Kind};

use super::{Asked, GROUP, Review, review::rules_of, rule};

/// Rights that a sentence names.
const NAMED: usize = 5;

/// Kind, namespace and name.
type RoleName<'a> = (&'static str, &'a str, &'a str);
type Roles<'a> = BTreeMap<RoleName<'a>, &'a [PolicyRule]>;

/// The reasons why the caller may not write these objects: one sentence each. A binding may refer to a role that is
/// written with it.
#[must_use]
pub fn refusals(review: &Review<'_>, written: &[&Object]) -> Vec<String> {
    if review.is_master() {
        return Vec::new();
    }
    let roles: Roles<'_> = written.iter().filter_map(|object| role(object)).collect();
    let refusal = |object: &&Object| refusal(review, object, &roles);
    written.iter().filter_map(refusal).collect()
}

fn role(object: &Object) -> Option<(RoleName<'_>, &[PolicyRule])> {
    let (kind, rules) = match &object.kind {
        Some(Kind::Role(role)) => ("Role", &role.rules),
        Some(Kind::ClusterRole(role)) => ("ClusterRole", &role.rules),
        _ => return None,
    };
    Some(((kind, object.namespace(), object.name()), rules))
}

fn refusal(review: &Review<'_>, object: &Object, roles: &Roles<'_>) -> Option<String> {
    let (namespace, name) = (object.namespace(), object.name());
    let user = &review.who().user;
    let (verb, of, rules) = match &object.kind {
        Some(Kind::Role(role)) => ("escalate", ("Role", name), Some(role.rules.as_slice())),
        Some(Kind::ClusterRole(role)) => (
            "escalate",
            ("ClusterRole", name),
            Some(role.rules.as_slice()),
        ),
        Some(Kind::RoleBinding(it)) => given(review, it.role_ref.as_ref()?, namespace, roles),
        Some(Kind::ClusterRoleBinding(it)) => given(review, it.role_ref.as_ref()?, "", roles),
        _ => return None,
    };
    let (kind, role) = of;
    let excepted = Asked {
        verb,
        group: GROUP,
        resource: if kind == "Role" {
            "roles"
        } else {
            "clusterroles"
        },
        part: "",
        namespace,
        name: role,
    };
    if review.may(&excepted) {
        return None;
    }
    let Some(rules) = rules else {
        return Some(format!(
            "{object}: there is no {kind} {role}, and only who may bind it may refer to it before it is there"
        ));
    };
    let Ok(missing) = rule::missing(&review.rules(namespace), rules) else {
        return Some(format!(
            "{object}: what it gives cannot be compared with what {user} has, it is too much: name less, or all with \"*\""
        ));
    };
    if missing.is_empty() {
        return None;
    }
    let mut words: Vec<_> = missing.iter().take(NAMED).map(rule::in_words).collect();
    if missing.len() > NAMED {
        words.push(format!("{} more", missing.len() - NAMED));
    }
    Some(format!(
        "{object}: {user} may not give what {user} does not have ({})",
        words.join("; ")
    ))
}

/// What a binding gives.
fn given<'a>(
    review: &Review<'a>,
    role: &'a RoleRef,
    namespace: &str,
    written: &Roles<'a>,
) -> (
    &'static str,
    (&'static str, &'a str),
    Option<&'a [PolicyRule]>,
) {
    let (kind, place) = match role.kind.as_str() {
        "Role" => ("Role", namespace),
        _ => ("ClusterRole", ""),
    };
    let with_it = written.get(&(kind, place, role.name.as_str())).copied();
    let rules = with_it.or_else(|| rules_of(review.state(), namespace, role));
    ("bind", (kind, &role.name), rules)
}
