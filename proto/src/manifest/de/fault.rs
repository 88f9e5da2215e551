//! The error of reading a tree.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::super::Position;

/// What is wrong, in which field, and where that is. Its `Display` begins with the field.
#[derive(Debug)]
pub(in super::super) struct Fault {
    message: String,
    /// The way to the field, from its end, as it is collected on the way out.
    path: Vec<String>,
    at: Option<Position>,
}

impl Fault {
    /// Places the fault, if nothing further inside did.
    pub(super) fn at_least(mut self, at: Position) -> Self {
        self.at.get_or_insert(at);
        self
    }

    /// Adds the part of the way to what the fault was found in: ".field" or "[index]".
    pub(super) fn within(mut self, part: String) -> Self {
        self.path.push(part);
        self
    }

    /// Where it is.
    pub fn at(&self) -> Position {
        self.at.unwrap_or_default()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: String = self.path.iter().rev().map(String::as_str).collect();
        match path.trim_start_matches('.') {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            path: Vec::new(),
            at: None,
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {expected}, found {}", Found(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

/// What serde says was there, in the words of the tree.
struct Found<'a>(Unexpected<'a>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Unit | Unexpected::Option => f.write_str("nothing"),
            Unexpected::Bool(value) => value.fmt(f),
            Unexpected::Unsigned(value) => write!(f, "the number {value}"),
            Unexpected::Signed(value) => write!(f, "the number {value}"),
            Unexpected::Float(value) => write!(f, "the number {value:?}"),
            Unexpected::Str(text) => write!(f, "the string {text:?}"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("a mapping"),
            other => other.fmt(f),
        }
    }
}
