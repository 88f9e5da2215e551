//! The process that outlives control: it drains the containers' output into their logs.
//!
//! Output arrives through named pipes whose both ends containerd's shim holds, so nobody gets SIGPIPE and nothing that
//! is in a pipe is lost while no carrier runs. A carrier takes bytes out of a pipe only after they are in the log: when
//! it is killed in between, the last batch is written again by its successor, and none is missing.
//!
//! Control asks for pipes over a socket ([`protocol`]), before it creates a container. What was asked for is on disk;
//! a new carrier opens all of it again.

use std::{io, path::PathBuf};

use crate::runtime::Paths;

pub mod client;
pub mod cri;
mod drain;
mod logfile;
pub mod logs;
pub mod protocol;
mod registry;
mod server;

pub use client::{Carrier, CarrierError};

/// What a carrier is started with.
#[derive(Debug, Clone)]
pub struct Args {
    /// The agent's data folder.
    pub data_dir: PathBuf,
}

/// Runs a carrier until it is told to go. Returns at once when another one carries for this folder.
///
/// # Errors
/// When the data folder cannot be used.
pub fn run(args: &Args) -> io::Result<()> {
    // Nobody's terminal and nobody's process group takes this process down. Fails when it is so already.
    let _ = nix::unistd::setsid();
    let paths = Paths::new(&args.data_dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, server::serve(paths))
}
