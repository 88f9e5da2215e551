//! Kinds that are registered while a cluster runs.

use serde_json::{Map, Value};

use super::KindInfo;
use crate::{
    v1::{CustomObject, GroupVersionResource, Kind},
    validate,
};

/// Fields of an object that stand beside its JSON.
pub const HEAD: &[&str] = &["apiVersion", "kind", "metadata"];

/// What is said of a kind to register it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomKind {
    /// Group, version and plural.
    pub resource: GroupVersionResource,
    /// As in a manifest ("Widget").
    pub name: String,
    /// Default: the name in small letters.
    pub singular: String,
    /// False for kinds whose objects belong to the whole cluster.
    pub namespaced: bool,
}

/// Why a kind cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A name breaks a rule.
    #[error("{field}: {value:?} {rule}")]
    Invalid {
        /// Which name.
        field: &'static str,
        /// What it is.
        value: String,
        /// The rule.
        rule: String,
    },
    /// Another kind of the group has a name of it.
    #[error(
        "{name} is {other} in the group {group:?} already: choose another name, or another group"
    )]
    Taken {
        /// The name.
        name: String,
        /// The kind that has it.
        other: String,
        /// The group of both.
        group: String,
    },
    /// There are as many as there may be.
    #[error("there are {most} registered kinds, and no more are possible: remove one first")]
    TooMany {
        /// How many.
        most: usize,
    },
}

impl CustomKind {
    /// What the API knows of it.
    ///
    /// # Errors
    /// A name that breaks a rule.
    pub(super) fn info(&self) -> Result<KindInfo, RegisterError> {
        let GroupVersionResource {
            group,
            version,
            resource,
        } = &self.resource;
        let invalid = |field, value: &str| {
            let value = value.to_owned();
            move |rule| RegisterError::Invalid { field, value, rule }
        };
        validate::dns_subdomain(group).map_err(invalid("group", group))?;
        validate::dns_label(version).map_err(invalid("version", version))?;
        validate::dns_label(resource).map_err(invalid("resource", resource))?;
        let singular = match self.singular.as_str() {
            "" => self.name.to_lowercase(),
            singular => singular.to_owned(),
        };
        validate::dns_label(&singular).map_err(invalid("singular", &singular))?;
        validate::dns_label(&self.name.to_lowercase()).map_err(invalid("kind", &self.name))?;
        if !group.contains('.') {
            let rule = "must be a domain such as example.com: others are Barge's own".to_owned();
            return Err(invalid("group", group)(rule));
        }
        Ok(KindInfo {
            kind: Kind::Custom,
            api_version: format!("{group}/{version}").into(),
            name: self.name.clone().into(),
            plural: resource.clone().into(),
            singular: singular.into(),
            short: &[],
            namespaced: self.namespaced,
            message: "CustomObject",
            kept_by_managers: false,
            parts: &[],
            read: None,
            write: None,
            selectable: &[],
            level: LEVEL,
        })
    }
}

/// The feature level from which on there can be such objects.
pub const LEVEL: u32 = 7;

/// The name of an object's record: behind resource and group, because all of these kinds share one kind of record.
pub fn record_name(info: &KindInfo, name: &str) -> String {
    format!("{}{name}", record_prefix(info))
}

/// What the names of all records of a kind begin with. No name of an object has a slash.
pub fn record_prefix(info: &KindInfo) -> String {
    format!("{}.{}/", info.plural, info.group())
}

/// The name of the object whose record has this name.
pub fn object_name(record: &str) -> &str {
    record.split_once('/').map_or(record, |(_, name)| name)
}

/// How deep the JSON of an object may be nested; the object itself counts as one. serde_json reads 128 levels, and in JSON the names
/// of the object's fields, which say who owns them, stand five levels deeper than the fields do.
pub const DEPTH: usize = 120;

/// Why the JSON of an object is refused.
#[derive(Debug, thiserror::Error)]
pub enum FieldsError {
    /// It is no JSON, or no object.
    #[error("must be a JSON object: {0}")]
    NoObject(#[from] serde_json::Error),
    /// It has a field that stands beside the JSON.
    #[error(
        "has the key {0:?}, which the message has a field of its own for: set that field, and leave {0:?} out of the JSON"
    )]
    Head(&'static str),
    /// It is nested too deep.
    #[error("is nested deeper than {DEPTH} levels: make it flatter")]
    TooDeep,
}

/// Whether a value is nested deeper than so many levels. It calls itself no more often than that.
fn is_deeper(value: &Value, than: usize) -> bool {
    let Some(left) = than.checked_sub(1) else {
        return value.is_object() || value.is_array();
    };
    match value {
        Value::Object(fields) => fields.values().any(|value| is_deeper(value, left)),
        Value::Array(items) => items.iter().any(|value| is_deeper(value, left)),
        _ => false,
    }
}

impl CustomObject {
    /// The fields beside apiVersion, kind and metadata.
    ///
    /// # Errors
    /// When the JSON is none, no object, nested deeper than [`DEPTH`], or has one of [`HEAD`].
    pub fn fields(&self) -> Result<Map<String, Value>, FieldsError> {
        if self.json.is_empty() {
            return Ok(Map::new());
        }
        let fields: Map<String, Value> = serde_json::from_str(&self.json)?;
        if let Some(name) = HEAD.iter().find(|name| fields.contains_key(**name)) {
            return Err(FieldsError::Head(name));
        }
        match fields.values().any(|value| is_deeper(value, DEPTH - 1)) {
            true => Err(FieldsError::TooDeep),
            false => Ok(fields),
        }
    }

    /// The same in the form in which it is kept.
    ///
    /// # Errors
    /// As [`CustomObject::fields`].
    pub fn canonical(mut self) -> Result<Self, FieldsError> {
        self.json = Value::Object(self.fields()?).to_string();
        Ok(self)
    }
}
