//! `barge version`

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;

use crate::context::Connection;

#[derive(Debug, Args)]
pub struct Version {
    /// Only of this program; asks no manager
    #[arg(long)]
    client: bool,
}

pub async fn run(to: &Connection, version: Version) -> Result<()> {
    writeln!(io::stdout(), "barge {}", env!("CARGO_PKG_VERSION"))?;
    if version.client {
        return Ok(());
    }
    for one in to.client()?.status().await?.members {
        let address = one.member.map(|member| member.address).unwrap_or_default();
        match one.status {
            Some(status) => writeln!(io::stdout(), "manager {address} {}", status.version)?,
            None => writeln!(
                io::stdout(),
                "manager {address} does not answer: {}",
                one.error
            )?,
        }
    }
    Ok(())
}
