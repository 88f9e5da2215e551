//! `barge service-account token|review|keys|rotate-key`

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use barge_client::v1::{BoundPod, RequestTokenRequest, ReviewTokenRequest};
use clap::{Args, Subcommand};

use crate::{
    args::Namespace,
    context::Connection,
    duration::{self, Span},
    output,
};

#[derive(Debug, Subcommand)]
pub enum ServiceAccount {
    /// Make a token of a service account, and print it
    Token(Token),
    /// Ask the managers whose a token is, and whether it is good
    Review(Review),
    /// Show the public keys by which others check tokens (a JSON Web Key Set)
    Keys {
        /// Show the OpenID Connect discovery document instead
        #[arg(long)]
        openid_configuration: bool,
    },
    /// Have another key sign tokens from now on; those by the present key are good until they end
    RotateKey,
}

#[derive(Debug, Args)]
pub struct Token {
    /// The service account
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    namespace: Namespace,
    /// For whom it is; may be given several times. By default the managers of the cluster
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// How long it is good, between 10m and 24h
    #[arg(long, default_value = "1h")]
    duration: Span,
    /// A pod of the account: the token is good as long as the pod is there
    #[arg(long, value_name = "POD")]
    bound_pod: Option<String>,
}

#[derive(Debug, Args)]
pub struct Review {
    /// The file of the token, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// For whom it should be; may be given several times. By default the managers of the cluster
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
}

pub async fn run(to: &Connection, command: ServiceAccount) -> Result<()> {
    match command {
        ServiceAccount::Token(token) => make(to, token).await,
        ServiceAccount::Review(what) => review(to, what).await,
        ServiceAccount::Keys {
            openid_configuration,
        } => {
            let keys = to.client()?.token_keys().await?;
            let text = match openid_configuration {
                true => keys.openid_configuration,
                false => keys.jwks,
            };
            Ok(writeln!(io::stdout(), "{text}")?)
        }
        ServiceAccount::RotateKey => {
            let client = to.client()?;
            let present = client.token_keys().await?.newest;
            let id = client.rotate_token_key(&present).await?;
            Ok(writeln!(
                io::stdout(),
                "key {id} signs tokens from five minutes on, in place of {present}"
            )?)
        }
    }
}

async fn make(to: &Connection, token: Token) -> Result<()> {
    let wanted = RequestTokenRequest {
        namespace: token.namespace.of(to)?,
        name: token.name,
        audiences: token.audiences,
        // 0 would be the default.
        expiration_seconds: token.duration.0.as_secs().max(1),
        bound_pod: token.bound_pod.map(|name| BoundPod {
            name,
            uid: String::new(),
        }),
    };
    let made = to.client()?.request_token(&wanted).await?;
    writeln!(io::stdout(), "{}", made.token)?;
    let ends = made.expires.unwrap_or_default().seconds;
    let left = ends.saturating_sub(output::now());
    eprintln!(
        "a token of service account {}/{}, good for {}; it is kept nowhere",
        wanted.namespace,
        wanted.name,
        duration::human(left)
    );
    Ok(())
}

async fn review(to: &Connection, what: Review) -> Result<()> {
    let mut token = String::new();
    match what.file.to_str() {
        Some("-") => io::stdin().read_to_string(&mut token).map(drop)?,
        _ => {
            token = std::fs::read_to_string(&what.file)
                .with_context(|| format!("read {}", what.file.display()))?;
        }
    }
    let asked = ReviewTokenRequest {
        token: token.trim().to_owned(),
        audiences: what.audiences,
    };
    let answer = to.client()?.review_token(&asked).await?;
    if !answer.authenticated {
        bail!("{}", answer.error);
    }
    let mut out = io::stdout();
    writeln!(out, "User:       {}", answer.user)?;
    writeln!(out, "Uid:        {}", answer.uid)?;
    writeln!(out, "Groups:     {}", answer.groups.join(", "))?;
    writeln!(out, "Audiences:  {}", answer.audiences.join(", "))?;
    if let Some(pod) = answer.bound_pod {
        writeln!(out, "Pod:        {} ({})", pod.name, pod.uid)?;
    }
    Ok(())
}
