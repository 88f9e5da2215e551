//! Arguments that several commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::duration::Span;

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
