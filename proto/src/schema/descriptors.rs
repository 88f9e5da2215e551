//! Descriptors, with the parts that the schema needs. prost's own types drop extensions, and Barge's options are extensions.

use prost::Message;

use super::{Field, Key, Kind, Merge, Shape, VALUES};

#[derive(Clone, PartialEq, Message)]
pub(super) struct DescriptorSet {
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct File {
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Descriptor>,
    #[prost(message, optional, tag = "9")]
    source: Option<Source>,
}

#[derive(Clone, PartialEq, Message)]
struct Descriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<FieldDescriptor>,
    // Of maps, the message of their entries.
    #[prost(message, repeated, tag = "3")]
    nested: Vec<Descriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldDescriptor {
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    r#type: i32,
    #[prost(string, tag = "6")]
    type_name: String,
    #[prost(message, optional, tag = "8")]
    options: Option<FieldOptions>,
    #[prost(string, tag = "10")]
    json_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct FieldOptions {
    // The numbers of the extensions in fields.proto.
    #[prost(string, tag = "50002")]
    list_key: String,
    #[prost(bool, tag = "50003")]
    atomic: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(message, repeated, tag = "1")]
    locations: Vec<Location>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(int32, repeated, tag = "1")]
    path: Vec<i32>,
    #[prost(string, tag = "3")]
    comment: String,
}

// Of descriptor.proto.
const REPEATED: i32 = 3;
const TYPE_BOOL: i32 = 8;
const TYPE_STRING: i32 = 9;
const TYPE_MESSAGE: i32 = 11;
const TYPE_BYTES: i32 = 12;
const TYPE_ENUM: i32 = 14;
/// Fields of `FileDescriptorProto` and `DescriptorProto`, in paths of locations.
const PATH_MESSAGES: i32 = 4;
const PATH_FIELDS: i32 = 2;

/// The messages of a file.
pub(super) fn messages(file: &File) -> impl Iterator<Item = super::Message> + use<'_> {
    let comment = |path: &[i32]| {
        let locations = file.source.iter().flat_map(|source| &source.locations);
        let found = locations
            .into_iter()
            .find(|location| location.path == path)
            .map(|location| location.comment.as_str());
        joined(found.unwrap_or_default())
    };
    (0..).zip(&file.messages).map(move |(at, message)| {
        let fields = (0..).zip(&message.fields).map(|(index, field)| {
            let comment = comment(&[PATH_MESSAGES, at, PATH_FIELDS, index]);
            read(message, field, comment)
        });
        super::Message {
            name: message.name.clone(),
            comment: comment(&[PATH_MESSAGES, at]),
            fields: fields.collect(),
        }
    })
}

fn read(message: &Descriptor, field: &FieldDescriptor, comment: String) -> Field {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let entry = message.nested.iter().find(|nested| {
        field
            .type_name
            .ends_with(&format!(".{}.{}", message.name, nested.name))
    });
    let value = entry.and_then(|entry| entry.fields.get(1)).unwrap_or(field);
    let shape = match (entry, field.label) {
        (Some(_), _) => Shape::Map,
        (None, REPEATED) => Shape::List,
        (None, _) => Shape::One,
    };
    let kind = match value.r#type {
        TYPE_MESSAGE => {
            let name = last(&value.type_name);
            match VALUES.iter().find(|(known, _)| *known == name) {
                Some((_, word)) => Kind::Value(word),
                None => Kind::Message(name),
            }
        }
        TYPE_BOOL => Kind::Value("true or false"),
        TYPE_STRING | TYPE_ENUM => Kind::Value("string"),
        TYPE_BYTES => Kind::Value("bytes"),
        _ => Kind::Value("whole number"),
    };
    let options = field.options.clone().unwrap_or_default();
    let merge = match (shape, &kind) {
        _ if options.atomic => Merge::Whole,
        (Shape::Map, _) | (Shape::One, Kind::Message(_)) => Merge::Parts,
        (Shape::List, _) if !options.list_key.is_empty() => {
            Merge::Items(options.list_key.split(',').map(key).collect())
        }
        _ => Merge::Whole,
    };
    Field {
        name: field.json_name.clone(),
        comment,
        shape,
        kind,
        merge,
    }
}

fn key(text: &str) -> Key {
    let (name, default) = match text.split_once('=') {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (text, None),
    };
    Key {
        name: name.to_owned(),
        default,
    }
}

/// A comment of several lines as one text.
fn joined(comment: &str) -> String {
    let lines: Vec<_> = comment.lines().map(str::trim).collect();
    lines.join(" ").trim().to_owned()
}
