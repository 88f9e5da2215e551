//! Permissions of files: a number, or octal digits as people write them ("0644", "0o644").

use std::fmt;

use serde::{
    Deserializer,
    de::{Error, Visitor},
};

/// Reads permissions. A number is decimal, as JSON has it (420 is 0644). Octal digits arrive as text: YAML 1.1 reads `0644` as octal and YAML 1.2 as
/// decimal, so the reader of manifests leaves them as they are. Of permissions they can only be meant as octal.
///
/// # Errors
/// It is neither.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    deserializer.deserialize_any(ModeVisitor)
}

struct ModeVisitor;

impl Visitor<'_> for ModeVisitor {
    type Value = Option<i32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "permissions: octal with a leading 0 (0644), or the same number in decimal (420)",
        )
    }

    fn visit_unit<E: Error>(self) -> Result<Option<i32>, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<i32>, E> {
        // What is out of range is refused by validation, which knows the field.
        Ok(Some(i32::try_from(value).unwrap_or(i32::MAX)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<i32>, E> {
        Ok(Some(i32::try_from(value).unwrap_or(i32::MAX)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Option<i32>, E> {
        let digits = value.strip_prefix("0o").or_else(|| value.strip_prefix('0'));
        let octal = digits.filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
        octal
            .and_then(|digits| i32::from_str_radix(digits, 8).ok())
            .map(Some)
            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
    }
}
