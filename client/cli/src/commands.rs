//! One module per command.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    args::{Cli, Command, Connection},
    dev,
};

pub mod apply;
pub mod auth;
pub mod cluster;
pub mod completion;
pub mod config;
pub mod credential;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod events;
pub mod explain;
pub mod get;
pub mod logs;
pub mod node;
pub mod rollout;
pub mod scale;
pub mod token;
pub mod version;

/// Does what was typed, and says how the program should end.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let to = cli.connection;
    if !matches!(
        cli.command,
        Command::Dev(_) | Command::Completion(_) | Command::Config(_)
    ) {
        to.keep_certificate().await;
    }
    let done = Box::pin(dispatch(&to, cli.command)).await;
    to.keep_managers();
    // Also after a command that failed: the next one may come too late.
    to.learn_roots().await;
    done
}

async fn dispatch(to: &Connection, command: Command) -> Result<ExitCode> {
    match command {
        Command::Apply(command) => Box::pin(apply::run(to, command)).await,
        Command::Diff(command) => return Ok(Box::pin(diff::run(to, command)).await),
        Command::Auth(command) => return Box::pin(auth::run(to, command)).await,
        Command::Delete(command) => Box::pin(delete::run(to, command)).await,
        Command::Get(command) => Box::pin(get::run(to, command)).await,
        Command::Describe(command) => Box::pin(describe::run(to, command)).await,
        Command::Explain(command) => explain::run(&command),
        Command::Events(command) => Box::pin(events::run(to, command)).await,
        Command::Logs(command) => Box::pin(logs::run(to, command)).await,
        Command::Scale(command) => Box::pin(scale::run(to, command)).await,
        Command::Rollout(command) => Box::pin(rollout::run(to, command)).await,
        Command::Node(command) => return Box::pin(node::run(to, command)).await,
        Command::Cluster(command) => Box::pin(cluster::run(to, command)).await,
        Command::Token(command) => Box::pin(token::run(to, command)).await,
        Command::Credential(command) => Box::pin(credential::run(to, command)).await,
        Command::Config(command) => config::run(to, command),
        Command::Dev(command) => Box::pin(dev::run(command)).await,
        Command::Version(command) => Box::pin(version::run(to, command)).await,
        Command::Completion(command) => completion::run(&command),
    }?;
    Ok(ExitCode::SUCCESS)
}
