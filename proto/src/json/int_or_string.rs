//! [`IntOrString`]: its JSON is a number or a string.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

use crate::v1::{IntOrString, int_or_string::Value};

impl IntOrString {
    /// A number.
    pub fn int(value: i32) -> Self {
        Self {
            value: Some(Value::Int(value)),
        }
    }

    /// A string: a percentage or a name.
    pub fn string(value: impl Into<String>) -> Self {
        Self {
            value: Some(Value::String(value.into())),
        }
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(Value::Int(value)) => value.fmt(f),
            Some(Value::String(value)) => value.fmt(f),
            None => Ok(()),
        }
    }
}

impl Serialize for IntOrString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Some(Value::Int(value)) => serializer.serialize_i32(*value),
            Some(Value::String(value)) => serializer.serialize_str(value),
            // As Kubernetes' zero value.
            None => serializer.serialize_i32(0),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntOrStringVisitor)
    }
}

struct IntOrStringVisitor;

impl Visitor<'_> for IntOrStringVisitor {
    type Value = IntOrString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of at most 32 bits or a string")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<IntOrString, E> {
        i32::try_from(value)
            .map(IntOrString::int)
            .map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<IntOrString, E> {
        i32::try_from(value)
            .map(IntOrString::int)
            .map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<IntOrString, E> {
        Ok(IntOrString::string(value))
    }
}
