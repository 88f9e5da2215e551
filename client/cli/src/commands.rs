//! The command line's grammar, and a module for each command.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{context::Connection, dev};

pub mod apply;
pub mod attach;
pub mod auth;
pub mod cluster;
pub mod completion;
pub mod config;
pub mod cp;
pub mod credential;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod edit;
pub mod events;
pub mod exec;
pub mod explain;
pub mod get;
pub mod label;
pub mod logs;
pub mod node;
pub mod patch;
pub mod port_forward;
pub mod rollout;
pub mod scale;
pub mod service_account;
pub mod set;
pub mod token;
pub mod top;
pub mod version;
pub mod wait;

/// Runs containers on a cluster of machines.
#[derive(Debug, Parser)]
#[command(
    name = "barge",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or change objects from manifests
    Apply(apply::Apply),
    /// Show what applying manifests would change; exits with 1 when something would, above 1 on an error
    Diff(diff::Diff),
    /// Delete objects
    Delete(delete::Delete),
    /// Change an object in your editor
    Edit(edit::Edit),
    /// Change fields of objects
    Patch(patch::Patch),
    /// Set and remove labels
    Label(label::Label),
    /// Set and remove annotations
    Annotate(label::Annotate),
    /// Set fields that are often changed
    #[command(subcommand)]
    Set(set::Set),
    /// Show objects
    Get(get::Get),
    /// Show an object in full, with what happened to it
    Describe(describe::Describe),
    /// Wait until objects are as is wished
    Wait(wait::Wait),
    /// Explain the fields of a kind
    Explain(explain::Explain),
    /// Show what happened
    Events(events::Events),
    /// Show a container's output
    Logs(logs::Logs),
    /// Run a program in a container
    Exec(exec::Exec),
    /// Show what a container writes from now on, until it ends
    Attach(attach::Attach),
    /// Copy files and folders into a container and out of it
    Cp(cp::Cp),
    /// Forward ports of this machine to a pod
    PortForward(port_forward::PortForward),
    /// Show what pods and nodes take of processors and memory
    #[command(subcommand)]
    Top(top::Top),
    /// Set the number of replicas
    Scale(scale::Scale),
    /// Follow, hold, repeat and take back rollouts
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Decide about nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Look at the cluster itself
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Manage the tokens that admit machines
    #[command(subcommand)]
    Token(token::Token),
    /// Manage the credentials of people and programs
    #[command(subcommand)]
    Credential(credential::Credential),
    /// Make tokens of service accounts, and show the keys that sign them
    #[command(subcommand, visible_alias = "sa")]
    ServiceAccount(service_account::ServiceAccount),
    /// Ask who you are and what you may do
    #[command(subcommand)]
    Auth(auth::Auth),
    /// Manage the contexts of the configuration file
    #[command(subcommand)]
    Config(config::Config),
    /// Run a whole cluster on this machine
    #[command(subcommand)]
    Dev(dev::Dev),
    /// Show the versions of this program and of the managers
    Version(version::Version),
    /// Print the completion script of a shell
    Completion(completion::Completion),
}

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
        Command::Edit(command) => Box::pin(edit::run(to, command)).await,
        Command::Patch(command) => Box::pin(patch::run(to, command)).await,
        Command::Label(command) => Box::pin(label::label(to, command)).await,
        Command::Annotate(command) => Box::pin(label::annotate(to, command)).await,
        Command::Set(command) => Box::pin(set::run(to, command)).await,
        Command::Get(command) => Box::pin(get::run(to, command)).await,
        Command::Describe(command) => Box::pin(describe::run(to, command)).await,
        Command::Wait(command) => Box::pin(wait::run(to, command)).await,
        Command::Explain(command) => explain::run(&command),
        Command::Events(command) => Box::pin(events::run(to, command)).await,
        Command::Logs(command) => Box::pin(logs::run(to, command)).await,
        Command::Exec(command) => return Box::pin(exec::run(to, command)).await,
        Command::Attach(command) => return Box::pin(attach::run(to, command)).await,
        Command::Cp(command) => Box::pin(cp::run(to, command)).await,
        Command::PortForward(command) => return Box::pin(port_forward::run(to, command)).await,
        Command::Top(command) => Box::pin(top::run(to, command)).await,
        Command::Scale(command) => Box::pin(scale::run(to, command)).await,
        Command::Rollout(command) => Box::pin(rollout::run(to, command)).await,
        Command::Node(command) => return Box::pin(node::run(to, command)).await,
        Command::Cluster(command) => Box::pin(cluster::run(to, command)).await,
        Command::Token(command) => Box::pin(token::run(to, command)).await,
        Command::Credential(command) => Box::pin(credential::run(to, command)).await,
        Command::ServiceAccount(command) => Box::pin(service_account::run(to, command)).await,
        Command::Config(command) => config::run(to, command),
        Command::Dev(command) => Box::pin(dev::run(command)).await,
        Command::Version(command) => Box::pin(version::run(to, command)).await,
        Command::Completion(command) => completion::run(&command),
    }?;
    Ok(ExitCode::SUCCESS)
}
