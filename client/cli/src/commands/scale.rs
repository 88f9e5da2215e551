//! `barge scale KIND NAME --replicas N`

use std::io::{self, Write};

use anyhow::Result;
use barge_client::UpdateOptions;
use clap::Args;

use crate::{
    args::{Manager, Namespace},
    context::Connection,
    names,
};

#[derive(Debug, Args)]
pub struct Scale {
    /// KIND NAME, or KIND/NAME
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// How many
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    replicas: i32,
    /// Only if it has not changed since this resourceVersion
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "VERSION"
    )]
    resource_version: String,
    #[command(flatten)]
    manager: Manager,
    #[command(flatten)]
    namespace: Namespace,
}

pub async fn run(to: &Connection, scale: Scale) -> Result<()> {
    let named = names::one(&scale.what)?;
    names::scalable(named.kind)?;
    let client = to.client()?;
    let namespace = &scale.namespace.of(to)?;
    let options = UpdateOptions {
        field_manager: scale.manager.field_manager,
        resource_version: scale.resource_version,
    };
    let kind = named.kind.kind;
    match client
        .scale(kind, namespace, named.name, scale.replicas, &options)
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
