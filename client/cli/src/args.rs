//! Arguments that several commands share.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{context::Connection, duration::Span};

/// The namespace of a command on one namespace.
#[derive(Debug, Clone, Args)]
pub struct Namespace {
    /// The namespace; by default the context's (barge config set-context), then "default"
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,
}

impl Namespace {
    /// The one that was asked for, else the context's, else "default".
    pub fn of(&self, to: &Connection) -> Result<String> {
        match &self.namespace {
            Some(asked) => Ok(asked.clone()),
            None => to.namespace(),
        }
    }
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
    pub fn of(&self, to: &Connection) -> Result<String> {
        match self.all_namespaces {
            true => Ok(String::new()),
            false => self.one.of(to),
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
    #[command(flatten)]
    pub namespace: Namespace,
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
