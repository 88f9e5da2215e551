//! The process that outlives control: it drains the containers' output into their logs.
//!
//! Output arrives through named pipes whose both ends containerd's shim holds, so nobody gets SIGPIPE and nothing that
//! is in a pipe is lost while no carrier runs. A carrier takes bytes out of a pipe only after they are in the log: when
//! it is killed in between, the last batch is written again by its successor, and none is missing.
//!
//! Control asks for pipes over a socket ([`protocol`]), before it creates a container. What was asked for is on disk;
//! a new carrier opens all of it again.
//!
//! Threads: one serves the socket and touches no container's files; each container has one of its own ([`worker`]) for
//! everything that may wait for the disk. So a disk that hangs in one container's log stops that container only.
//!
//! Two parties start carriers: systemd, whose carrier waits for the lock of the data folder (`--standby`), and control
//! ([`keeper`]), whose carrier ends when another one has the lock.

use std::{io, path::PathBuf};

use barge_client::supervisor::Supervisor;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::runtime::Paths;

pub mod client;
pub mod cri;
mod drain;
pub mod keeper;
pub(crate) mod lock;
mod logfile;
pub mod logs;
pub mod protocol;
mod registry;
mod server;
mod signal;
mod worker;

pub use client::{Carrier, CarrierError};

/// What a carrier is started with.
#[derive(Debug, Clone)]
pub struct Args {
    /// The agent's data folder.
    pub data_dir: PathBuf,
    /// While another carrier runs for this folder: wait, and take over when it ends. Otherwise this one ends at once.
    pub standby: bool,
}

/// Runs a carrier until it is told to go.
///
/// # Errors
/// When the data folder cannot be used.
pub fn run(args: &Args) -> io::Result<()> {
    // Nobody's terminal and nobody's process group takes this process down. Fails when it is so already.
    let _ = nix::unistd::setsid();
    if let Err(error) = allow_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let paths = Paths::new(&args.data_dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let supervisor = Supervisor::from_environment();
    let carry = async {
        tokio::task::spawn_local(supervisor.clone().keep_alive());
        match lock::take(&paths, &paths.carrier_lock(), args.standby, &supervisor).await? {
            Some(_lock) => server::serve(paths, &supervisor).await,
            None => {
                tracing::info!("another carrier is running");
                Ok(())
            }
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, carry)
}

/// A container takes up to eight descriptors, and some systems begin with room for 1024.
pub(crate) fn allow_files() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
