//! Header and rows of tables of objects: the columns of their kind, and those that flags add.

use anyhow::Result;
use barge_client::v1::{Kind, Object};

use super::cells::{or_none, pairs};
use crate::{
    jsonpath::{self, EvalError, Template},
    kinds,
};

/// Which columns beside the usual ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns {
    pub wide: bool,
    pub namespace: bool,
    /// The kind before the name, in output of several kinds.
    pub kind: bool,
    /// A column for each of these labels.
    pub labels: Vec<String>,
    /// All labels in one column.
    pub all_labels: bool,
    /// The user's own columns, instead of the usual ones.
    pub custom: Option<Vec<(String, Template)>>,
}

/// The names of a kind's columns.
pub fn header(kind: Kind, columns: &Columns) -> Vec<String> {
    let owned = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let (usual, wide) = kinds::columns(kind);
    let mut header = Vec::new();
    if columns.namespace {
        header.push("NAMESPACE".to_owned());
    }
    match &columns.custom {
        Some(custom) => header.extend(custom.iter().map(|(name, _)| name.clone())),
        None => header.extend(owned(usual)),
    }
    if columns.wide {
        header.extend(owned(wide));
    }
    // "app.kubernetes.io/name" is under NAME, as kubectl has it.
    let short = |label: &String| label.rsplit('/').next().unwrap_or(label).to_uppercase();
    header.extend(columns.labels.iter().map(short));
    if columns.all_labels {
        header.push("LABELS".to_owned());
    }
    header
}

/// The cells of an object.
///
/// # Errors
/// The user's own columns cannot be found in it.
pub fn row(object: &Object, columns: &Columns, now: i64) -> Result<Vec<String>> {
    let name = match columns.kind {
        true => object.to_string(),
        false => object.name().to_owned(),
    };
    let mut row = Vec::new();
    if columns.namespace {
        row.push(object.namespace().to_owned());
    }
    match &columns.custom {
        Some(custom) => row.extend(own_cells(object, custom)?),
        None => {
            let (usual, wide) = kinds::cells(object, name, now);
            row.extend(usual);
            if columns.wide {
                row.extend(wide);
            }
        }
    }
    let labels = &object.metadata().labels;
    let label = |key| labels.get(key).cloned().unwrap_or_default();
    row.extend(columns.labels.iter().map(label));
    if columns.all_labels {
        row.push(pairs(labels));
    }
    Ok(row)
}

fn own_cells(object: &Object, custom: &[(String, Template)]) -> Result<Vec<String>> {
    let value = super::value(object)?;
    let cell = |(_, path): &(String, Template)| {
        let found = match path.values(&value) {
            Ok(found) => found,
            Err(EvalError::Bounds { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let found: Vec<_> = found.into_iter().map(jsonpath::shown).collect();
        Ok(or_none(&found.join(",")))
    };
    custom.iter().map(cell).collect()
}
