//! `barge completion SHELL`

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Debug, Args)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

pub fn run(command: &Completion) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        command.shell,
        &mut super::Cli::command(),
        "barge",
        &mut script,
    );
    Ok(io::stdout().write_all(&script)?)
}
