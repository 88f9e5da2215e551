//! `barge cluster restore|recover`: they change a manager's data folder on this machine while no manager runs on it.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};
use clap::Args;

use crate::dev::process::program;

/// Everything is for barge-server to understand.
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENTS"
    )]
    arguments: Vec<OsString>,
}

/// Becomes `barge-server` with this command; returns only when that does not work.
pub fn run(command: &str, arguments: Arguments) -> Result<()> {
    let program = program("barge-server");
    let error = Command::new(&program)
        .arg(command)
        .args(arguments.arguments)
        .exec();
    Err(error).with_context(|| {
        format!(
            "start {}: `barge-server {command}` is to be run on the manager's machine",
            program.display()
        )
    })
}
