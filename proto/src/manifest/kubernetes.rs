//! Fields that Kubernetes has and Barge does not: accepted when they ask for nothing, otherwise refused.

mod table;

use serde_json::Value as Json;

use self::table::{Accepted, FIELDS};
use super::tree::{Node, Value};

/// What to do with a field that Barge does not have.
pub(super) enum Verdict {
    /// It holds what Kubernetes would put there by itself, and Barge does just that; or it says nothing about
    /// what is wished for.
    Harmless,
    /// It asks for something that Barge does not do; this says so.
    NotImplemented(String),
    /// It is another name of this field.
    OtherName(&'static str),
    /// Kubernetes does not have it either.
    Unknown,
}

/// Judges a field of a type (by the name of its message in the schema).
pub(super) fn judge(message: &str, field: &str, node: &Node) -> Verdict {
    let Some((_, accepted)) = FIELDS
        .iter()
        .filter(|(known, _)| *known == message)
        .flat_map(|(_, fields)| *fields)
        .find(|(known, _)| *known == field)
    else {
        return Verdict::Unknown;
    };
    let (harmless, rule) = match accepted {
        Accepted::Anything => (true, String::new()),
        Accepted::Nothing => (asks_for_nothing(node), String::new()),
        Accepted::Only(defaults) => (
            is_empty(node) || defaults.iter().any(|default| equals_text(node, default)),
            format!(": only {} is accepted", defaults.join(" or ")),
        ),
        Accepted::OtherName(name) => return Verdict::OtherName(name),
    };
    if harmless {
        return Verdict::Harmless;
    }
    Verdict::NotImplemented(format!(
        "`{field}` is a field of Kubernetes that Barge does not implement{rule}"
    ))
}

/// Whether a text says nothing beside another.
pub(super) fn adds_nothing(node: &Node, said: &Node) -> bool {
    let same = match (&node.value, &said.value) {
        (Value::String(text), Value::String(said)) => text == said,
        _ => false,
    };
    same || is_empty(node)
}

/// The message for a field that neither Kubernetes nor Barge has.
pub(super) fn unknown_field(field: &str, known: &[&str]) -> String {
    let listed = listed(known);
    match closest(field, known) {
        Some(meant) => {
            format!("unknown field `{field}`: did you mean `{meant}`? There are {listed}")
        }
        None if known.is_empty() => format!("unknown field `{field}`: there are none here"),
        None => format!("unknown field `{field}`: there are {listed}"),
    }
}

/// Names of fields, for people.
pub(super) fn listed(fields: &[&str]) -> String {
    let mut fields = fields.to_vec();
    fields.sort_unstable();
    fields.join(", ")
}

/// The known name that was probably meant.
fn closest<'a>(field: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let field = plain(field);
    known
        .iter()
        .map(|known| (distance(&field, &plain(known)), *known))
        .filter(|(distance, known)| *distance <= known.len().div_ceil(4).min(3))
        .min()
        .map(|(_, known)| known)
}

/// The number of insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    // Rows of the usual table: two back, one back, and the present one.
    let mut before = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i; to.len() + 1];
        for j in 1..=to.len() {
            let replaced = last[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        (before, last) = (last, row);
    }
    last[to.len()]
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
    }
}

fn asks_for_nothing(node: &Node) -> bool {
    is_empty(node) || matches!(node.value, Value::Bool(false) | Value::Int(0))
}

/// Whether a node is what a JSON text says.
fn equals_text(node: &Node, text: &str) -> bool {
    serde_json::from_str(text).is_ok_and(|json| equals(node, &json))
}

fn equals(node: &Node, json: &Json) -> bool {
    match (&node.value, json) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(value), Json::Bool(json)) => value == json,
        (Value::Int(value), Json::Number(json)) => {
            json.as_i64().is_some_and(|json| *value == json.into())
        }
        (Value::String(value), Json::String(json)) => value == json,
        (Value::List(items), Json::Array(json)) => {
            items.len() == json.len()
                && items
                    .iter()
                    .zip(json)
                    .all(|(item, json)| equals(item, json))
        }
        (Value::Map(fields), Json::Object(json)) => {
            fields.len() == json.len()
                && fields
                    .iter()
                    .all(|(key, node)| json.get(&key.name).is_some_and(|json| equals(node, json)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn defaults_in_the_table_are_json() {
        for (message, fields) in FIELDS {
            for (field, accepted) in *fields {
                let Accepted::Only(defaults) = accepted else {
                    continue;
                };
                assert!(!defaults.is_empty(), "{message}.{field}");
                for default in *defaults {
                    serde_json::from_str::<Json>(default).expect(default);
                }
            }
        }
    }

    #[test]
    fn the_likely_name_is_found() {
        let known = [
            "replicas",
            "selector",
            "clusterIP",
            "ports",
            "type",
            "podCIDR",
        ];
        for (typed, meant) in [
            ("replica", Some("replicas")),
            ("Replicas", Some("replicas")),
            ("cluster_ip", Some("clusterIP")),
            ("prots", Some("ports")),
            ("port", Some("ports")),
            ("podCidr", Some("podCIDR")),
            ("volumes", None),
            ("", None),
        ] {
            assert_eq!(closest(typed, &known), meant, "{typed}");
        }
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("replica", "replicas"), 1);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("nmae", "name"), 1);
    }
}
