//! `barge scale KIND/NAME --replicas N`

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;

use crate::{
    args::{Connection, Namespace},
    names,
};

#[derive(Debug, Args)]
pub struct Scale {
    /// KIND/NAME
    what: String,
    /// How many
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    replicas: i32,
    #[command(flatten)]
    namespace: Namespace,
}

pub async fn run(to: &Connection, scale: Scale) -> Result<()> {
    let named = names::slashed(&scale.what)?;
    names::scalable(named.kind)?;
    let client = to.client()?;
    let namespace = &scale.namespace.namespace;
    match client
        .scale(named.kind.kind, namespace, named.name, scale.replicas)
        .await
    {
        Ok(object) => Ok(writeln!(
            io::stdout(),
            "{object} scaled to {}",
            scale.replicas
        )?),
        Err(error) if error.is_not_found() => {
            Err(names::not_found(&client, named, namespace).await)
        }
        Err(error) => Err(error.into()),
    }
}
