//! The command line.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::routes::Mode;

/// The command line of `barge-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "barge-agent",
    version,
    about = "A machine that runs containers for Barge"
)]
pub struct Cli {
    /// What to be.
    #[command(subcommand)]
    pub command: Command,
}

/// What the process is to be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this machine's part of the cluster until SIGTERM; containers go on running without it.
    Run(RunFlags),
    /// List pods that run here and that the cluster does not know, or have them end at the next start; barge-agent must be stopped
    ForgetPods(ForgetFlags),
    /// Started by `run` or by systemd: drains the containers' output and outlives `run`.
    #[command(hide = true)]
    Carrier(CarrierFlags),
    /// Started by `run` or by systemd: answers for names, and outlives `run`.
    #[command(hide = true)]
    Dns(DnsFlags),
    /// Started by `run`: makes, or with --init is, the first process of a pod's process namespace.
    #[command(hide = true)]
    Pause(PauseFlags),
}

/// Flags of `barge-agent run`.
#[derive(Debug, Default, Args)]
pub struct RunFlags {
    /// Where identity, logs and records are kept [default: /var/lib/barge/agent]
    #[arg(long, value_name = "D")]
    pub data_dir: Option<PathBuf>,
    /// Managers to join through; ignored once the data folder has a cluster
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub join: Vec<String>,
    /// File that holds the join token; ignored once the data folder has a cluster
    #[arg(long, value_name = "F")]
    pub token_file: Option<PathBuf>,
    /// containerd's socket [default: /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET")]
    pub containerd: Option<PathBuf>,
    /// containerd namespace of this agent's containers [default: barge]
    #[arg(long, value_name = "NAME")]
    pub containerd_namespace: Option<String>,
    /// Name of the node [default: the machine's host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this machine at which others reach it [default: the one from which it reaches a manager, or, when that is a loopback address,
    /// the one of the default route]
    #[arg(long, alias = "advertise", value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Control group under which the containers' groups are made [default: barge]
    #[arg(long, value_name = "NAME")]
    pub cgroup_root: Option<String>,
    /// Processes and threads that a pod may have, at least 64; -1: any number [default: 4096]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub pod_pids_limit: Option<i64>,
    /// Remove images that nothing on the node uses when their file system is so full, in percent; 100: never [default: 85]
    #[arg(long, value_name = "PERCENT")]
    pub image_gc_high_threshold: Option<u8>,
    /// And stop when it is no fuller than that [default: 80]
    #[arg(long, value_name = "PERCENT")]
    pub image_gc_low_threshold: Option<u8>,
    /// Docker's configuration file (config.json) with credentials for registries that all pods of the node may use; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
    /// File that says which name servers the node asks; read again when it changes [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// Answer for names on this node, at 169.254.20.10 and at the address of kube-dns; false: pods ask the node's own name servers [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub cluster_dns: Option<bool>,
    /// How packets for other nodes' pods get there: by direct routes to nodes on a link of this one and by VXLAN to all others, or in one way to all [default: auto]
    #[arg(long, value_name = "WAY", value_enum, env = "BARGE_POD_NETWORK")]
    pub pod_network: Option<Mode>,
    /// Folder with a network configuration of your own (CNI): where it has one, its plugins wire new pods, and not the agent [default: none]
    #[arg(long, value_name = "D")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Folders with its plugins [default: /opt/cni/bin, /usr/lib/cni]
    #[arg(long, value_name = "D", value_delimiter = ',')]
    pub cni_bin_dir: Vec<PathBuf>,
}

/// Flags of `barge-agent forget-pods`. Without a uid and without `--all` nothing is changed.
#[derive(Debug, Args)]
pub struct ForgetFlags {
    /// Uids of the pods to end
    #[arg(value_name = "UID", conflicts_with = "all")]
    pub uids: Vec<String>,
    /// End all of them
    #[arg(long)]
    pub all: bool,
    /// As `run` has it [default: /var/lib/barge/agent]
    #[arg(long, value_name = "D")]
    pub data_dir: Option<PathBuf>,
    /// As `run` has it [default: /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET")]
    pub containerd: Option<PathBuf>,
    /// As `run` has it [default: barge]
    #[arg(long, value_name = "NAME")]
    pub containerd_namespace: Option<String>,
    /// As `run` has it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Flags of `barge-agent carrier`.
#[derive(Debug, Args)]
pub struct CarrierFlags {
    /// The agent's data folder
    #[arg(long, value_name = "D")]
    pub data_dir: PathBuf,
    /// While another carrier runs: wait and take over when it ends, instead of ending at once
    #[arg(long)]
    pub standby: bool,
}

/// Flags of `barge-agent dns`.
#[derive(Debug, Args)]
pub struct DnsFlags {
    /// The agent's data folder
    #[arg(long, value_name = "D")]
    pub data_dir: PathBuf,
    /// While another name server runs: wait and take over when it ends, instead of ending at once
    #[arg(long)]
    pub standby: bool,
}

/// Flags of `barge-agent pause`.
#[derive(Debug, Args)]
pub struct PauseFlags {
    /// Be that process
    #[arg(long)]
    pub init: bool,
    /// An empty folder
    #[arg(long, value_name = "D")]
    pub root: PathBuf,
    /// Where the namespace is pinned
    #[arg(long, value_name = "F", required_unless_present = "init")]
    pub pin: Option<PathBuf>,
    /// Where the process id is noted
    #[arg(long, value_name = "F", required_unless_present = "init")]
    pub note: Option<PathBuf>,
    /// The pod's network namespace
    #[arg(long, value_name = "F", required_unless_present = "init")]
    pub netns: Option<PathBuf>,
}
