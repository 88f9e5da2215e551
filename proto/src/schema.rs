//! The schema as data, read from its own descriptors: the fields of each message with their JSON names, comments and
//! merge rules. `explain` prints them, and apply by ownership merges by them.

mod descriptors;

use std::{collections::BTreeMap, sync::LazyLock};

use prost::Message as _;

use self::descriptors::DescriptorSet;
use crate::DESCRIPTOR_SET;

/// Messages whose JSON is one value.
const VALUES: &[(&str, &str)] = &[
    ("Time", "time"),
    ("Quantity", "quantity"),
    ("IntOrString", "number or string"),
    ("FieldsV1", "mapping"),
];

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::read(DESCRIPTOR_SET));

/// All messages, by name ("DeploymentSpec").
#[derive(Debug, Default)]
pub struct Schema(BTreeMap<String, Message>);

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name ("DeploymentSpec").
    pub name: String,
    /// What it is, as its `.proto` file says; may be empty.
    pub comment: String,
    /// In the order of the file.
    pub fields: Vec<Field>,
}

/// A field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name in JSON ("clusterIP").
    pub name: String,
    /// What it is, as the `.proto` file says; may be empty.
    pub comment: String,
    /// One value, a list or a map.
    pub shape: Shape,
    /// Of the value, or of each in the list or map.
    pub kind: Kind,
    /// How appliers share it.
    pub merge: Merge,
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One, or none.
    One,
    /// In order.
    List,
    /// By name.
    Map,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A mapping of the fields of the message of this name.
    Message(String),
    /// One value, in a word for people ("string", "whole number", "quantity").
    Value(&'static str),
}

/// How several appliers share a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// Part by part: the fields of a message, the entries of a map.
    Parts,
    /// Item by item; the fields that tell them apart.
    Items(Vec<Key>),
    /// As one value.
    Whole,
}

/// A field that tells items of a list apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name in JSON.
    pub name: String,
    /// What it is when it is left out.
    pub default: Option<String>,
}

impl Schema {
    /// The schema of this crate.
    pub fn get() -> &'static Schema {
        &SCHEMA
    }

    /// A message, by name.
    pub fn message(&self, name: &str) -> Option<&Message> {
        self.0.get(name)
    }

    /// Reads an encoded `FileDescriptorSet`; bytes that are none make an empty schema.
    fn read(bytes: &[u8]) -> Self {
        let set = DescriptorSet::decode(bytes).unwrap_or_default();
        let messages = set.files.iter().flat_map(descriptors::messages);
        Self(
            messages
                .map(|message| (message.name.clone(), message))
                .collect(),
        )
    }
}

impl Message {
    /// A field, by its name in JSON.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Field {
    /// The type, for people: "[]Container", "map[string]string".
    pub fn type_name(&self) -> String {
        let kind = match &self.kind {
            Kind::Message(name) => name,
            Kind::Value(word) => *word,
        };
        match self.shape {
            Shape::One => kind.to_owned(),
            Shape::List => format!("[]{kind}"),
            Shape::Map => format!("map[string]{kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn field(message: &str, name: &str) -> Field {
        let message = Schema::get().message(message).unwrap();
        message.field(name).unwrap().clone()
    }

    #[test]
    fn fields_have_names_comments_and_types() {
        let replicas = field("DeploymentSpec", "replicas");
        assert_eq!(replicas.type_name(), "whole number");
        assert!(replicas.comment.starts_with("Default 1"), "{replicas:?}");
        assert_eq!(field("PodSpec", "containers").type_name(), "[]Container");
        assert_eq!(
            field("ResourceRequirements", "limits").type_name(),
            "map[string]quantity"
        );
        assert_eq!(field("ServiceSpec", "clusterIP").type_name(), "string");
        assert_eq!(
            field("ServicePort", "targetPort").type_name(),
            "number or string"
        );
        let pod = Schema::get().message("Pod").unwrap();
        assert!(pod.comment.starts_with("One or more"), "{}", pod.comment);
    }

    #[test]
    fn lists_are_merged_by_their_keys() {
        let key = |name: &str, default: Option<&str>| Key {
            name: name.to_owned(),
            default: default.map(str::to_owned),
        };
        let by_name = Merge::Items(vec![key("name", None)]);
        assert_eq!(field("PodSpec", "containers").merge, by_name);
        let by_port = Merge::Items(vec![
            key("containerPort", None),
            key("protocol", Some("TCP")),
        ]);
        assert_eq!(field("Container", "ports").merge, by_port);
        assert_eq!(field("Container", "args").merge, Merge::Whole);
        assert_eq!(field("ServiceSpec", "selector").merge, Merge::Whole);
        assert_eq!(field("DeploymentSpec", "selector").merge, Merge::Whole);
        assert_eq!(field("ObjectMeta", "labels").merge, Merge::Parts);
        assert_eq!(field("DeploymentSpec", "template").merge, Merge::Parts);
        assert_eq!(field("DeploymentSpec", "replicas").merge, Merge::Whole);
    }

    #[test]
    fn every_list_key_is_a_field_of_the_items() {
        let schema = Schema::get();
        assert!(schema.0.len() > 50);
        for message in schema.0.values() {
            for field in &message.fields {
                let Merge::Items(keys) = &field.merge else {
                    continue;
                };
                let Kind::Message(item) = &field.kind else {
                    panic!("{}.{}: values have no keys", message.name, field.name);
                };
                for key in keys {
                    let item = schema.message(item).unwrap();
                    let known = item.field(&key.name).is_some();
                    assert!(known, "{}.{}: {key:?}", message.name, field.name);
                }
            }
        }
    }
}
