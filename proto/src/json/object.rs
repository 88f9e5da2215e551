//! [`Object`]: the JSON of the object itself, with apiVersion and kind.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use crate::{kinds, v1::Object};

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        kinds::serialize(self, serializer)
    }
}

/// Reads by apiVersion and kind. Manifests from people are read by [`crate::manifest`], which knows lines and columns.
impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = |field: &'static str| match value.get(field) {
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(_) => Err(D::Error::custom(format_args!("{field}: expected a string"))),
            None => Err(D::Error::missing_field(field)),
        };
        let info = kinds::by_type(text("apiVersion")?, text("kind")?).map_err(D::Error::custom)?;
        kinds::deserialize(info.kind, value).map_err(D::Error::custom)
    }
}
