//! What one rule allows.

use std::fmt;

use barge_proto::{
    kinds::KindInfo,
    v1::{Kind, PolicyRule},
};

use super::BARGE;

/// Matches everything.
pub const ALL: &str = "*";

/// One action that a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked<'a> {
    /// "get"
    pub verb: &'a str,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The plural.
    pub resource: &'a str,
    /// "log" of "pods/log"; empty for the resource itself.
    pub part: &'a str,
    /// Empty for all namespaces at once, and for what is in none.
    pub namespace: &'a str,
    /// Empty for any.
    pub name: &'a str,
}

impl<'a> Asked<'a> {
    /// A verb on an object, or on all in a namespace.
    #[must_use]
    pub fn on(verb: &'a str, info: &'a KindInfo, namespace: &'a str, name: &'a str) -> Self {
        Self {
            verb,
            group: info.group(),
            resource: &info.plural,
            part: "",
            // As in Kubernetes, a namespace is in itself: who has a role in it may be allowed to look at it.
            namespace: match (info.namespaced, info.kind) {
                (true, _) => namespace,
                (false, Kind::Namespace) => name,
                (false, _) => "",
            },
            name,
        }
    }

    /// The same of a part.
    #[must_use]
    pub fn part(self, part: &'a str) -> Self {
        Self { part, ..self }
    }

    /// Something about the cluster itself.
    #[must_use]
    pub fn of_cluster(verb: &'a str, resource: &'a str) -> Self {
        Self {
            verb,
            group: BARGE,
            resource,
            ..Self::default()
        }
    }
}

/// "patch deployments in namespace default"
impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.part.is_empty() {
            write!(f, "/{}", self.part)?;
        }
        if self.group == BARGE {
            write!(f, ".{BARGE}")?;
        }
        match self.namespace {
            "" => Ok(()),
            namespace => write!(f, " in namespace {namespace}"),
        }
    }
}

/// Whether a rule allows it.
#[must_use]
pub fn allows(rule: &PolicyRule, asked: &Asked<'_>) -> bool {
    has(&rule.verbs, asked.verb)
        && has(&rule.api_groups, asked.group)
        && names_resource(&rule.resources, asked.resource, asked.part)
        && (rule.resource_names.is_empty() || rule.resource_names.iter().any(|n| n == asked.name))
}

fn has(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == wanted || value == ALL)
}

fn names_resource(resources: &[String], resource: &str, part: &str) -> bool {
    resources.iter().any(|named| match named.split_once('/') {
        _ if named == ALL => true,
        None => part.is_empty() && named == resource,
        Some((of, named)) => !part.is_empty() && named == part && (of == ALL || of == resource),
    })
}

/// Single rights that are compared at most: a rule with many verbs, groups and resources has their product, and the state waits.
const MOST: usize = 4096;

/// Rules with more single rights than are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// The part of `wanted` that `held` does not allow: verb by verb, resource by resource, name by name; empty when all is held. Each
/// of these has to be in one of the rules that are held, whole.
///
/// # Errors
/// [`TooMany`].
pub fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Result<Vec<PolicyRule>, TooMany> {
    let rights = wanted.iter().map(|rule| {
        let PolicyRule {
            verbs,
            api_groups,
            resources,
            resource_names,
        } = rule;
        let names = resource_names.len().max(1);
        let parts = [verbs.len(), api_groups.len(), resources.len(), names];
        parts.into_iter().fold(1, usize::saturating_mul)
    });
    if rights.fold(0, usize::saturating_add) > MOST {
        return Err(TooMany);
    }
    let single = wanted.iter().flat_map(taken_apart);
    let is_held = |one: &PolicyRule| held.iter().any(|rule| holds(rule, one));
    Ok(single.filter(|one| !is_held(one)).collect())
}

/// A rule as rules with one verb, one group, one resource and at most one name each.
fn taken_apart(rule: &PolicyRule) -> impl Iterator<Item = PolicyRule> + '_ {
    let names: Vec<_> = match rule.resource_names.is_empty() {
        true => vec![vec![]],
        false => rule
            .resource_names
            .iter()
            .map(|n| vec![n.clone()])
            .collect(),
    };
    rule.verbs.iter().flat_map(move |verb| {
        let names = names.clone();
        rule.api_groups.iter().flat_map(move |group| {
            let names = names.clone();
            rule.resources.iter().flat_map(move |resource| {
                let of = |resource_names: Vec<String>| PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    resource_names,
                };
                names.clone().into_iter().map(of).collect::<Vec<_>>()
            })
        })
    })
}

/// Whether a rule allows all that another one does, which was taken apart.
fn holds(rule: &PolicyRule, one: &PolicyRule) -> bool {
    let resource = one.resources.iter().all(|resource| {
        // "*" is held by "*" alone, and "*/scale" by the same or "*".
        let (of, part) = resource.split_once('/').unwrap_or((resource, ""));
        rule.resources.contains(resource)
            || (resource != ALL && of != ALL && names_resource(&rule.resources, of, part))
            || rule.resources.iter().any(|named| named == ALL)
    });
    let names = rule.resource_names.is_empty()
        || (!one.resource_names.is_empty()
            && one
                .resource_names
                .iter()
                .all(|n| rule.resource_names.contains(n)));
    let all = |held: &[String], wanted: &[String]| wanted.iter().all(|value| has(held, value));
    all(&rule.verbs, &one.verbs) && all(&rule.api_groups, &one.api_groups) && resource && names
}

/// "get secrets", for sentences.
#[must_use]
pub fn in_words(rule: &PolicyRule) -> String {
    let mut words = format!("{} {}", rule.verbs.join(","), rule.resources.join(","));
    let groups: Vec<_> = rule.api_groups.iter().filter(|g| !g.is_empty()).collect();
    if let Some(group) = groups.first() {
        words.push_str(&format!(".{group}"));
    }
    match rule.resource_names.as_slice() {
        [] => words,
        names => format!("{words} named {}", names.join(",")),
    }
}
