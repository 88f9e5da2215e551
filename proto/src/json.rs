//! The JSON form of the types: functions for the serde attributes that `build.rs` sets, and hand-written JSON for types whose JSON
//! is a string or a number.

pub(crate) mod base64;
mod custom;
mod fields_v1;
mod int_or_string;
pub(crate) mod mode;
mod object;
mod quantity;
mod time;

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default value, as Kubernetes does.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// True for what is not printed.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
