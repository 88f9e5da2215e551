//! `barge credential create|list|revoke`

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Result, bail};
use barge_client::{client::NewCredential, config::Config};
use clap::Subcommand;

use crate::{
    context::Connection,
    duration::{self, Span},
    output::{self, Table},
};

/// The group whose members may do everything.
const MASTERS: &str = "system:masters";
/// The group of all users with a credential.
const EVERYBODY: &str = "system:authenticated";

#[derive(Debug, Subcommand)]
pub enum Credential {
    /// Make a credential for another person, machine or program. It may do what bindings for its name and groups allow
    Create {
        /// Its name, by which it is listed and revoked
        name: String,
        /// The file to write it to, for --config and $BARGE_CONFIG or `barge config import` (mode 0600)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// A group that it is a member of, for bindings; may be given several times
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// It may do everything, whatever bindings say: short for --group system:masters
        #[arg(long)]
        admin: bool,
        /// For a service account instead of a person; ends with it
        #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "admin")]
        service_account: Option<String>,
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
            mut groups,
            admin,
            service_account,
            bearer,
            ttl,
            description,
        } => {
            if admin && !groups.iter().any(|group| group == MASTERS) {
                groups.push(MASTERS.to_owned());
            }
            if out.exists() {
                bail!("{} exists: choose another --out", out.display());
            }
            let wanted = NewCredential {
                name,
                bearer,
                ttl_seconds: ttl.map_or(0, |ttl| ttl.0.as_secs().max(1)),
                description,
                groups,
                service_account: service_account.unwrap_or_default(),
            };
            let (context, info) = client.create_credential(&wanted).await?;
            Config::of(context).save(&out)?;
            let may = match info.groups.iter().any(|group| group == MASTERS) {
                true => "it may do everything".to_owned(),
                false => format!("it may do what bindings for {} allow", info.user),
            };
            writeln!(
                io::stdout(),
                "credential {} written to {}; {may}",
                info.name,
                out.display()
            )?;
        }
        Credential::List => {
            let now = output::now();
            let mut table = Table::new(vec![
                "NAME",
                "KIND",
                "USER",
                "GROUPS",
                "EXPIRES",
                "AGE",
                "DESCRIPTION",
            ]);
            for info in client.credentials().await? {
                // What everybody is in says nothing.
                let groups = info.groups.iter().filter(|group| *group != EVERYBODY);
                let groups: Vec<_> = groups.map(String::as_str).collect();
                table.push(vec![
                    info.name,
                    if info.bearer { "bearer" } else { "certificate" }.to_owned(),
                    info.user,
                    groups.join(","),
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
