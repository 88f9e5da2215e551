//! Kubernetes' JSONPath templates, as `-o jsonpath=`, `--sort-by`, `-o custom-columns=` and `wait --for jsonpath=` take them.
//!
//! Text is printed as it stands, and what is in braces is looked up: `{.metadata.name}{"\n"}`, `{.items[*].spec.nodeName}`,
//! `{range .items[*]}{.metadata.name}{"\n"}{end}`, `[0]`, `[-1:]`, `['app.kubernetes.io/name']`, `..image`,
//! `[?(@.type=="Ready")]`. A field that is missing is nothing; an index beyond a list's end is an error, as kubectl has it.

use std::fmt;

use serde_json::Value;

mod eval;
mod parse;

#[cfg(test)]
mod tests;

pub use self::eval::EvalError;
pub use self::parse::ParseError;

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Show(Path),
    /// The values of the path, and what is printed for each.
    Range(Path, Vec<Part>),
}

/// A way to values.
#[derive(Debug, Clone, PartialEq)]
struct Path {
    /// From the whole (`$`) instead of from where the template is (`@`, or nothing).
    whole: bool,
    steps: Vec<Step>,
}

/// One step of a path; each takes every value of the step before.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// All items of a list, all values of a mapping.
    All,
    /// The value and everything below it.
    Below,
    Index(i64),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        by: i64,
    },
    Union(Vec<Path>),
    Filter(Filter),
}

/// Which items of a list are meant.
#[derive(Debug, Clone, PartialEq)]
enum Filter {
    Exists(Path),
    Compare(Operand, Operator, Operand),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// Reads a template: text with lookups in braces.
    ///
    /// # Errors
    /// Says at which character the template is wrong.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self {
            text: text.to_owned(),
            parts: parse::template(text)?,
        })
    }

    /// Reads one path, with or without braces and the first dot: `{.metadata.name}`, `.metadata.name` or `metadata.name`.
    ///
    /// # Errors
    /// As [`Template::parse`], and for what is more than one path.
    pub fn path(text: &str) -> Result<Self, ParseError> {
        let bare = text.trim();
        let inner = bare.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        let inner = inner.unwrap_or(bare);
        let whole = match inner.starts_with(['.', '[', '$', '@']) {
            true => format!("{{{inner}}}"),
            false => format!("{{.{inner}}}"),
        };
        let parts = parse::template(&whole)?;
        match parts[..] {
            [Part::Show(_)] => Ok(Self {
                text: text.to_owned(),
                parts,
            }),
            _ => Err(ParseError::not_a_path(text)),
        }
    }

    /// The values that the first lookup of the template finds.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn values<'a>(&'a self, value: &'a Value) -> Result<Vec<&'a Value>, EvalError> {
        match self.parts.first() {
            Some(Part::Show(path)) => eval::find(path, value, value),
            _ => Ok(Vec::new()),
        }
    }

    /// What the template makes of a value.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn render(&self, value: &Value) -> Result<String, EvalError> {
        let mut out = String::new();
        eval::render(&self.parts, value, value, &mut out)?;
        Ok(out)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A value as a template prints it: strings without quotes, lists and mappings as JSON, null as nothing.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
