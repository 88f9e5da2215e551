//! `-o`: how objects are printed.

use std::{fs, str::FromStr};

use crate::jsonpath::Template;

/// A form of output.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
    /// What a template makes of an object, or of the list of all.
    JsonPath(Template),
    /// A table of the user's own: each column's name and where its cells are.
    Custom(Vec<(String, Template)>),
}

impl Format {
    /// Whether each object is a row.
    pub fn is_table(&self) -> bool {
        matches!(self, Self::Table | Self::Wide | Self::Custom(_))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, value) = match text.split_once('=') {
            Some((word, value)) => (word, Some(value)),
            None => (text, None),
        };
        match (word, value) {
            ("table", None) => Ok(Self::Table),
            ("wide", None) => Ok(Self::Wide),
            ("json", None) => Ok(Self::Json),
            ("yaml", None) => Ok(Self::Yaml),
            ("name", None) => Ok(Self::Name),
            ("jsonpath", Some(template)) => template_of(template),
            ("jsonpath-file", Some(file)) => {
                let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
                template_of(&text)
            }
            ("custom-columns", Some(columns)) => custom(columns),
            ("jsonpath", None) => {
                Err("jsonpath needs a template: jsonpath='{.metadata.name}'".into())
            }
            ("jsonpath-file", None) => Err("jsonpath-file needs a file: jsonpath-file=FILE".into()),
            ("custom-columns", None) => {
                Err("custom-columns needs columns: custom-columns=NAME:.metadata.name".into())
            }
            _ => Err(format!(
                "there are table, wide, json, yaml, name, jsonpath=TEMPLATE, jsonpath-file=FILE and custom-columns=NAME:PATH, not \"{text}\""
            )),
        }
    }
}

fn template_of(text: &str) -> Result<Format, String> {
    // kubectl takes a path without braces, too.
    let template = match text.starts_with(['.', '$', '[']) && !text.contains('{') {
        true => Template::path(text),
        false => Template::parse(text),
    };
    template
        .map(Format::JsonPath)
        .map_err(|error| error.to_string())
}

/// Reads `NAME:PATH,NAME:PATH`.
fn custom(text: &str) -> Result<Format, String> {
    let column = |column: &str| match column.split_once(':') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            let path = Template::path(path).map_err(|error| error.to_string())?;
            Ok((name.to_owned(), path))
        }
        _ => Err(format!(
            "\"{column}\" should be NAME:PATH, such as NODE:.spec.nodeName"
        )),
    };
    columns(text)
        .into_iter()
        .map(column)
        .collect::<Result<_, String>>()
        .map(Format::Custom)
}

/// Splits at commas that are not in brackets.
fn columns(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let comma = move |c: char| {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(comma).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_and_wrong_ones_told() {
        for (text, format) in [
            ("json", Format::Json),
            ("wide", Format::Wide),
            ("name", Format::Name),
        ] {
            assert_eq!(text.parse(), Ok(format));
        }
        for text in [
            "jsonpath={.metadata.name}",
            "jsonpath=.metadata.name",
            "custom-columns=NAME:.metadata.name,IMAGES:.spec.containers[0,1].image",
        ] {
            assert!(text.parse::<Format>().is_ok(), "{text}");
        }
        for (text, part) in [
            ("xml", "not \"xml\""),
            ("jsonpath", "needs a template"),
            ("jsonpath={.a", "the brace is not closed"),
            ("custom-columns=NAME", "NAME:PATH"),
            ("jsonpath-file=/none", "/none: "),
        ] {
            let error = text.parse::<Format>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
