//! `barge explain KIND[.FIELD…]`

use std::io::{self, Write};

use anyhow::{Result, bail};
use barge_proto::{
    kinds,
    schema::{Field, Kind, Message, Schema},
};
use clap::Args;

/// Messages in messages; the schema has fewer.
const DEPTH: usize = 16;
/// How wide descriptions are.
const WIDTH: usize = 78;

#[derive(Debug, Args)]
pub struct Explain {
    /// A kind, and the way to a field of it (deployment.spec.strategy)
    #[arg(value_name = "KIND[.FIELD]")]
    what: String,
    /// All fields below, by name and type
    #[arg(long)]
    recursive: bool,
}

pub fn run(explain: &Explain) -> Result<()> {
    let text = text(&explain.what, explain.recursive)?;
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn text(what: &str, recursive: bool) -> Result<String> {
    let (kind, path) = what.split_once('.').unwrap_or((what, ""));
    let info = kinds::by_name(kind)?;
    let schema = Schema::get();
    let Some(root) = schema.message(info.message) else {
        bail!("the schema has no {}", info.name);
    };
    let (field, message) = find(schema, root, &info.name, path)?;
    let mut text = format!(
        "KIND:     {}\nVERSION:  {}\n\n",
        info.name, info.api_version
    );
    if let Some(field) = field {
        text.push_str(&format!(
            "FIELD: {} <{}>\n\n",
            field.name,
            field.type_name()
        ));
    }
    text.push_str("DESCRIPTION:\n");
    let own = field
        .map(|field| field.comment.as_str())
        .unwrap_or_default();
    let of_type = message.map(|message| message.comment.as_str());
    for comment in [own, of_type.unwrap_or_default()] {
        wrap(&mut text, comment, 4);
    }
    if let Some(message) = message {
        text.push_str("\nFIELDS:\n");
        fields(&mut text, schema, message, recursive, 1);
    }
    Ok(text)
}

/// The field at the end of a path, and the message that it holds.
fn find<'a>(
    schema: &'a Schema,
    root: &'a Message,
    kind: &str,
    path: &str,
) -> Result<(Option<&'a Field>, Option<&'a Message>)> {
    let (mut field, mut message) = (None, Some(root));
    let mut way = kind.to_lowercase();
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let Some(inside) = message else {
            bail!("{way} has no fields");
        };
        let Some(found) = inside.field(name) else {
            let names: Vec<_> = inside.fields.iter().map(|f| f.name.as_str()).collect();
            bail!(
                "{way} has no field {name:?}; there are {}",
                names.join(", ")
            );
        };
        way = format!("{way}.{name}");
        field = Some(found);
        message = inner(schema, found);
    }
    Ok((field, message))
}

fn inner<'a>(schema: &'a Schema, field: &Field) -> Option<&'a Message> {
    match &field.kind {
        Kind::Message(name) => schema.message(name),
        Kind::Value(_) => None,
    }
}

fn fields(text: &mut String, schema: &Schema, message: &Message, recursive: bool, depth: usize) {
    let indent = depth * 2;
    for field in &message.fields {
        text.push_str(&format!(
            "{:indent$}{} <{}>\n",
            "",
            field.name,
            field.type_name()
        ));
        if !recursive {
            wrap(text, &field.comment, indent + 4);
            text.push('\n');
        } else if depth < DEPTH
            && let Some(inner) = inner(schema, field)
        {
            fields(text, schema, inner, recursive, depth + 1);
        }
    }
}

/// Adds a comment in lines.
fn wrap(text: &mut String, comment: &str, indent: usize) {
    let mut line = String::new();
    for word in comment.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&format!("{:indent$}{line}\n", ""));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        text.push_str(&format!("{:indent$}{line}\n", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_its_type_description_and_fields() {
        let strategy = text("deploy.spec.strategy", false).unwrap();
        for part in [
            "KIND:     Deployment\nVERSION:  apps/v1\n",
            "FIELD: strategy <DeploymentStrategy>",
            "type <string>",
            "RollingUpdate (default) or Recreate.",
        ] {
            assert!(strategy.contains(part), "{part}: {strategy}");
        }
        assert!(strategy.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn lists_and_maps_are_looked_into() {
        let ports = text("pods.spec.containers.ports", false).unwrap();
        assert!(ports.contains("FIELD: ports <[]ContainerPort>"), "{ports}");
        assert!(ports.contains("containerPort <whole number>"), "{ports}");
        let all = text("service", true).unwrap();
        assert!(
            all.contains("\n      targetPort <number or string>\n"),
            "{all}"
        );
    }

    #[test]
    fn a_wrong_name_is_told_with_the_right_ones() {
        let error = text("deployment.spec.replica", false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("deployment.spec has no field \"replica\"")
                && error.contains("replicas"),
            "{error}"
        );
        assert!(text("deployment.spec.replicas.x", false).is_err());
        assert!(text("gizmo", false).is_err());
    }
}
