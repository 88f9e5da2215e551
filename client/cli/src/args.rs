//! What may be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{commands, dev, duration::Span};

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

/// Which cluster, and as whom.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// The file with the credential; by default $BARGE_CONFIG, then ~/.config/barge/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The context of that file; by default its current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The client that was made from them.
    #[arg(skip)]
    pub made: crate::context::Made,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or change objects from manifests
    Apply(commands::apply::Apply),
    /// Show what applying manifests would change; exits with 1 when something would, above 1 on an error
    Diff(commands::diff::Diff),
    /// Delete objects
    Delete(commands::delete::Delete),
    /// Show objects
    Get(commands::get::Get),
    /// Show an object in full, with what happened to it
    Describe(commands::describe::Describe),
    /// Explain the fields of a kind
    Explain(commands::explain::Explain),
    /// Show what happened
    Events(commands::events::Events),
    /// Show a container's output
    Logs(commands::logs::Logs),
    /// Set the number of replicas
    Scale(commands::scale::Scale),
    /// Follow, hold, repeat and take back rollouts
    #[command(subcommand)]
    Rollout(commands::rollout::Rollout),
    /// Decide about nodes
    #[command(subcommand)]
    Node(commands::node::NodeCommand),
    /// Look at the cluster itself
    #[command(subcommand)]
    Cluster(commands::cluster::Cluster),
    /// Manage the tokens that admit machines
    #[command(subcommand)]
    Token(commands::token::Token),
    /// Manage the credentials of people and programs
    #[command(subcommand)]
    Credential(commands::credential::Credential),
    /// Ask who you are and what you may do
    #[command(subcommand)]
    Auth(commands::auth::Auth),
    /// Manage the contexts of the configuration file
    #[command(subcommand)]
    Config(commands::config::Config),
    /// Run a whole cluster on this machine
    #[command(subcommand)]
    Dev(dev::Dev),
    /// Show the versions of this program and of the managers
    Version(commands::version::Version),
    /// Print the completion script of a shell
    Completion(commands::completion::Completion),
}

/// The namespace of a command on one namespace.
#[derive(Debug, Clone, Args)]
pub struct Namespace {
    /// The namespace
    #[arg(short, long, default_value = "default", value_name = "NS")]
    pub namespace: String,
}

/// The namespace of a command that can look at all.
#[derive(Debug, Clone, Args)]
pub struct Namespaces {
    #[command(flatten)]
    pub one: Namespace,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl Namespaces {
    /// As the API takes it: empty means all.
    pub fn name(&self) -> &str {
        if self.all_namespaces {
            ""
        } else {
            &self.one.namespace
        }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Args)]
pub struct Patience {
    /// How long to wait ("90s", "2m", "1h")
    #[arg(long, default_value = "2m", value_name = "DURATION")]
    pub timeout: Span,
}

/// Where objects are written.
#[derive(Debug, Clone, Args)]
pub struct Manifests {
    /// A manifest, a folder of manifests, or - for standard input
    #[arg(
        short = 'f',
        long = "filename",
        required = true,
        value_name = "FILE|DIR|-"
    )]
    pub files: Vec<PathBuf>,
}

/// Changing nothing.
#[derive(Debug, Clone, Copy, Args)]
pub struct DryRun {
    /// Change nothing: only read and validate here, or have the cluster answer as if
    #[arg(long, value_enum, value_name = "WHERE")]
    pub dry_run: Option<Where>,
}

/// Where a dry run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Where {
    Client,
    Server,
}

/// In whose name fields are set.
#[derive(Debug, Clone, Args)]
pub struct Manager {
    /// In whose name fields are set; what this name applied before and leaves out now goes, what others set stays
    #[arg(long, default_value = "barge", value_name = "NAME")]
    pub field_manager: String,
}

/// How to print objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}
