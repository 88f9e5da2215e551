//! `barge delete -f FILE` and `barge delete KIND NAME…`

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Result, bail};
use barge_client::{
    Client, DeleteOptions, Selection, WatchEvent,
    v1::{DeletionPropagation, Kind, Object},
};
use clap::{ArgAction, Args, ValueEnum};
use tokio::time::{Instant, timeout_at};

use crate::{
    args::{DryRun, Namespace, Patience, Where},
    context::Connection,
    explain,
    names::{self, Named},
    sources,
};

#[derive(Debug, Args)]
pub struct Delete {
    /// KIND and names, or KIND/NAME
    #[arg(
        required_unless_present = "files",
        conflicts_with = "files",
        value_name = "KIND NAME"
    )]
    what: Vec<String>,
    /// The objects of a manifest, a folder of manifests, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    namespace: Namespace,
    /// Seconds between TERM and KILL, instead of the pod's own
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    grace_period: Option<i64>,
    /// What becomes of what the object owns: ended after it, before it, or left alone
    #[arg(long, value_enum, default_value = "background")]
    cascade: Cascade,
    /// Only the incarnation with this uid
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        conflicts_with = "files"
    )]
    uid: String,
    /// Only if it has not changed since this resourceVersion
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "VERSION",
        conflicts_with = "files"
    )]
    resource_version: String,
    #[command(flatten)]
    dry: DryRun,
    /// Return only when the objects are gone
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    wait: bool,
    /// An object that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

impl From<Cascade> for DeletionPropagation {
    fn from(cascade: Cascade) -> Self {
        match cascade {
            Cascade::Background => Self::Background,
            Cascade::Foreground => Self::Foreground,
            Cascade::Orphan => Self::Orphan,
        }
    }
}

/// An object to delete.
struct Target {
    kind: &'static barge_proto::kinds::KindInfo,
    namespace: String,
    name: String,
}

pub async fn run(to: &Connection, delete: Delete) -> Result<()> {
    let deadline = Instant::now() + delete.patience.timeout.0;
    let targets = targets(&delete)?;
    if delete.dry.dry_run == Some(Where::Client) {
        for target in &targets {
            let Target { kind, name, .. } = target;
            writeln!(
                io::stdout(),
                "{}/{name} deleted (dry run)",
                kind.qualified()
            )?;
        }
        return Ok(());
    }
    let client = to.client()?;
    let mut failures = Vec::new();
    let mut ending = Vec::new();
    for target in &targets {
        match one(&client, &delete, target).await {
            Ok(Some(object)) => ending.push((target, object)),
            Ok(None) => {}
            Err(error) => failures.push(error),
        }
    }
    if delete.wait && delete.dry.dry_run.is_none() {
        for (target, object) in &ending {
            if timeout_at(deadline, gone(&client, target, object))
                .await
                .is_err()
            {
                failures.push(anyhow::anyhow!(
                    "{object} still ends; `barge describe {} {}` shows what it waits for",
                    target.kind.singular,
                    target.name
                ));
            }
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

fn targets(delete: &Delete) -> Result<Vec<Target>> {
    let default = &delete.namespace.namespace;
    if delete.files.is_empty() {
        let named = names::several(&delete.what)?;
        if named.is_empty() {
            bail!("say which: KIND NAME, or KIND/NAME");
        }
        let target = |one: &Named<'_>| Target {
            kind: one.kind,
            namespace: names::namespace_of(one.kind, default).to_owned(),
            name: one.name.to_owned(),
        };
        return Ok(named.iter().map(target).collect());
    }
    let target = |object: &Object| {
        let kind = object.kind().info()?;
        let namespace = match object.namespace() {
            "" => default,
            own => own,
        };
        Some(Target {
            kind,
            namespace: names::namespace_of(kind, namespace).to_owned(),
            name: object.name().to_owned(),
        })
    };
    Ok(sources::read(&delete.files)?
        .iter()
        .filter_map(|one| target(&one.object))
        .collect())
}

/// Deletes one; answers with the object that goes.
async fn one(client: &Client, delete: &Delete, target: &Target) -> Result<Option<Object>> {
    let options = DeleteOptions {
        grace_period_seconds: delete.grace_period,
        uid: delete.uid.clone(),
        resource_version: delete.resource_version.clone(),
        propagation: delete.cascade.into(),
        dry_run: delete.dry.dry_run.is_some(),
    };
    let Target {
        kind,
        namespace,
        name,
    } = target;
    match client.delete(kind.kind, namespace, name, &options).await {
        Ok(object) => {
            let note = if options.dry_run { " (dry run)" } else { "" };
            writeln!(io::stdout(), "{object} deleted{note}")?;
            Ok(Some(object))
        }
        Err(error) if error.is_not_found() => match delete.ignore_not_found {
            true => Ok(None),
            false => {
                let named = Named { kind, name };
                Err(names::not_found(client, named, namespace).await)
            }
        },
        Err(error) => Err(error.into()),
    }
}

/// Returns when this incarnation of the object is gone.
async fn gone(client: &Client, target: &Target, object: &Object) -> Result<()> {
    let kind: Kind = target.kind.kind;
    let mut watcher = client.list_and_watch(Selection {
        name: target.name.clone(),
        ..Selection::of(kind, &target.namespace)
    });
    loop {
        let event = watcher.next().await?;
        let there = watcher.objects().any(|other| other.uid() == object.uid());
        match event {
            WatchEvent::Synced { .. } | WatchEvent::Deleted(_) if !there => return Ok(()),
            _ => {}
        }
    }
}
