//! `barge dev`: a whole cluster on this machine. Managers and a registry are processes of the host; each agent is a machine of
//! its own: a network namespace with an address on a bridge, and a containerd.

mod clean;
mod folder;
mod kill_leader;
mod machine;
mod network;
pub mod process;
mod start;
mod status;
mod up;

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use nix::unistd::Uid;

use crate::duration::Span;

/// What can be done with a development cluster.
#[derive(Debug, Subcommand)]
pub enum Dev {
    /// Start a cluster, or what died of it; says so when it runs
    Up(Up),
    /// End everything that `up` started and leave nothing behind
    Down(Folder),
    /// Show the processes and addresses
    Status(Status),
    /// Kill the manager that leads with SIGKILL, to see that nothing stops
    KillLeader(Folder),
}

/// Where the cluster lives.
#[derive(Debug, Clone, Args)]
pub struct Folder {
    /// The cluster's folder; by default ~/.local/share/barge/dev
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    folder: Folder,
    /// How many managers; an odd number
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    managers: u8,
    /// How many machines that run containers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=100))]
    agents: u8,
    /// Start a registry on the cluster's network that stands in for docker.io
    #[arg(long, conflicts_with = "registry_mirror")]
    registry: bool,
    /// The address of a registry that stands in for docker.io, as the nodes reach it ("http://10.213.0.1:5000")
    #[arg(long, value_name = "URL")]
    registry_mirror: Option<String>,
    /// The nodes' network, a /24; by default the first of 10.213.0.0/24, 10.213.1.0/24, … that is free
    #[arg(long, value_name = "CIDR")]
    subnet: Option<String>,
    /// How long certificates live ("1m"), to see them renewed; by default as long as in any cluster
    #[arg(long, value_name = "DURATION")]
    certificate_lifetime: Option<Span>,
    /// Let managers answer GET /metrics, each 100 ports above its address (10.213.0.1:7201, …)
    #[arg(long)]
    metrics: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    folder: Folder,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    /// Only the registry's host:port
    Registry,
}

impl Folder {
    /// The folder as an absolute path, whether it exists or not.
    fn path(&self) -> Result<PathBuf> {
        let path = match &self.dir {
            Some(dir) => dir.clone(),
            None => {
                let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from);
                let data =
                    data.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".local/share")));
                data.context("neither --dir nor $HOME says where the cluster lives")?
                    .join("barge/dev")
            }
        };
        std::path::absolute(&path).with_context(|| format!("find {}", path.display()))
    }
}

/// Runs one of them.
pub async fn run(dev: Dev) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("a development cluster needs root: it makes network namespaces and runs containers");
    }
    match dev {
        Dev::Up(up) => up::run(up).await,
        Dev::Down(folder) => clean::run(&folder.path()?),
        Dev::KillLeader(folder) => kill_leader::run(&folder.path()?).await,
        Dev::Status(status) => status::run(&status.folder.path()?, status.output),
    }
}
