//! `barge rollout status|history|undo|pause|resume|restart KIND NAME`

use std::io::{self, Write};

use anyhow::{Result, bail};
use barge_client::{
    Client, UpdateOptions,
    v1::{Object, Pod, TemplateRevision, rollout_request::Action},
};
use barge_proto::manifest;
use clap::{Args, Subcommand};

use crate::{
    args::{Manager, Namespace, Patience},
    context::Connection,
    names::{self, Named},
    output::{self, Table},
    rollout,
};

#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Wait until a rollout is complete, and say how it goes
    Status(Status),
    /// Show the templates there were, or one of them
    History(History),
    /// Go back to an earlier template
    Undo(Undo),
    /// Hold a rollout where it is; scaling goes on
    Pause(Change),
    /// Let a paused rollout go on
    Resume(Change),
    /// Replace all pods by new ones of the same template
    Restart(Change),
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Args)]
pub struct History {
    #[command(flatten)]
    target: Target,
    /// Show the template of this revision
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Undo {
    #[command(flatten)]
    change: Change,
    /// The revision to go back to; by default the one before the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    to_revision: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Change {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    manager: Manager,
}

#[derive(Debug, Args)]
pub struct Target {
    /// KIND NAME, or KIND/NAME
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    #[command(flatten)]
    namespace: Namespace,
}

impl Target {
    fn named(&self) -> Result<Named<'_>> {
        let named = names::one(&self.what)?;
        names::scalable(named.kind)?;
        Ok(named)
    }
}

pub async fn run(to: &Connection, rollout: Rollout) -> Result<()> {
    match rollout {
        Rollout::Status(status) => follow(to, status).await,
        Rollout::History(history) => show(to, history).await,
        Rollout::Undo(undo) => {
            let number = undo.to_revision.unwrap_or(0);
            change(to, undo.change, Action::Undo(number), "rolled back").await
        }
        Rollout::Pause(pause) => change(to, pause, Action::Pause(true), "paused").await,
        Rollout::Resume(resume) => change(to, resume, Action::Pause(false), "resumed").await,
        Rollout::Restart(restart) => change(to, restart, Action::Restart(true), "restarted").await,
    }
}

async fn follow(to: &Connection, status: Status) -> Result<()> {
    let named = status.target.named()?;
    let client = to.client()?;
    let namespace = &status.target.namespace.of(to)?;
    exists(&client, named, namespace).await?;
    rollout::wait(&client, namespace, named.name, status.patience.timeout.0).await?;
    Ok(writeln!(
        io::stdout(),
        "{}/{} is rolled out",
        named.kind.qualified(),
        named.name
    )?)
}

async fn exists(client: &Client, named: Named<'_>, namespace: &str) -> Result<()> {
    let found = client.find(named.kind.kind, namespace, named.name).await?;
    match found {
        Some(_) => Ok(()),
        None => Err(names::not_found(client, named, namespace).await),
    }
}

async fn change(to: &Connection, change: Change, action: Action, done: &str) -> Result<()> {
    let named = change.target.named()?;
    let client = to.client()?;
    let namespace = &change.target.namespace.of(to)?;
    let options = UpdateOptions {
        field_manager: change.manager.field_manager.clone(),
        ..UpdateOptions::default()
    };
    exists(&client, named, namespace).await?;
    let kind = named.kind.kind;
    let object = client
        .rollout(kind, namespace, named.name, action, &options)
        .await?;
    Ok(writeln!(io::stdout(), "{object} {done}")?)
}

async fn show(to: &Connection, history: History) -> Result<()> {
    let named = history.target.named()?;
    let client = to.client()?;
    let namespace = &history.target.namespace.of(to)?;
    exists(&client, named, namespace).await?;
    let revisions = client
        .rollout_history(named.kind.kind, namespace, named.name)
        .await?;
    let Some(number) = history.revision else {
        return Ok(table(&revisions, output::now()).show()?);
    };
    let Some(found) = revisions.into_iter().find(|r| r.number == number) else {
        bail!(
            "{}/{} has no revision {number}; `barge rollout history {}` lists them",
            named.kind.qualified(),
            named.name,
            history.target.what.join(" ")
        );
    };
    Ok(io::stdout().write_all(manifest::to_yaml(&as_pod(found))?.as_bytes())?)
}

fn table(revisions: &[TemplateRevision], now: i64) -> Table {
    let mut table = Table::new(vec!["REVISION", "AGE", "PODS", "IMAGES"]);
    for revision in revisions {
        table.push(vec![
            revision.number.to_string(),
            output::age(revision.created.as_ref(), now),
            format!("{}-*", revision.name),
            images(revision).join(","),
        ]);
    }
    table
}

fn images(revision: &TemplateRevision) -> Vec<&str> {
    let spec = revision.template.iter().filter_map(|t| t.spec.as_ref());
    let containers = spec.flat_map(|spec| &spec.containers);
    containers
        .map(|container| container.image.as_str())
        .collect()
}

/// A template as the pod that it makes.
fn as_pod(revision: TemplateRevision) -> Object {
    let template = revision.template.unwrap_or_default();
    Pod {
        metadata: template.metadata,
        spec: template.spec,
        ..Pod::default()
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::{Container, PodSpec, PodTemplateSpec, Time};

    #[test]
    fn a_history_has_a_row_for_each_template() {
        let revision = |number, image: &str| TemplateRevision {
            number,
            name: format!("web-{number}"),
            created: Some(Time::from_seconds(100)),
            template: Some(PodTemplateSpec {
                spec: Some(PodSpec {
                    containers: vec![Container {
                        image: image.into(),
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
                ..PodTemplateSpec::default()
            }),
        };
        let mut out = Vec::new();
        table(&[revision(1, "a:1"), revision(2, "a:2")], 160)
            .print(&mut out)
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "REVISION   AGE   PODS      IMAGES\n\
             1          60s   web-1-*   a:1\n\
             2          60s   web-2-*   a:2\n"
        );
    }
}
