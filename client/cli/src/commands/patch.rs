//! `barge patch KIND NAME -p PATCH`

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    args::{DryRun, Manager},
    change::{self, How},
    context::Connection,
    explain, patch,
    targets::Which,
};

const EXAMPLES: &str = "\
Examples:
  barge patch deployment web -p '{\"spec\": {\"replicas\": 3}}'
  barge patch deployment/web -p 'spec: {template: {spec: {containers: [{name: web, image: \"web:2\"}]}}}'
  barge patch configmap/web --type json -p '[{\"op\": \"remove\", \"path\": \"/data/key\"}]'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Patch {
    #[command(flatten)]
    which: Which,
    /// The patch, in JSON or YAML
    #[arg(
        short,
        long,
        value_name = "PATCH",
        required_unless_present = "patch_file"
    )]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "FILE", conflicts_with = "patch")]
    patch_file: Option<PathBuf>,
    /// strategic merges lists by what tells their items apart, merge replaces them (RFC 7396), json is a list of operations (RFC 6902)
    #[arg(long, value_enum, default_value = "strategic")]
    r#type: Type,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    manager: Manager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Type {
    Strategic,
    Merge,
    Json,
}

pub async fn run(to: &Connection, patch: Patch) -> Result<()> {
    let text = match (&patch.patch, &patch.patch_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => {
            fs::read_to_string(file).with_context(|| file.display().to_string())?
        }
        (None, None) => bail!("say what to change: -p PATCH or --patch-file FILE"),
    };
    let change: Value =
        serde_saphyr::from_str(&text).context("the patch is neither JSON nor YAML")?;
    if patch.r#type != Type::Json && !change.is_object() {
        bail!(
            "the patch {change} should be a mapping of fields, such as {{\"spec\": {{\"replicas\": 3}}}}"
        );
    }
    let targets = patch.which.changeable(to).await?;
    if targets.is_empty() {
        bail!("no {} found to change", patch.which.what.join(" "));
    }
    let how = How {
        manager: patch.manager.field_manager,
        dry: patch.dry,
    };
    let client = to.client()?;
    let mut failures = Vec::new();
    for target in &targets {
        let edit = |object: &mut Value| -> Result<()> {
            let change = change.clone();
            match patch.r#type {
                Type::Merge => patch::merge(object, change),
                Type::Json => patch::json(object, change)?,
                Type::Strategic => patch::strategic(object, change, target.kind.message)?,
            }
            Ok(())
        };
        match change::change(&client, target, &how, edit).await {
            Ok((object, true)) => writeln!(io::stdout(), "{object} patched{}", how.note())?,
            Ok((object, false)) => writeln!(io::stdout(), "{object} patched (no change)")?,
            Err(error) => failures.push(error),
        }
    }
    explain::all(failures)
}
