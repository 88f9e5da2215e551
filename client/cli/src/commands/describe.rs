//! `barge describe KIND NAME`

use std::io::{self, Write};

use anyhow::Result;
use barge_client::{
    Client, ClientError, Selection,
    v1::{Kind, Object, object},
};
use clap::Args;

use super::get::sort;
use crate::{
    args::Namespace,
    context::Connection,
    names,
    output::{self, Columns},
    pods, rollout,
};

mod containers;
pub mod rbac;
pub mod sections;
pub mod text;

#[derive(Debug, Args)]
pub struct Describe {
    /// KIND NAME, or KIND/NAME
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    #[command(flatten)]
    namespace: Namespace,
}

pub async fn run(to: &Connection, describe: Describe) -> Result<()> {
    let named = names::several(&describe.what)?;
    let client = to.client()?;
    let namespace = describe.namespace.of(to)?;
    for (index, one) in named.iter().enumerate() {
        let namespace = names::namespace_of(one.kind, &namespace);
        let Some(object) = client.find(one.kind.kind, namespace, one.name).await? else {
            return Err(names::not_found(&client, *one, namespace).await);
        };
        if index > 0 {
            writeln!(io::stdout())?;
        }
        show(&client, &object).await?;
    }
    if named.is_empty() {
        anyhow::bail!("say which: KIND NAME, or KIND/NAME");
    }
    Ok(())
}

async fn show(client: &Client, object: &Object) -> Result<()> {
    let now = output::now();
    io::stdout().write_all(sections::describe(object, now).as_bytes())?;
    let pods = match &object.kind {
        Some(object::Kind::Deployment(deployment)) => {
            Some(rollout::pods(client, deployment).await?)
        }
        Some(object::Kind::ReplicaSet(_)) => {
            Some(pods::of(client, object.namespace(), object.uid()).await?)
        }
        _ => None,
    };
    if let Some(pods) = pods {
        let pods: Vec<_> = pods.into_iter().map(Object::from).collect();
        table("Pods", Kind::Pod, &pods, now)?;
    }
    if let Some(object::Kind::Node(node)) = &object.kind {
        let name = node.metadata.as_ref().map_or("", |metadata| &metadata.name);
        let mut pods = client.list(&Selection::of(Kind::Pod, "")).await?.objects;
        pods.retain(|pod| is_on(pod, name));
        table("Pods", Kind::Pod, &pods, now)?;
    }
    let mut events = match events(client, object).await {
        // An object may be for somebody who may not see all that happens.
        Err(error) if error.reason() == Some("DENIED") => {
            return Ok(writeln!(io::stdout(), "Events: not yours to see")?);
        }
        events => events?,
    };
    sort(&mut events);
    table("Events", Kind::Event, &events, now)
}

fn is_on(object: &Object, node: &str) -> bool {
    match &object.kind {
        Some(object::Kind::Pod(pod)) => {
            pod.spec.as_ref().is_some_and(|spec| spec.node_name == node)
        }
        _ => false,
    }
}

/// What happened to the object, and for a Deployment to its pods.
async fn events(client: &Client, object: &Object) -> Result<Vec<Object>, ClientError> {
    let about = Selection {
        owner_uid: object.uid().to_owned(),
        ..Selection::of(Kind::Event, object.namespace())
    };
    Ok(client.list(&about).await?.objects)
}

fn table(title: &str, kind: Kind, objects: &[Object], now: i64) -> Result<()> {
    if objects.is_empty() {
        return Ok(writeln!(io::stdout(), "{title}: none")?);
    }
    writeln!(io::stdout(), "{title}:")?;
    let mut text = Vec::new();
    output::table(kind, objects, &Columns::default(), now)?.print(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let mut out = io::stdout().lock();
    for line in text.lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}
