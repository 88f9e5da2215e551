//! Random roles and bindings: the index and the evaluation agree with a scan of all bindings, and a caller that holds a rule's rights
//! may do all that the rule allows.

use barge_proto::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, RbacRole, RoleBinding, Subject,
};
use barge_state::{State, service_account_user};
use proptest::prelude::*;

use super::{binding, cluster_role, everywhere, put, role, state, who};
use crate::security::rbac::{Asked, Identity, Review, rule};

const VERBS: &[&str] = &["get", "list", "patch", "*"];
const GROUPS: &[&str] = &["''", "apps", "*"];
const RESOURCES: &[&str] = &["pods", "deployments", "pods/log", "*/log", "*"];
const NAMES: &[&str] = &["", "", "web", "api"];
const SUBJECTS: &[&str] = &[
    "User alice",
    "Group devs",
    "Group ops",
    "ServiceAccount shop/ci",
];
const ROLES: &[&str] = &["Role a", "Role b", "ClusterRole a", "ClusterRole b"];
const PLACES: &[&str] = &["shop", "lab"];

fn one(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(of)
}

fn rule_text() -> impl Strategy<Value = String> {
    (one(VERBS), one(GROUPS), one(RESOURCES), one(NAMES)).prop_map(
        |(verb, group, resource, name)| {
            format!("{verb} {group} {resource} {name}")
                .trim_end()
                .to_owned()
        },
    )
}

#[derive(Debug, Clone)]
enum Step {
    Role(&'static str, bool, Vec<String>),
    Here(&'static str, u8, &'static str, &'static str),
    Everywhere(u8, &'static str, &'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let role = (
        one(PLACES),
        any::<bool>(),
        prop::collection::vec(rule_text(), 0..3),
    );
    let here = (one(PLACES), 0..4_u8, one(SUBJECTS), one(ROLES));
    let wide = (
        0..4_u8,
        one(SUBJECTS),
        one(&["ClusterRole a", "ClusterRole b"]),
    );
    prop_oneof![
        role.prop_map(|(place, a, rules)| Step::Role(place, a, rules)),
        here.prop_map(|(place, n, to, gives)| Step::Here(place, n, to, gives)),
        wide.prop_map(|(n, to, gives)| Step::Everywhere(n, to, gives)),
    ]
}

fn run(state: &mut State, step: &Step) {
    match step {
        Step::Role(place, a, rules) => {
            let rules: Vec<_> = rules.iter().map(String::as_str).collect();
            let name = if *a { "a" } else { "b" };
            put(state, role(place, name, &rules));
            put(state, cluster_role(name, &rules));
        }
        Step::Here(place, n, to, gives) => {
            put(state, binding(place, &n.to_string(), to, gives));
        }
        Step::Everywhere(n, to, gives) => put(state, everywhere(&n.to_string(), to, gives)),
    }
}

fn is_for(subject: &Subject, who: &Identity) -> bool {
    match subject.kind.as_str() {
        "User" => subject.name == who.user,
        "Group" => who.groups.contains(&subject.name),
        _ => service_account_user(&subject.namespace, &subject.name) == who.user,
    }
}

/// As the documentation says it, one binding after the other.
fn naive(state: &State, who: &Identity, asked: &Asked<'_>) -> bool {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for binding in state.list::<ClusterRoleBinding>(None) {
        let role = binding.role_ref.as_ref().unwrap();
        if binding.subjects.iter().any(|it| is_for(it, who)) {
            let found = state.get::<ClusterRole>("", &role.name);
            rules.extend(found.into_iter().flat_map(|role| role.rules.clone()));
        }
    }
    for binding in state.list::<RoleBinding>(None) {
        let role = binding.role_ref.as_ref().unwrap();
        let place = &binding.metadata.as_ref().unwrap().namespace;
        if place == asked.namespace && binding.subjects.iter().any(|it| is_for(it, who)) {
            rules.extend(
                match role.kind.as_str() {
                    "Role" => state
                        .get::<RbacRole>(place, &role.name)
                        .map(|r| r.rules.clone()),
                    _ => state
                        .get::<ClusterRole>("", &role.name)
                        .map(|r| r.rules.clone()),
                }
                .unwrap_or_default(),
            );
        }
    }
    let full = match asked.part {
        "" => asked.resource.to_owned(),
        part => format!("{}/{part}", asked.resource),
    };
    rules.iter().any(|rule| {
        let verb = rule.verbs.iter().any(|v| v == "*" || v == asked.verb);
        let group = rule.api_groups.iter().any(|g| g == "*" || g == asked.group);
        let resource = rule.resources.iter().any(|r| {
            *r == "*" || *r == full || (!asked.part.is_empty() && *r == format!("*/{}", asked.part))
        });
        let name =
            rule.resource_names.is_empty() || rule.resource_names.iter().any(|n| n == asked.name);
        verb && group && resource && name
    })
}

fn asked() -> impl Strategy<Value = Asked<'static>> {
    let what = (one(&["get", "list", "patch"]), one(&["", "apps"]));
    let of = (one(&["pods", "deployments"]), one(&["", "log"]));
    let place = (one(&["", "shop", "lab"]), one(&["", "web", "api"]));
    (what, of, place).prop_map(
        |((verb, group), (resource, part), (namespace, name))| Asked {
            verb,
            group,
            resource,
            part,
            namespace,
            name,
        },
    )
}

fn somebody() -> impl Strategy<Value = Identity> {
    let user = one(&["alice", "bob", "system:serviceaccount:shop:ci"]);
    let groups = one(&["devs", "ops", "others"]);
    (user, groups).prop_map(|(user, group)| who(user, &[group, "system:authenticated"]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn as_a_look_at_every_binding_says(
        steps in prop::collection::vec(step(), 0..20),
        who in somebody(),
        asked in prop::collection::vec(asked(), 1..20),
    ) {
        let mut state = state();
        for step in &steps {
            run(&mut state, step);
        }
        for asked in &asked {
            let got = Review::new(&state, &who).may(asked);
            prop_assert_eq!(got, naive(&state, &who, asked), "{:?}", asked);
        }
    }

    #[test]
    fn who_holds_all_of_a_rule_may_do_what_it_allows(
        held in prop::collection::vec(rule_text(), 0..4),
        wanted in rule_text(),
        asked in prop::collection::vec(asked(), 1..20),
    ) {
        let held: Vec<_> = held.iter().map(|text| super::rule_of(text)).collect();
        let wanted = super::rule_of(&wanted);
        if rule::missing(&held, std::slice::from_ref(&wanted)).unwrap().is_empty() {
            for asked in asked.iter().filter(|asked| rule::allows(&wanted, asked)) {
                prop_assert!(held.iter().any(|rule| rule::allows(rule, asked)), "{:?}", asked);
            }
        }
    }
}
