//! barge-server: parse, run until a signal, drain.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::Duration,
};

use barge_server::{
    config::{Cli, Command},
    manager,
};
use clap::Parser;
use tokio::runtime;
use tracing_subscriber::EnvFilter;

/// What is still running when the manager has ended gets this long.
const LINGER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let Command::Run(flags) = Cli::parse().command;
    log_to_stderr();
    let config = match flags.resolve() {
        Ok(config) => config,
        Err(error) => return fail(2, &error),
    };
    let runtime = match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    let ended = runtime.block_on(manager::run(config));
    runtime.shutdown_timeout(LINGER);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn log_to_stderr() {
    // openraft tells at INFO what it does step by step; what matters of it is told by us.
    let filter = match std::env::var("BARGE_LOG") {
        Ok(asked) => EnvFilter::builder().parse_lossy(asked),
        Err(_) => EnvFilter::new("info,openraft=warn"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("barge-server: {error}");
    ExitCode::from(code)
}
