//! `barge apply -f FILE|DIR|-`

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Result, bail};
use barge_client::{
    ClientError,
    v1::{ApplyOutcome, ApplyResponse, Kind, Object},
};
use barge_proto::manifest::Located;
use clap::{Args, ValueEnum};
use tokio::time::Instant;

use crate::{
    args::{Connection, Patience},
    explain, rollout, sources,
};

#[derive(Debug, Args)]
pub struct Apply {
    /// A manifest, a folder of manifests, or - for standard input
    #[arg(
        short = 'f',
        long = "filename",
        required = true,
        value_name = "FILE|DIR|-"
    )]
    files: Vec<PathBuf>,
    /// Change nothing: only read and validate here, or have the cluster answer as if
    #[arg(long, value_enum, value_name = "WHERE")]
    dry_run: Option<DryRun>,
    /// Wait until what was applied runs
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DryRun {
    Client,
    Server,
}

pub async fn run(to: &Connection, apply: Apply) -> Result<()> {
    let deadline = Instant::now() + apply.patience.timeout.0;
    let located = sources::read(&apply.files)?;
    if apply.dry_run == Some(DryRun::Client) {
        for one in &located {
            writeln!(io::stdout(), "{} is valid (dry run)", one.object)?;
        }
        return Ok(());
    }
    let client = to.client()?;
    let dry = apply.dry_run.is_some();
    let objects: Vec<_> = located.iter().map(|one| one.object.clone()).collect();
    let answer = match client.apply(objects, dry).await {
        Ok(answer) => answer,
        Err(error) => return Err(point_at(error, &located)),
    };
    print(&answer, dry)?;
    if !apply.wait || dry {
        return Ok(());
    }
    let mut failures = Vec::new();
    for object in deployments(&answer) {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(error) = rollout::wait(&client, object.namespace(), object.name(), left).await {
            failures.push(error);
        }
    }
    match failures.pop() {
        None => Ok(()),
        Some(last) => {
            failures.iter().for_each(explain::print);
            Err(last)
        }
    }
}

fn deployments(answer: &ApplyResponse) -> impl Iterator<Item = &Object> {
    let objects = answer
        .results
        .iter()
        .filter_map(|result| result.object.as_ref());
    objects.filter(|object| object.kind() == Kind::Deployment)
}

fn print(answer: &ApplyResponse, dry: bool) -> Result<()> {
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

/// Where the manifests break the rules that the cluster named, each on a line of its own. A violation's field begins
/// with the object when several were sent ("objects[1].spec.replicas").
fn point_at(error: ClientError, located: &[Located]) -> anyhow::Error {
    let ClientError::Refused(refusal) = &error else {
        return error.into();
    };
    let lines: Vec<_> = refusal
        .violations
        .iter()
        .filter_map(|violation| {
            let (index, field) = indexed(&violation.field);
            let one = located.get(index)?;
            let message = format!("{field}: {}", violation.description);
            Some(one.error(field, message).to_string())
        })
        .collect();
    if lines.is_empty() || lines.len() < refusal.violations.len() {
        return error.into();
    }
    anyhow::Error::msg(lines.join("\n"))
}

/// "objects[1].spec.replicas" is the second object's "spec.replicas"; without a number it is the first's.
fn indexed(field: &str) -> (usize, &str) {
    let parsed = field.strip_prefix("objects[").and_then(|rest| {
        let (number, rest) = rest.split_once(']')?;
        Some((number.parse().ok()?, rest.strip_prefix('.').unwrap_or(rest)))
    });
    parsed.unwrap_or((0, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_its_object() {
        assert_eq!(indexed("objects[2].spec.replicas"), (2, "spec.replicas"));
        assert_eq!(indexed("spec.ports[0].port"), (0, "spec.ports[0].port"));
        assert_eq!(indexed("objects[x].spec"), (0, "objects[x].spec"));
    }
}
