//! `barge credential create|list|revoke`

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Result, bail};
use barge_client::{client::NewCredential, config::Config};
use clap::Subcommand;

use crate::{
    args::Connection,
    duration::{self, Span},
    output::{self, Table},
};

#[derive(Debug, Subcommand)]
pub enum Credential {
    /// Make a credential for another person, machine or program
    Create {
        /// Its name, by which it is listed and revoked
        name: String,
        /// The file to write it to, for --config and $BARGE_CONFIG or `barge config import` (mode 0600)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// A bearer token instead of a certificate, for programs that send an `authorization: Bearer` header
        #[arg(long)]
        bearer: bool,
        /// When it ends ("12h", "90d"); by default never for a certificate, which is renewed while it is used, and
        /// after 365d for a bearer token
        #[arg(long)]
        ttl: Option<Span>,
        /// What it is for
        #[arg(long, default_value = "", value_name = "TEXT")]
        description: String,
    },
    /// Show the credentials, without their secrets
    List,
    /// Make a credential useless
    Revoke {
        /// Its name
        name: String,
    },
}

pub async fn run(to: &Connection, credential: Credential) -> Result<()> {
    let client = to.client()?;
    match credential {
        Credential::Create {
            name,
            out,
            bearer,
            ttl,
            description,
        } => {
            if out.exists() {
                bail!("{} exists: choose another --out", out.display());
            }
            let wanted = NewCredential {
                name,
                bearer,
                ttl_seconds: ttl.map_or(0, |ttl| ttl.0.as_secs().max(1)),
                description,
            };
            let (context, info) = client.create_credential(&wanted).await?;
            Config::of(context).save(&out)?;
            writeln!(
                io::stdout(),
                "credential {} written to {}; it is as good as yours",
                info.name,
                out.display()
            )?;
        }
        Credential::List => {
            let now = output::now();
            let mut table = Table::new(vec![
                "NAME",
                "KIND",
                "ROLE",
                "EXPIRES",
                "AGE",
                "DESCRIPTION",
            ]);
            for info in client.credentials().await? {
                let role = barge_client::identity::role_word(info.role()).to_owned();
                table.push(vec![
                    info.name,
                    if info.bearer { "bearer" } else { "certificate" }.to_owned(),
                    role,
                    info.expires
                        .map_or_else(|| "never".to_owned(), |time| output::until(time, now)),
                    info.created.map_or_else(String::new, |time| {
                        duration::human(now.saturating_sub(time.seconds))
                    }),
                    info.description,
                ]);
            }
            table.show()?;
        }
        Credential::Revoke { name } => {
            client.revoke_credential(&name).await?;
            writeln!(io::stdout(), "credential {name} revoked")?;
        }
    }
    Ok(())
}
