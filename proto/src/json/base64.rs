//! Maps of bytes: in JSON a map of base64 texts.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer, Serializer,
    de::{Error, Visitor},
};

type Bytes = BTreeMap<String, Vec<u8>>;

/// Writes each value in base64.
pub(crate) fn serialize<S: Serializer>(map: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(key, value)| (key, STANDARD.encode(value))))
}

/// Reads what [`serialize`] wrote; `null` is an empty map.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let map: Option<BTreeMap<String, Value>> = Option::deserialize(deserializer)?;
    let values = map.unwrap_or_default().into_iter();
    Ok(values.map(|(key, Value(value))| (key, value)).collect())
}

struct Value(Vec<u8>);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        // Lines are broken by tools that encode, and by YAML. What is there may be a secret, and is not repeated.
        let text = text.replace(['\r', '\n'], "");
        STANDARD.decode(text).map_err(|_| {
            E::custom("expected base64 (`base64 -w0 FILE` makes it; a Secret takes plain text in stringData, a ConfigMap in data)")
        })
    }
}
