//! Objects on standard output: tables, JSON, YAML, names, templates.

use std::io::{self, Write};

use anyhow::Result;
use barge_client::v1::{Kind, Object};
use barge_proto::manifest;
use serde_json::{Value, json};

mod cells;
pub mod columns;
mod format;
mod pod_status;
mod rows;
mod sort;
mod table;

pub use cells::{age, age_of, now, selector, size, until};
pub use columns::{Cells, is_ready};
pub use format::Format;
pub use pod_status::pod_status;
pub use rows::{Columns, header, row};
pub use sort::sort_by;
pub use table::Table;

fn write(text: &str) -> Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// An object as JSON, with apiVersion and kind.
pub fn value(object: &Object) -> Result<Value> {
    Ok(serde_json::to_value(object.clone().typed())?)
}

/// Writes one object in a format that is not a table.
pub fn object(object: &Object, format: &Format) -> Result<()> {
    match format {
        Format::Json => write(&manifest::to_json(object)?),
        Format::Yaml => write(&manifest::to_yaml(object)?),
        Format::JsonPath(template) => write(&template.render(&value(object)?)?),
        Format::Name | Format::Table | Format::Wide | Format::Custom(_) => {
            Ok(writeln!(io::stdout(), "{object}")?)
        }
    }
}

/// Writes several objects in a format that is not a table; JSON, YAML and templates have them as a `List`.
pub fn list(objects: &[Object], format: &Format) -> Result<()> {
    match format {
        Format::Json => write(&manifest::list_to_json(objects)?),
        Format::Yaml => write(&manifest::list_to_yaml(objects)?),
        Format::JsonPath(template) => {
            let items = objects.iter().map(value).collect::<Result<Vec<_>>>()?;
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            write(&template.render(&list)?)
        }
        Format::Name | Format::Table | Format::Wide | Format::Custom(_) => {
            let mut out = io::stdout().lock();
            for object in objects {
                writeln!(out, "{object}")?;
            }
            Ok(())
        }
    }
}

/// The table of some objects of one kind.
pub fn table(kind: Kind, objects: &[Object], columns: &Columns, now: i64) -> Result<Table> {
    let mut table = Table::new(header(kind, columns));
    for object in objects {
        table.push(row(object, columns, now)?);
    }
    Ok(table)
}
