//! Patches: what an object is after one. RFC 7396 (`merge`), RFC 6902 (`json`), and Kubernetes' `strategic` by the list keys of
//! the schema.

use anyhow::{Result, bail, ensure};
use barge_proto::schema::{Field, Key, Kind, Merge, Schema, Shape};
use serde_json::{Map, Value};

mod json;

pub use json::json;

/// What says something other than values in a strategic patch.
const DIRECTIVE: &str = "$patch";

/// RFC 7396: mappings are merged, `null` removes, everything else takes the place of what is there.
pub fn merge(value: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *value = patch;
        return;
    };
    let mut fields = taken(value);
    for (name, change) in patch {
        match change {
            Value::Null => {
                fields.remove(&name);
            }
            change => merge(fields.entry(name).or_insert(Value::Null), change),
        }
    }
    *value = Value::Object(fields);
}

/// Takes the fields of a mapping out of a value; of anything else there are none.
fn taken(value: &mut Value) -> Map<String, Value> {
    match value.take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// As [`merge`], but lists whose items have keys in the schema are merged item by item. `$patch: delete` in an item removes it,
/// `$patch: replace` puts the mapping in the place of what is there. `message` is the name of the value's message.
///
/// # Errors
/// A directive that is not one of these, or an item without its key.
pub fn strategic(value: &mut Value, patch: Value, message: &str) -> Result<()> {
    fields(value, patch, Some(message))
}

fn fields(value: &mut Value, patch: Value, message: Option<&str>) -> Result<()> {
    let Value::Object(mut patch) = patch else {
        *value = patch;
        return Ok(());
    };
    match directive(&mut patch)?.as_deref() {
        None | Some("merge") => {}
        Some("replace") => {
            *value = Value::Object(patch);
            return Ok(());
        }
        Some(other) => bail!(
            "$patch: {other} is for items of lists; $patch: replace or null removes a mapping"
        ),
    }
    let message = message.and_then(|name| Schema::get().message(name));
    let mut there = taken(value);
    for (name, change) in patch {
        let field = message.and_then(|message| message.field(&name));
        if change.is_null() {
            there.remove(&name);
            continue;
        }
        let inside = there.entry(name.clone()).or_insert(Value::Null);
        let inner = field.and_then(inner);
        match (field.map(|field| (&field.merge, field.shape)), change) {
            (Some((Merge::Items(keys), _)), Value::Array(changes)) => {
                items(inside, changes, keys, inner, &name)?;
            }
            (Some((_, Shape::Map)), change) => fields(inside, change, None)?,
            (_, change) => fields(inside, change, inner)?,
        }
    }
    *value = Value::Object(there);
    Ok(())
}

fn inner(field: &Field) -> Option<&str> {
    match &field.kind {
        Kind::Message(name) => Some(name),
        Kind::Value(_) => None,
    }
}

/// Takes the directive out of a mapping.
fn directive(patch: &mut Map<String, Value>) -> Result<Option<String>> {
    let unknown = patch
        .keys()
        .find(|name| name.starts_with('$') && *name != DIRECTIVE);
    if let Some(unknown) = unknown {
        bail!(
            "\"{unknown}\" in a strategic patch is not implemented: there is $patch: delete|replace|merge; --type json can say the rest"
        );
    }
    match patch.remove(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(word)) if ["delete", "replace", "merge"].contains(&&*word) => {
            Ok(Some(word))
        }
        Some(other) => bail!("$patch: {other} should be delete, replace or merge"),
    }
}

/// What tells an item from others.
fn key(item: &Value, keys: &[Key]) -> Vec<Option<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let part = |key: &Key| {
        item.get(&key.name)
            .map(text)
            .or_else(|| key.default.clone())
    };
    keys.iter().map(part).collect()
}

fn items(
    value: &mut Value,
    changes: Vec<Value>,
    keys: &[Key],
    message: Option<&str>,
    name: &str,
) -> Result<()> {
    let mut there = match value.take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    for mut change in changes {
        let Value::Object(patch) = &mut change else {
            bail!("{name}: {change} should be a mapping, as its items are");
        };
        let word = patch
            .get(DIRECTIVE)
            .and_then(Value::as_str)
            .map(str::to_owned);
        // In an item by itself: the list takes the place of what is there.
        if word.as_deref() == Some("replace") && patch.len() == 1 {
            there.clear();
            continue;
        }
        let of = key(&change, keys);
        let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
        ensure!(
            of.iter().all(Option::is_some),
            "{name}: an item of a strategic patch needs {}, which tells items apart",
            names.join(" and ")
        );
        let place = there.iter().position(|item| key(item, keys) == of);
        if word.as_deref() == Some("delete") {
            if let Some(place) = place {
                there.remove(place);
            }
            continue;
        }
        match place {
            Some(place) => fields(&mut there[place], change, message)?,
            None => {
                let mut new = Value::Null;
                fields(&mut new, change, message)?;
                there.push(new);
            }
        }
    }
    *value = Value::Array(there);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn web() -> Value {
        json!({
            "metadata": {"name": "web", "labels": {"app": "web", "tier": "x"}},
            "spec": {"replicas": 3, "template": {"spec": {"containers": [
                {"name": "web", "image": "web:1", "args": ["a", "b"], "env": [{"name": "A", "value": "1"}]},
                {"name": "proxy", "image": "proxy:1"},
            ]}}},
        })
    }

    #[test]
    fn a_merge_patch_replaces_lists_and_null_removes() {
        let mut value = web();
        let patch = json!({
            "metadata": {"labels": {"tier": null, "new": "1"}},
            "spec": {"template": {"spec": {"containers": [{"name": "only"}]}}},
        });
        merge(&mut value, patch);
        assert_eq!(
            value["metadata"]["labels"],
            json!({"app": "web", "new": "1"})
        );
        assert_eq!(
            value["spec"]["template"]["spec"]["containers"],
            json!([{"name": "only"}])
        );
        assert_eq!(value["spec"]["replicas"], 3);
    }

    #[test]
    fn a_strategic_patch_finds_items_by_their_keys() {
        let mut value = web();
        let patch = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "web", "image": "web:2", "args": ["c"], "env": [{"name": "B", "value": "2"}]},
            {"name": "proxy", "$patch": "delete"},
            {"name": "log", "image": "log:1"},
        ]}}}});
        strategic(&mut value, patch, "Deployment").unwrap();
        assert_eq!(
            value["spec"]["template"]["spec"]["containers"],
            json!([
                {"name": "web", "image": "web:2", "args": ["c"],
                 "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "log", "image": "log:1"},
            ])
        );
        let patch = json!({"spec": {"template": {"spec": {"containers": [
            {"$patch": "replace"}, {"name": "alone"},
        ]}}}});
        strategic(&mut value, patch, "Deployment").unwrap();
        assert_eq!(
            value["spec"]["template"]["spec"]["containers"],
            json!([{"name": "alone"}])
        );
        let patch = json!({"metadata": {"labels": {"$patch": "replace", "one": "1"}}});
        strategic(&mut value, patch, "Deployment").unwrap();
        assert_eq!(value["metadata"]["labels"], json!({"one": "1"}));
    }

    #[test]
    fn what_a_strategic_patch_cannot_say_is_refused_by_name() {
        for (patch, part) in [
            (
                json!({"$setElementOrder/containers": []}),
                "$setElementOrder/containers",
            ),
            (
                json!({"spec": {"$patch": "remove"}}),
                "should be delete, replace or merge",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"image": "a"}]}}}}),
                "containers: an item of a strategic patch needs name",
            ),
        ] {
            let error = strategic(&mut web(), patch, "Deployment").unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
