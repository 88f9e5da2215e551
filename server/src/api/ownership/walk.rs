//! Values beside their types: which fields there are, and what is at a path.

use std::collections::HashMap;

use barge_proto::{
    schema::{Field, Key, Kind, Merge, Message, Schema, Shape},
    v1::{self, Object},
};
use serde_json::Value;

use super::fields::{FieldSet, named};

/// What appliers may set of the metadata.
pub const SET_METADATA: &[&str] = &["labels", "annotations", "ownerReferences"];

/// How a value is shared.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    /// Field by field.
    Message(&'static Message),
    /// Entry by entry; of what they are.
    Map(&'static Kind),
    /// Item by item: what tells them apart, and what they are.
    Items(&'static [Key], &'static Kind),
    /// An object of a registered kind: its metadata as all have it, the rest as [`Type::Free`].
    Custom,
    /// What no schema describes: mappings entry by entry, the rest as a whole. JSON is no deeper than 128.
    Free,
    /// As a whole.
    Whole,
}

impl Type {
    /// The type of an object.
    pub fn root(object: &Object) -> Self {
        if object.kind() == v1::Kind::Custom {
            return Self::Custom;
        }
        let info = object.kind().info();
        let message = info.and_then(|info| Schema::get().message(info.message));
        message.map_or(Self::Whole, Self::Message)
    }

    fn of(field: &'static Field) -> Self {
        match (&field.merge, field.shape) {
            (Merge::Whole, _) => Self::Whole,
            (Merge::Items(keys), _) => Self::Items(keys, &field.kind),
            (Merge::Parts, Shape::Map) => Self::Map(&field.kind),
            (Merge::Parts, _) => Self::one(&field.kind),
        }
    }

    fn one(kind: &'static Kind) -> Self {
        match kind {
            Kind::Message(name) => Schema::get()
                .message(name)
                .map_or(Self::Whole, Self::Message),
            Kind::Value(_) => Self::Whole,
        }
    }

    /// The type of a field or an entry.
    pub fn part(self, name: &str) -> Self {
        match self {
            Self::Message(message) => message.field(name).map_or(Self::Whole, Self::of),
            Self::Map(kind) => Self::one(kind),
            Self::Custom if name == "metadata" => Schema::get()
                .message("ObjectMeta")
                .map_or(Self::Whole, Self::Message),
            Self::Custom | Self::Free => Self::Free,
            Self::Items(..) | Self::Whole => Self::Whole,
        }
    }

    /// Whether a mapping is shared part by part.
    pub fn has_parts(self) -> bool {
        match self {
            Self::Message(_) | Self::Map(_) | Self::Custom | Self::Free => true,
            Self::Items(..) | Self::Whole => false,
        }
    }

    /// The type of an item.
    pub fn item(self) -> Self {
        match self {
            Self::Items(_, kind) => Self::one(kind),
            other => other,
        }
    }
}

/// The segment of an item: what tells it from others of its list.
pub fn segment(item: &Value, keys: &[Key]) -> String {
    let mut text = "k:{".to_owned();
    for (index, key) in keys.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        let stated = item.get(&key.name).cloned();
        let value = stated.or_else(|| key.default.clone().map(Value::from));
        let name = Value::from(key.name.as_str());
        text.push_str(&format!("{name}:{}", value.unwrap_or_default()));
    }
    text.push('}');
    text
}

/// Whether it says nothing: an empty mapping or list.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The fields that a value sets.
pub fn fields_of(value: &Value, root: Type) -> FieldSet {
    let mut all = below(value, root);
    // The object itself has no owner.
    all.here = false;
    all
}

fn below(value: &Value, of: Type) -> FieldSet {
    let mut set = FieldSet::default();
    match (of, value) {
        (of, Value::Object(fields)) if of.has_parts() && !fields.is_empty() => {
            for (name, value) in fields {
                set.insert(named(name), below(value, of.part(name)));
            }
        }
        (Type::Items(keys, _), Value::Array(items)) if !items.is_empty() => {
            for item in items {
                let mut fields = below(item, of.item());
                fields.here = true;
                set.insert(segment(item, keys), fields);
            }
        }
        _ => set.here = true,
    }
    set
}

/// The fields that `new` sets to something else than `old` has there; an item as such counts when it is new, what is in it by itself. Each value is
/// looked at once.
pub fn differing(old: &Value, new: &Value, root: Type) -> FieldSet {
    let mut all = differing_below(Some(old), new, root);
    // The object itself has no owner.
    all.here = false;
    all
}

fn differing_below(old: Option<&Value>, new: &Value, of: Type) -> FieldSet {
    let mut set = FieldSet::default();
    match (of, new) {
        (of, Value::Object(fields)) if of.has_parts() && !fields.is_empty() => {
            for (name, value) in fields {
                let old = old.and_then(|old| old.as_object()?.get(name));
                set.insert(named(name), differing_below(old, value, of.part(name)));
            }
        }
        (Type::Items(keys, _), Value::Array(items)) if !items.is_empty() => {
            let there = old.and_then(Value::as_array).map(Vec::as_slice);
            let there = by_segment(there.unwrap_or_default(), keys);
            for item in items {
                let segment = segment(item, keys);
                let old = there.get(&segment).copied();
                let mut fields = differing_below(old, item, of.item());
                fields.here = old.is_none();
                set.insert(segment, fields);
            }
        }
        _ => set.here = old != Some(new),
    }
    set
}

/// The items of a list by what tells them apart; the first of those that nothing does.
pub fn by_segment<'a>(items: &'a [Value], keys: &[Key]) -> HashMap<String, &'a Value> {
    let mut by_segment = HashMap::with_capacity(items.len());
    for item in items {
        by_segment.entry(segment(item, keys)).or_insert(item);
    }
    by_segment
}

/// What is at a path.
pub fn at<'a>(value: &'a Value, of: Type, path: &[String]) -> Option<&'a Value> {
    let [first, rest @ ..] = path else {
        return Some(value);
    };
    match (of, value) {
        (Type::Items(keys, _), Value::Array(items)) => {
            let item = items.iter().find(|item| segment(item, keys) == *first)?;
            at(item, of.item(), rest)
        }
        (_, Value::Object(fields)) => {
            let name = first.strip_prefix("f:")?;
            at(fields.get(name)?, of.part(name), rest)
        }
        _ => None,
    }
}

/// Whether a path ends at an item of a list.
pub fn is_item(path: &[String]) -> bool {
    path.last().is_some_and(|last| last.starts_with("k:"))
}

/// A value in a sentence.
pub fn shown(value: Option<&Value>) -> String {
    const LONGEST: usize = 60;
    let text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
