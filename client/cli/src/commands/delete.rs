//! `barge delete KIND NAME…`, `-l SELECTOR`, `--all`, and `barge delete -f FILE`

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use anyhow::{Result, anyhow};
use barge_client::{
    Client, DeleteOptions,
    v1::{DeletionPropagation, Kind, Object},
};
use clap::{ArgAction, Args, ValueEnum};
use tokio::time::{Instant, timeout_at};

use crate::{
    args::{DryRun, Patience, Where},
    context::Connection,
    explain,
    follow::{self, Group},
    names,
    targets::{Target, Which},
};

const EXAMPLES: &str = "\
Examples:
  barge delete deployment web
  barge delete pods,services -l app=web -n shop
  barge delete pods --all --now
  barge delete -f web.yaml";

/// Seconds between TERM and KILL with --now.
const NOW: i64 = 1;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Delete {
    #[command(flatten)]
    which: Which,
    /// Seconds between TERM and KILL, instead of the pod's own
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    grace_period: Option<i64>,
    /// Kill containers a second after TERM, as --grace-period 1
    #[arg(long, conflicts_with = "grace_period")]
    now: bool,
    /// What becomes of what the object owns: ended after it, before it, or left alone
    #[arg(long, value_enum, default_value = "background")]
    cascade: Cascade,
    /// Only the incarnation with this uid
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        conflicts_with_all = ["files", "selector", "all"]
    )]
    uid: String,
    /// Only if it has not changed since this resourceVersion
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "VERSION",
        conflicts_with_all = ["files", "selector", "all"]
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

pub async fn run(to: &Connection, delete: Delete) -> Result<()> {
    let deadline = Instant::now() + delete.patience.timeout.0;
    let targets = ordered(delete.which.changeable(to).await?);
    if targets.is_empty() {
        let namespace = delete.which.namespaces.of(to)?;
        let place = match namespace.as_str() {
            "" => String::new(),
            one => format!(" in namespace {one}"),
        };
        eprintln!("no {} found to delete{place}", delete.which.what.join(" "));
        return Ok(());
    }
    if delete.dry.dry_run == Some(Where::Client) {
        for target in &targets {
            writeln!(io::stdout(), "{target} deleted (dry run)")?;
        }
        return Ok(());
    }
    let client = to.client()?;
    let namespaces = namespaces(&targets);
    let mut failures = Vec::new();
    let mut ending = Vec::new();
    for target in &targets {
        let goes_anyway = target.found || namespaces.contains(target.namespace.as_str());
        match one(&client, &delete, target, goes_anyway).await {
            Ok(object) => ending.extend(object),
            Err(error) => failures.push(error),
        }
    }
    if delete.wait && delete.dry.dry_run.is_none() {
        let named = ending
            .iter()
            .map(|it| (it.kind(), it.namespace(), it.name()));
        for mut group in follow::groups(named) {
            match timeout_at(deadline, gone(&client, &mut group, &ending)).await {
                Ok(done) => failures.extend(done.err()),
                Err(_) => failures.extend(late(&group)),
            }
        }
    }
    explain::all(failures)
}

/// Owners before the pods that they would replace, and namespaces after what is in them.
fn ordered(mut targets: Vec<Target>) -> Vec<Target> {
    targets.sort_by_key(|target| match target.kind.kind {
        Kind::Namespace => 2,
        Kind::Pod if target.found => 1,
        _ => 0,
    });
    targets
}

/// The namespaces that are deleted.
fn namespaces(targets: &[Target]) -> BTreeSet<&str> {
    let namespaces = targets.iter().filter(|it| it.kind.kind == Kind::Namespace);
    namespaces.map(|it| it.name.as_str()).collect()
}

/// Deletes one; answers with the object that goes. One that goes anyway may be gone already.
async fn one(
    client: &Client,
    delete: &Delete,
    target: &Target,
    goes_anyway: bool,
) -> Result<Option<Object>> {
    let options = DeleteOptions {
        grace_period_seconds: delete.grace_period.or(delete.now.then_some(NOW)),
        uid: match target.uid.as_str() {
            "" => delete.uid.clone(),
            found => found.to_owned(),
        },
        resource_version: delete.resource_version.clone(),
        propagation: delete.cascade.into(),
        dry_run: delete.dry.dry_run.is_some(),
    };
    let (kind, namespace, name) = (target.kind.kind, &target.namespace, &target.name);
    match client.delete(kind, namespace, name, &options).await {
        Ok(object) => {
            let note = if options.dry_run { " (dry run)" } else { "" };
            writeln!(io::stdout(), "{object} deleted{note}")?;
            Ok(Some(object))
        }
        Err(error) if error.is_not_found() => match delete.ignore_not_found || goes_anyway {
            true => Ok(None),
            false => Err(names::not_found(client, target.named(), namespace).await),
        },
        Err(error) if error.reason() == Some("CONFLICT") && target.found => {
            // Made anew since it was found, it is another one, which nobody asked to delete.
            let now = client.find(kind, namespace, name).await?;
            match now.is_none_or(|now| now.uid() != target.uid) {
                true => Ok(None),
                false => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns when these incarnations of the objects are gone.
async fn gone(client: &Client, group: &mut Group, ending: &[Object]) -> Result<()> {
    let (kind, namespace) = (group.kind, group.namespace.clone());
    let uids: BTreeSet<_> = ending
        .iter()
        .filter(|it| it.kind() == kind && it.namespace() == namespace)
        .map(Object::uid)
        .collect();
    group
        .follow(client, false, |_, object| {
            Ok(object.is_none_or(|object| !uids.contains(object.uid())))
        })
        .await
}

/// What is not gone in time.
fn late(group: &Group) -> Vec<anyhow::Error> {
    let Some(kind) = group.kind.info() else {
        return Vec::new();
    };
    let place = match group.namespace.as_str() {
        "" => String::new(),
        namespace => format!(" -n {namespace}"),
    };
    let late = |name: &String| {
        let (qualified, singular) = (kind.qualified(), &kind.singular);
        anyhow!(
            "{qualified}/{name} still ends; `barge describe {singular} {name}{place}` shows what it waits for"
        )
    };
    group.names.iter().map(late).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_proto::kinds;

    fn target(kind: &str, name: &str, found: bool) -> Target {
        Target {
            kind: kinds::by_name(kind).unwrap(),
            namespace: "shop".into(),
            name: name.into(),
            uid: String::new(),
            found,
            keeper: None,
        }
    }

    #[test]
    fn namespaces_go_last_and_found_pods_after_their_owners() {
        let order = ordered(vec![
            target("namespace", "shop", false),
            target("pod", "web-1", true),
            target("deployment", "web", true),
        ]);
        let names: Vec<_> = order.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["web", "web-1", "shop"]);
        assert!(namespaces(&order).contains("shop"));
    }

    #[test]
    fn what_is_late_is_named_with_its_namespace() {
        let mut groups = follow::groups([(Kind::Pod, "shop", "web-1")]);
        let error = late(&groups.remove(0)).remove(0).to_string();
        assert!(
            error.contains("barge describe pod web-1 -n shop"),
            "{error}"
        );
    }
}
