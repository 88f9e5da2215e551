//! `barge token create|list|revoke`

use std::io::{self, Write};

use anyhow::{Context, Result};
use barge_client::v1::{CreateTokenRequest, Role};
use clap::{Subcommand, ValueEnum};

use crate::{
    context::Connection,
    duration::{self, Span},
    output::{self, Table},
};

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token; it is shown once
    Create {
        /// What the token admits
        #[arg(long, value_enum)]
        role: TokenRole,
        /// How long it works ("30m", "1h", "2d"); at most 30 days
        #[arg(long, default_value = "1h")]
        ttl: Span,
        /// How many machines it admits
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// What it is for
        #[arg(long, default_value = "", value_name = "TEXT")]
        description: String,
    },
    /// Show the tokens that still work
    List,
    /// Make a token useless
    Revoke {
        /// The token's id, as `barge token list` shows it
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TokenRole {
    Manager,
    Agent,
}

impl From<TokenRole> for Role {
    fn from(role: TokenRole) -> Self {
        match role {
            TokenRole::Manager => Self::Manager,
            TokenRole::Agent => Self::Agent,
        }
    }
}

pub async fn run(to: &Connection, token: Token) -> Result<()> {
    let client = to.client()?;
    match token {
        Token::Create {
            role,
            ttl,
            uses,
            description,
        } => {
            let created = client
                .create_token(CreateTokenRequest {
                    role: Role::from(role).into(),
                    ttl_seconds: ttl.0.as_secs().max(1),
                    uses,
                    description,
                })
                .await?;
            writeln!(io::stdout(), "{}", created.token)?;
            let info = created
                .info
                .context("the manager's answer lacks the token's id")?;
            let times = if uses == 1 {
                "once".to_owned()
            } else {
                format!("{uses} times")
            };
            eprintln!(
                "token {} admits {} {times}, within {}; write it to a file for --token-file. It is not shown again.",
                info.id,
                if matches!(role, TokenRole::Manager) {
                    "a manager"
                } else {
                    "an agent"
                },
                duration::human(i64::try_from(ttl.0.as_secs()).unwrap_or(i64::MAX)),
            );
        }
        Token::List => {
            let now = output::now();
            let mut table = Table::new(vec!["ID", "ROLE", "EXPIRES", "USES LEFT", "DESCRIPTION"]);
            for info in client.tokens().await? {
                let role = barge_client::identity::role_word(info.role()).to_owned();
                table.push(vec![
                    info.id,
                    role,
                    output::until(info.expires.unwrap_or_default(), now),
                    info.uses_left.to_string(),
                    info.description,
                ]);
            }
            table.show()?;
        }
        Token::Revoke { id } => {
            // A whole token names its id, too; its secret is not needed.
            let id = match id.parse::<barge_client::token::Token>() {
                Ok(token) => token.id,
                Err(_) => id,
            };
            client.revoke_token(&id).await?;
            writeln!(io::stdout(), "token {id} revoked")?;
        }
    }
    Ok(())
}
