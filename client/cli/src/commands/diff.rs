//! `barge diff -f FILE|DIR|-`

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Result, bail};
use barge_client::{
    ApplyOptions, batches,
    v1::{Object, object},
};
use barge_proto::manifest;
use clap::Args;
use serde_json::Value;

use super::apply::point_at;
use crate::{
    args::{Manager, Manifests},
    context::Connection,
    diff, explain, sources,
};

/// Something would change.
const DIFFERENT: u8 = 1;
/// It is not known whether something would.
const FAILED: u8 = 2;

#[derive(Debug, Args)]
#[command(after_help = "Example: barge diff -f web.yaml -n shop")]
pub struct Diff {
    #[command(flatten)]
    manifests: Manifests,
    #[command(flatten)]
    manager: Manager,
    /// As if fields that others set to other values were taken over
    #[arg(long, visible_alias = "force")]
    force_conflicts: bool,
}

/// As kubectl's: 0 when nothing would change, 1 when something would, above 1 on an error.
pub async fn run(to: &Connection, diff: Diff) -> ExitCode {
    match show(to, diff).await {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(DIFFERENT),
        // The reader of our output has seen enough: there was something.
        Err(error) if explain::is_broken_pipe(&error) => ExitCode::from(DIFFERENT),
        Err(error) => {
            explain::print(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// Prints the differences; true when there are any.
async fn show(to: &Connection, diff: Diff) -> Result<bool> {
    let located = sources::read_in(&diff.manifests.files, &diff.manifests.namespace, to)?;
    let client = to.client()?;
    let options = ApplyOptions {
        field_manager: diff.manager.field_manager,
        force: diff.force_conflicts,
        dry_run: true,
        ..ApplyOptions::default()
    };
    let objects = located.iter().map(|one| one.object.clone()).collect();
    let mut results = Vec::new();
    for batch in batches(objects) {
        match client.apply(batch, &options).await {
            Ok(answer) => results.extend(answer.results),
            Err(error) => return Err(point_at(error, &located)),
        }
    }
    let mut differs = false;
    for result in results {
        let Some(merged) = result.object else {
            bail!("the manager's answer lacks an object");
        };
        let live = client
            .find(merged.kind(), merged.namespace(), merged.name())
            .await?;
        let name = merged.to_string();
        let after = text(merged.clone(), live.is_some(), live.as_ref(), "after")?;
        let before = match live {
            Some(live) => text(live, true, Some(&merged), "before")?,
            None => String::new(),
        };
        let names = (format!("live/{name}"), format!("merged/{name}"));
        let lines = diff::unified((&names.0, &names.1), &before, &after);
        differs |= !lines.is_empty();
        io::stdout().write_all(lines.as_bytes())?;
    }
    Ok(differs)
}

/// What a person compares: without what the server counts, identities that are drawn anew, and the values of Secrets.
fn text(mut object: Object, exists: bool, other: Option<&Object>, which: &str) -> Result<String> {
    if let Some(metadata) = object.metadata_mut() {
        metadata.managed_fields.clear();
        metadata.resource_version.clear();
        metadata.generation = 0;
        if !exists {
            metadata.uid.clear();
            metadata.creation_timestamp = None;
        }
    }
    Ok(manifest::to_yaml_with(&object, |shown| {
        mask(shown, data(&object), other.and_then(data), which);
    })?)
}

type Data = BTreeMap<String, Vec<u8>>;

fn data(object: &Object) -> Option<&Data> {
    match &object.kind {
        Some(object::Kind::Secret(secret)) => Some(&secret.data),
        _ => None,
    }
}

/// Puts marks in place of a Secret's values that say no more than which differ.
fn mask(shown: &mut Value, data: Option<&Data>, other: Option<&Data>, which: &str) {
    let (Some(data), Some(Value::Object(values))) = (data, shown.get_mut("data")) else {
        return;
    };
    for (key, value) in values {
        let differs = other.is_some_and(|other| {
            let there = other.get(key);
            there.is_some() && there != data.get(key)
        });
        *value = match differs {
            true => format!("*** ({which})").into(),
            false => "***".into(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::Secret;

    #[test]
    fn values_of_secrets_are_not_shown_but_what_changed_is() {
        let secret = |password: &str| {
            Object::from(Secret {
                data: [
                    ("password".to_owned(), password.as_bytes().to_vec()),
                    ("user".to_owned(), b"ann".to_vec()),
                ]
                .into(),
                ..Secret::default()
            })
        };
        let (old, new) = (secret("hunter2"), secret("hunter3"));
        let before = text(old.clone(), true, Some(&new), "before").unwrap();
        let after = text(new.clone(), true, Some(&old), "after").unwrap();
        assert!(before.contains("*** (before)"), "{before}");
        let lines = diff::unified(("a", "b"), &before, &after);
        assert!(
            lines.contains("-  password:") && lines.contains("+  password:"),
            "{lines}"
        );
        assert!(
            !lines.contains("-  user") && !lines.contains("aHVudGVy"),
            "{lines}"
        );
        let alone = text(new, false, None, "after").unwrap();
        assert!(
            !alone.contains("aHVudGVy") && !alone.contains("(after)"),
            "{alone}"
        );
    }
}
