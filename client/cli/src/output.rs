//! Objects on standard output: tables, JSON, YAML, names.

use std::io::{self, Write};

use anyhow::Result;
use barge_client::v1::{Kind, Object};
use barge_proto::manifest;

use crate::args::Format;

mod cells;
pub mod columns;
mod pod_status;
mod table;

pub use cells::{age, age_of, now, selector, size, until};
pub use columns::{Cells, Columns, header, is_ready, row};
pub use pod_status::pod_status;
pub use table::Table;

fn write(text: &str) -> Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Writes one object in a format that is not a table.
pub fn object(object: &Object, format: Format) -> Result<()> {
    match format {
        Format::Json => write(&manifest::to_json(object)?),
        Format::Yaml => write(&manifest::to_yaml(object)?),
        Format::Name | Format::Table | Format::Wide => Ok(writeln!(io::stdout(), "{object}")?),
    }
}

/// Writes several objects in a format that is not a table; JSON and YAML as a `List`.
pub fn list(objects: &[Object], format: Format) -> Result<()> {
    match format {
        Format::Json => write(&manifest::list_to_json(objects)?),
        Format::Yaml => write(&manifest::list_to_yaml(objects)?),
        Format::Name | Format::Table | Format::Wide => {
            let mut out = io::stdout().lock();
            for object in objects {
                writeln!(out, "{object}")?;
            }
            Ok(())
        }
    }
}

/// The table of some objects of one kind.
pub fn table(kind: Kind, objects: &[Object], columns: Columns, now: i64) -> Table {
    let mut table = Table::new(header(kind, columns));
    for object in objects {
        table.push(row(object, columns, now));
    }
    table
}
