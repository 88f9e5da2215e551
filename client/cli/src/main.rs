//! `barge`: the command line.

use std::process::ExitCode;

use barge_client::duration;
use clap::Parser;

mod args;
mod change;
mod commands;
mod context;
mod dev;
mod diff;
mod explain;
mod follow;
mod jsonpath;
mod kinds;
mod names;
mod output;
mod patch;
mod pods;
mod progress;
mod rollout;
mod session;
mod settle;
mod sources;
mod targets;
mod terminal;
#[cfg(test)]
mod testing;
mod usage;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Ends with 2 when the usage is wrong.
    let cli = match commands::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let words: Vec<_> = std::env::args().skip(1).collect();
            // Nobody is left to tell if this fails.
            let _ = error.print();
            if let Some(hint) = usage::hint(&error, &words) {
                eprintln!("\n{hint}");
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    init_tracing();
    match commands::run(cli).await {
        Ok(code) => code,
        // The reader of our output has seen enough.
        Err(error) if explain::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            explain::print(&error);
            ExitCode::FAILURE
        }
    }
}

/// Silent unless $BARGE_LOG asks for more ("debug").
fn init_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BARGE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
