//! The command line of barge-server.

use clap::{Parser, Subcommand};

use crate::{
    config,
    recovery::{mint, recover, restore},
};

/// A Barge manager node.
#[derive(Debug, Parser)]
#[command(name = "barge-server", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of barge-server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a manager until SIGTERM or SIGINT.
    Run(Box<config::Flags>),
    /// Makes the first manager of a cluster that comes back from a backup; start it with `run`, then join others
    Restore(Box<restore::Flags>),
    /// Makes the manager that is left the only one, after the others were lost for good
    Recover(Box<recover::Flags>),
    /// Writes an administrator's credential, for root on a running manager's machine.
    Credential(mint::Flags),
}
