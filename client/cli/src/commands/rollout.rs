//! `barge rollout status KIND/NAME`

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    args::{Connection, Namespace, Patience},
    names, rollout,
};

#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Wait until a rollout is complete, and say how it goes
    Status(Status),
}

#[derive(Debug, Args)]
pub struct Status {
    /// KIND/NAME
    what: String,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    patience: Patience,
}

pub async fn run(to: &Connection, Rollout::Status(status): Rollout) -> Result<()> {
    let named = names::slashed(&status.what)?;
    names::scalable(named.kind)?;
    let client = to.client()?;
    let namespace = &status.namespace.namespace;
    if client
        .find(named.kind.kind, namespace, named.name)
        .await?
        .is_none()
    {
        return Err(names::not_found(&client, named, namespace).await);
    }
    rollout::wait(&client, namespace, named.name, status.patience.timeout.0).await?;
    Ok(writeln!(
        io::stdout(),
        "{}/{} is rolled out",
        named.kind.qualified(),
        named.name
    )?)
}
