//! Objects as text: JSON as `kubectl get -o json` prints it, and YAML. Keys are in alphabetical order.

mod json;

use serde::Serialize;
use serde_json::{Map, Value};

use self::json::Go;
use super::LIST;
use crate::v1::Object;

/// Why an object cannot be printed: something in it has no text, such as a time beyond the year 9999.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// While it was turned into JSON.
    #[error("print as JSON")]
    Json(#[from] serde_json::Error),
    /// While it was turned into YAML.
    #[error("print as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// An object as JSON, with apiVersion and kind, ending with a new line.
pub fn to_json(object: &Object) -> Result<String, PrintError> {
    json_text(&value(object)?)
}

/// An object as YAML, with apiVersion and kind, ending with a new line.
pub fn to_yaml(object: &Object) -> Result<String, PrintError> {
    yaml_text(&value(object)?)
}

/// As [`to_yaml`], after a change of what is printed: what is shown need not be an object any more.
pub fn to_yaml_with(
    object: &Object,
    change: impl FnOnce(&mut Value),
) -> Result<String, PrintError> {
    let mut value = value(object)?;
    change(&mut value);
    yaml_text(&value)
}

/// Several objects as one JSON List.
pub fn list_to_json(objects: &[Object]) -> Result<String, PrintError> {
    json_text(&list(objects)?)
}

/// Several objects as one YAML List.
pub fn list_to_yaml(objects: &[Object]) -> Result<String, PrintError> {
    yaml_text(&list(objects)?)
}

fn value(object: &Object) -> Result<Value, PrintError> {
    Ok(sorted(serde_json::to_value(object.clone().typed())?))
}

fn list(objects: &[Object]) -> Result<Value, PrintError> {
    let items = objects.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    Ok(sorted(serde_json::json!({
        "apiVersion": "v1",
        "kind": LIST,
        "items": items,
        "metadata": {"resourceVersion": ""},
    })))
}

/// Whether serde_json keeps keys in order of insertion or alphabet depends on a feature that any crate may turn on.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(Map::from_iter(fields))
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn json_text(value: &Value) -> Result<String, PrintError> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Go::default());
    value.serialize(&mut serializer)?;
    bytes.push(b'\n');
    // serde_json writes nothing but UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn yaml_text(value: &Value) -> Result<String, PrintError> {
    Ok(serde_saphyr::to_string(value)?)
}
