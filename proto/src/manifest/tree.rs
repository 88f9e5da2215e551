//! YAML (or JSON, which is YAML) as a tree that knows where everything was written.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DefaultMessageFormatter, DuplicateKeyPolicy, MessageFormatter, Spanned};

use super::{ManifestError, Source};

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// How many characters are meant; may be 0 where it is not known.
    pub width: usize,
}

impl From<serde_saphyr::Location> for Position {
    fn from(location: serde_saphyr::Location) -> Self {
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            line: number(location.line()),
            column: number(location.column()),
            width: number(location.span().len()),
        }
    }
}

/// A value and where it is.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub value: Value,
    pub at: Position,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(String),
    List(Vec<Node>),
    /// In the order of the text, each key once.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and where it is.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub name: String,
    pub at: Position,
}

/// In words, for "expected …, found …".
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value:?}"),
            Self::String(text) if text.chars().count() > 60 => {
                let start: String = text.chars().take(50).collect();
                write!(f, "the string {start:?}…")
            }
            Self::String(text) => write!(f, "the string {text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

impl Node {
    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(fields) => fields
                .iter()
                .find(|(known, _)| known.name == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// Where a field is ("spec.ports[0].port", "metadata.labels[app]"), or the last part of the way to it that exists.
    pub fn locate(&self, field: &str) -> Position {
        let mut node = self;
        let mut at = match &self.value {
            Value::Map(fields) => fields.first().map_or(self.at, |(key, _)| key.at),
            _ => self.at,
        };
        for part in Parts(field) {
            match &node.value {
                Value::List(items) => {
                    let index = part.parse().ok();
                    let Some(item) = index.and_then(|index: usize| items.get(index)) else {
                        break;
                    };
                    (node, at) = (item, item.at);
                }
                Value::Map(fields) => {
                    let Some((key, value)) = fields.iter().find(|(key, _)| key.name == part) else {
                        break;
                    };
                    // A collection is shown where its name is: its first element is on another line, or says nothing.
                    at = match value.value {
                        Value::Map(_) | Value::List(_) | Value::Null => key.at,
                        _ => value.at,
                    };
                    node = value;
                }
                _ => break,
            }
        }
        at
    }
}

/// The parts of a field's path: names between dots, indexes and keys in brackets.
struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.strip_prefix('.').unwrap_or(self.0);
        if rest.is_empty() {
            return None;
        }
        let (part, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').unwrap_or((rest, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        self.0 = rest;
        Some(part)
    }
}

/// Documents of one text.
const DOCUMENTS: usize = 100_000;
/// Keys, values and what encloses them, of one text.
const EVENTS: usize = 4_000_000;
/// How deep they are nested. Objects need about 15; each level takes its part of a thread's stack.
const DEPTH: usize = 32;

/// Every document of a text that is not empty.
pub(super) fn parse(source: &Source) -> Result<Vec<Node>, ManifestError> {
    let options = serde_saphyr::options! {
        // Found here, where both places are known.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // YAML 1.1 reads them as octal and 1.2 as decimal: asked for in quotes instead of guessed.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
        // The reader of the text bounds its size; the defaults bound the expansion of aliases.
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_documents: DOCUMENTS,
            max_events: EVENTS,
            max_nodes: EVENTS,
        },
    };
    let documents: Vec<Tree> = serde_saphyr::from_str_multiple_with_options(&source.text, options)
        .map_err(|error| {
            let at = error.location().map(Position::from).unwrap_or_default();
            let message = DefaultMessageFormatter.format_message(error.without_snippet());
            ManifestError::new(source, at, message)
        })?;
    documents
        .into_iter()
        .map(|Tree(node)| {
            refuse_duplicate_keys(source, &node)?;
            Ok(node)
        })
        .collect()
}

fn refuse_duplicate_keys(source: &Source, node: &Node) -> Result<(), ManifestError> {
    match &node.value {
        Value::List(items) => items
            .iter()
            .try_for_each(|item| refuse_duplicate_keys(source, item)),
        Value::Map(fields) => {
            let mut seen = HashMap::new();
            for (key, value) in fields {
                if let Some(first) = seen.insert(key.name.as_str(), key.at) {
                    let message = format!(
                        "`{}` is there twice; first in line {}",
                        key.name, first.line
                    );
                    return Err(ManifestError::new(source, key.at, message));
                }
                refuse_duplicate_keys(source, value)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What is deserialized: a node with its place.
struct Tree(Node);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self(Node {
            value: spanned.value,
            at: spanned.referenced.into(),
        }))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(node)) = items.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Value>>()? {
            let name = match key.value {
                Value::String(name) => name,
                other => {
                    return Err(A::Error::custom(format_args!(
                        "expected a name before the colon, found {other}: put it in quotes"
                    )));
                }
            };
            let at = key.referenced.into();
            let Tree(node) = entries.next_value()?;
            fields.push((Key { name, at }, node));
        }
        Ok(Value::Map(fields))
    }
}
