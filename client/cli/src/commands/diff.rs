//! `barge diff -f FILE|DIR|-`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Result, bail};
use barge_client::{ApplyOptions, batches, v1::Object};
use barge_proto::manifest;
use clap::Args;

use super::apply::point_at;
use crate::{
    args::{Connection, Manager, Manifests},
    diff, explain, sources,
};

/// Something would change.
const DIFFERENT: u8 = 1;
/// It is not known whether something would.
const FAILED: u8 = 2;

#[derive(Debug, Args)]
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
    let located = sources::read(&diff.manifests.files)?;
    let client = to.client()?;
    let options = ApplyOptions {
        field_manager: diff.manager.field_manager,
        force: diff.force_conflicts,
        dry_run: true,
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
        let before = match &live {
            Some(live) => text(live.clone(), true)?,
            None => String::new(),
        };
        let after = text(merged, live.is_some())?;
        let names = (format!("live/{name}"), format!("merged/{name}"));
        let lines = diff::unified((&names.0, &names.1), &before, &after);
        differs |= !lines.is_empty();
        io::stdout().write_all(lines.as_bytes())?;
    }
    Ok(differs)
}

/// What a person compares: without what the server counts, and identities that are drawn anew.
fn text(mut object: Object, exists: bool) -> Result<String> {
    if let Some(metadata) = object.metadata_mut() {
        metadata.managed_fields.clear();
        metadata.resource_version.clear();
        metadata.generation = 0;
        if !exists {
            metadata.uid.clear();
            metadata.creation_timestamp = None;
        }
    }
    Ok(manifest::to_yaml(&object)?)
}
