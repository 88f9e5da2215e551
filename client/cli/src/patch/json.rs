//! RFC 6902: a list of operations.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

/// Carries out the operations in order.
///
/// # Errors
/// Names the operation that is none, or whose path is not there, or whose test fails.
pub fn json(value: &mut Value, patch: Value) -> Result<()> {
    let operations: Vec<Operation> = serde_json::from_value(patch).context(
        "a JSON patch is a list of operations such as {\"op\": \"replace\", \"path\": \"/spec/replicas\", \"value\": 3}",
    )?;
    for (index, operation) in operations.into_iter().enumerate() {
        apply(value, operation).with_context(|| format!("operation {index} of the JSON patch"))?;
    }
    Ok(())
}

fn apply(value: &mut Value, operation: Operation) -> Result<()> {
    match operation {
        Operation::Add { path, value: new } => add(value, &path, new),
        Operation::Remove { path } => remove(value, &path).map(drop),
        Operation::Replace { path, value: new } => {
            *at_mut(value, &path)? = new;
            Ok(())
        }
        Operation::Move { from, path } => {
            let moved = remove(value, &from)?;
            add(value, &path, moved)
        }
        Operation::Copy { from, path } => {
            let copied = at_mut(value, &from)?.clone();
            add(value, &path, copied)
        }
        Operation::Test {
            path,
            value: wanted,
        } => {
            let is = at_mut(value, &path)?;
            ensure!(*is == wanted, "{path} is {is}, not {wanted}");
            Ok(())
        }
    }
}

fn at_mut<'a>(value: &'a mut Value, path: &str) -> Result<&'a mut Value> {
    value
        .pointer_mut(path)
        .with_context(|| format!("{path:?} is not there"))
}

/// The value that holds what a path means, and the last part of the path.
fn parent<'a>(value: &'a mut Value, path: &str) -> Result<(&'a mut Value, String)> {
    let Some((parent, last)) = path.rsplit_once('/') else {
        bail!("{path:?} should be the path to a field, such as /spec/replicas");
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    Ok((at_mut(value, parent)?, last))
}

fn add(value: &mut Value, path: &str, new: Value) -> Result<()> {
    if path.is_empty() {
        *value = new;
        return Ok(());
    }
    match parent(value, path)? {
        (Value::Object(fields), name) => {
            fields.insert(name, new);
        }
        (Value::Array(items), place) => {
            let place = match place.as_str() {
                "-" => items.len(),
                place => index(place, items.len() + 1, path)?,
            };
            items.insert(place, new);
        }
        (other, _) => bail!("{path:?} would be in {other}, which holds nothing"),
    }
    Ok(())
}

fn remove(value: &mut Value, path: &str) -> Result<Value> {
    match parent(value, path)? {
        (Value::Object(fields), name) => fields
            .remove(&name)
            .with_context(|| format!("{path:?} is not there")),
        (Value::Array(items), place) => {
            let place = index(&place, items.len(), path)?;
            Ok(items.remove(place))
        }
        _ => bail!("{path:?} is not there"),
    }
}

fn index(text: &str, length: usize, path: &str) -> Result<usize> {
    let place = text.parse().ok().filter(|place| *place < length);
    place.with_context(|| format!("{path:?} is not there: the list has no place {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    #[test]
    fn operations_are_carried_out_in_order() {
        let mut object = value!({"a": {"b": 1}, "list": [1, 3], "x/y": 1});
        let patch = value!([
            {"op": "test", "path": "/a/b", "value": 1},
            {"op": "add", "path": "/list/1", "value": 2},
            {"op": "add", "path": "/list/-", "value": 4},
            {"op": "remove", "path": "/list/0"},
            {"op": "replace", "path": "/x~1y", "value": 2},
            {"op": "copy", "from": "/a", "path": "/c"},
            {"op": "move", "from": "/a/b", "path": "/d"},
        ]);
        json(&mut object, patch).unwrap();
        assert_eq!(
            object,
            value!({"a": {}, "list": [2, 3, 4], "x/y": 2, "c": {"b": 1}, "d": 1})
        );
    }

    #[test]
    fn what_fails_is_named() {
        for (patch, part) in [
            (
                value!([{"op": "test", "path": "/a", "value": 2}]),
                "/a is 1, not 2",
            ),
            (
                value!([{"op": "remove", "path": "/b"}]),
                "\"/b\" is not there",
            ),
            (
                value!([{"op": "add", "path": "/l/5", "value": 1}]),
                "no place \"5\"",
            ),
            (
                value!([{"op": "replace", "path": "/b", "value": 1}]),
                "operation 0",
            ),
            (
                value!([{"op": "invent", "path": "/b"}]),
                "list of operations",
            ),
            (value!({"a": 1}), "list of operations"),
        ] {
            let mut object = value!({"a": 1, "l": []});
            let error = json(&mut object, patch).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
}
