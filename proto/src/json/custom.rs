//! [`CustomObject`]: apiVersion, kind, metadata, and the fields that it holds as JSON.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::Error as _,
    ser::{Error as _, SerializeMap},
};
use serde_json::{Map, Value};

use crate::v1::CustomObject;

impl Serialize for CustomObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self
            .fields()
            .map_err(|error| S::Error::custom(format_args!("json: {error}")))?;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", &self.api_version)?;
        map.serialize_entry("kind", &self.kind)?;
        if let Some(metadata) = &self.metadata {
            map.serialize_entry("metadata", metadata)?;
        }
        for (name, value) in &fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for CustomObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let mut text = |name: &'static str| match fields.remove(name) {
            Some(Value::String(text)) => Ok(text),
            None => Ok(String::new()),
            Some(_) => Err(D::Error::custom(format_args!("{name}: expected a string"))),
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        let metadata = fields.remove("metadata").unwrap_or_default();
        let metadata = Option::deserialize(metadata).map_err(D::Error::custom)?;
        Ok(Self {
            api_version,
            kind,
            metadata,
            json: Value::Object(fields).to_string(),
        })
    }
}
