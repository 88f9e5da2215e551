//! `barge apply -f FILE|DIR|-`

use std::io::{self, Write};

use anyhow::{Result, bail};
use barge_client::{
    ApplyOptions, ClientError, batches,
    v1::{ApplyOutcome, ApplyResponse},
};
use barge_proto::manifest::Located;
use clap::Args;
use tokio::time::Instant;

use crate::{
    args::{DryRun, Manager, Manifests, Patience, Where},
    context::Connection,
    explain, settle, sources,
};

#[derive(Debug, Args)]
#[command(after_help = "Example: barge apply -f deploy/examples -n shop --wait --timeout 5m")]
pub struct Apply {
    #[command(flatten)]
    manifests: Manifests,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    manager: Manager,
    /// Take over fields that others set to other values, instead of being refused
    #[arg(long, visible_alias = "force")]
    force_conflicts: bool,
    /// Wait until all that was applied is as it should be: Deployments rolled out, pods of ReplicaSets available, pods ready, load balancers with an address
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    patience: Patience,
}

pub async fn run(to: &Connection, apply: Apply) -> Result<()> {
    let deadline = Instant::now() + apply.patience.timeout.0;
    let located = sources::read_in(&apply.manifests.files, &apply.manifests.namespace, to)?;
    if apply.dry.dry_run == Some(Where::Client) {
        sources::check(&located)?;
        for one in &located {
            writeln!(io::stdout(), "{} is valid (dry run)", one.object)?;
        }
        return Ok(());
    }
    let client = to.client()?;
    let options = ApplyOptions {
        field_manager: apply.manager.field_manager,
        force: apply.force_conflicts,
        dry_run: apply.dry.dry_run.is_some(),
        ..ApplyOptions::default()
    };
    let batches = batches(located.iter().map(|one| one.object.clone()).collect());
    if batches.len() > 1 {
        eprintln!(
            "{} objects are more than one request holds: applying them in {}, each whole or not at all",
            located.len(),
            batches.len()
        );
    }
    let mut answer = ApplyResponse::default();
    for batch in batches {
        match client.apply(batch, &options).await {
            Ok(applied) => {
                print(&applied, options.dry_run)?;
                answer.results.extend(applied.results);
            }
            Err(error) => return Err(refused(error, &located, answer.results.len())),
        }
    }
    if !apply.wait || options.dry_run {
        return Ok(());
    }
    let objects = answer.results.into_iter().filter_map(|it| it.object);
    let objects: Vec<_> = objects.collect();
    explain::all(settle::wait(&client, &objects, deadline).await)
}

/// What was refused, and what was applied before that.
fn refused(error: ClientError, located: &[Located], applied: usize) -> anyhow::Error {
    let error = point_at(error, located);
    match applied {
        0 => error,
        applied => anyhow::anyhow!(
            "{error:#}\n{applied} of {} objects were applied before; applying again goes on",
            located.len()
        ),
    }
}

fn print(answer: &ApplyResponse, dry: bool) -> Result<()> {
    for warning in &answer.warnings {
        eprintln!("warning: {warning}");
    }
    let mut out = io::stdout().lock();
    for result in &answer.results {
        let Some(object) = &result.object else {
            bail!("the manager's answer lacks an object");
        };
        let outcome = match result.outcome() {
            ApplyOutcome::Created => "created",
            ApplyOutcome::Configured => "configured",
            ApplyOutcome::Unchanged => "unchanged",
            ApplyOutcome::Unspecified => "applied",
        };
        let note = if dry { " (dry run)" } else { "" };
        writeln!(out, "{object} {outcome}{note}")?;
    }
    Ok(())
}

/// Where the manifests break the rules that the cluster named, each with its line.
pub fn point_at(error: ClientError, located: &[Located]) -> anyhow::Error {
    let ClientError::Refused(refusal) = &error else {
        return error.into();
    };
    let lines: Vec<_> = refusal
        .violations
        .iter()
        .filter_map(|violation| {
            let (object, field) = split(&violation.field);
            let one = located
                .iter()
                .find(|one| one.object.to_string() == object)?;
            let message = match field {
                "" => format!("{object} {}", violation.description),
                field => format!("{field}: {}", violation.description),
            };
            Some(one.error(field, message).to_string())
        })
        .collect();
    // One that is not of the manifests: the server's own words say all.
    if lines.is_empty() || lines.len() < refusal.violations.len() {
        return error.into();
    }
    anyhow::Error::msg(lines.join("\n"))
}

/// "deployment.apps/web: spec.replicas" is a field of an object; without a colon, all of it.
fn split(field: &str) -> (&str, &str) {
    field.split_once(": ").unwrap_or((field, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::error::{Refusal, Violation};
    use barge_proto::manifest::{self, Source};

    fn refused(field: &str) -> ClientError {
        ClientError::Refused(Box::new(Refusal {
            code: barge_client::error::Code::InvalidArgument,
            reason: "INVALID".into(),
            message: "the server's words".into(),
            violations: vec![Violation {
                field: field.into(),
                description: "-1 must be at least 0".into(),
            }],
            r#continue: String::new(),
        }))
    }

    #[test]
    fn a_violation_points_at_its_line() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\n";
        let located = manifest::parse([Source::new("x.yaml", text)]).unwrap();
        let error = point_at(refused("namespace/b: metadata.name"), &located).to_string();
        assert!(error.contains("x.yaml:9:"), "{error}");
        assert!(error.contains("metadata.name: -1 must be"), "{error}");
        let error = point_at(refused("namespace/other: spec"), &located).to_string();
        assert_eq!(error, "the server's words");
    }
}
