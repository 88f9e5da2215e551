//! Flags and the configuration file. Every setting has a default that works; flags win over the file.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    collection::{Thresholds, ThresholdsError},
    routes::Mode,
    runtime::{DEFAULT_POD_PIDS, certificates, check_registry_config},
};

mod flags;

pub use flags::{CarrierFlags, Cli, Command, DnsFlags, ForgetFlags, PauseFlags, RunFlags};

/// The configuration file: the flags' names with underscores, and registries.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    #[serde(default)]
    join: Vec<String>,
    token_file: Option<PathBuf>,
    containerd: Option<PathBuf>,
    containerd_namespace: Option<String>,
    node_name: Option<String>,
    #[serde(alias = "advertise")]
    node_ip: Option<IpAddr>,
    cgroup_root: Option<String>,
    pod_pids_limit: Option<i64>,
    image_gc_high_threshold: Option<u8>,
    image_gc_low_threshold: Option<u8>,
    registry_config: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
    cluster_dns: Option<bool>,
    pod_network: Option<Mode>,
    cni_conf_dir: Option<PathBuf>,
    #[serde(default)]
    cni_bin_dir: Vec<PathBuf>,
    #[serde(default)]
    registry: Vec<Registry>,
}

/// How to reach an image registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The host as image names have it ("docker.io").
    pub host: String,
    /// URLs to ask first, in order ("http://10.0.0.1:5000").
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Speak HTTP without TLS to the host itself.
    #[serde(default)]
    pub plain_http: bool,
    /// For basic authentication.
    pub username: Option<String>,
    /// For basic authentication.
    pub password: Option<String>,
    /// File with certificates of authorities (PEM) that are trusted for this host, besides those of the machine.
    pub ca: Option<PathBuf>,
    /// What that file has.
    #[serde(skip)]
    pub ca_pem: Vec<u8>,
}

/// All settings, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where identity, logs and records are kept.
    pub data_dir: PathBuf,
    /// Managers to join through.
    pub join: Vec<String>,
    /// File that holds the join token.
    pub token_file: Option<PathBuf>,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// containerd namespace.
    pub containerd_namespace: String,
    /// Name of the node.
    pub node_name: String,
    /// Address of this machine at which others reach it; `None` to find out.
    pub node_ip: Option<IpAddr>,
    /// Parent of the containers' control groups.
    pub cgroup_root: String,
    /// Processes and threads that a pod may have; `None`: any number.
    pub pod_pids_limit: Option<u64>,
    /// When images that nothing here uses are removed.
    pub collection: Thresholds,
    /// Registries with settings of their own.
    pub registries: Vec<Registry>,
    /// Docker's configuration file with the node's credentials for registries.
    pub registry_config: Option<PathBuf>,
    /// File that says which name servers the node asks.
    pub resolv_conf: PathBuf,
    /// Whether the node answers for names.
    pub cluster_dns: bool,
    /// How packets for other nodes' pods get there.
    pub pod_network: Mode,
    /// The folder that may have a network configuration of the user's own.
    pub cni_conf_dir: Option<PathBuf>,
    /// Folders with its plugins; empty for the usual ones.
    pub cni_bin_dirs: Vec<PathBuf>,
}

/// What is wrong with the settings; usage errors.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("in the configuration file {path}: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// With line and column.
        message: String,
    },
    /// A manager's address without a port.
    #[error("\"{0}\" is not a manager's HOST:PORT")]
    Address(String),
    /// A name that cannot be a node's.
    #[error(
        "\"{0}\" cannot be a node's name (lower-case letters, digits, '-' and '.', at most 253); give one with --node-name"
    )]
    NodeName(String),
    /// Too few processes for a container to start.
    #[error(
        "pod_pids_limit {0} is too small: a container needs some threads to start; give at least {LEAST_POD_PIDS}, or -1 for any number"
    )]
    PodPids(i64),
    /// Certificates that are none.
    #[error("the file {path}, which is ca of the registry {host}, {why}")]
    Ca {
        /// The registry's host.
        host: String,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Credentials that cannot be used.
    #[error("the file {path}, which is registry_config, {why}")]
    RegistryConfig {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; no value of it.
        why: String,
    },
    /// Percentages that are none.
    #[error(transparent)]
    Collection(#[from] ThresholdsError),
}

/// runc's own threads in a container that starts are some ten.
const LEAST_POD_PIDS: u64 = 64;

impl Config {
    /// Reads the file that the flags name and fills in defaults. `host_name` is the machine's.
    pub fn load(flags: RunFlags, host_name: &str) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let mut config = Self::merge(flags, file, host_name)?;
        for registry in &mut config.registries {
            registry.read_ca()?;
        }
        if let Some(path) = &config.registry_config {
            check_registry_config(path).map_err(|why| ConfigError::RegistryConfig {
                path: path.clone(),
                why,
            })?;
        }
        Ok(config)
    }

    fn merge(flags: RunFlags, file: File, host_name: &str) -> Result<Self, ConfigError> {
        let join = if flags.join.is_empty() {
            file.join
        } else {
            flags.join
        };
        if let Some(address) = join.iter().find(|address| !has_port(address)) {
            return Err(ConfigError::Address(address.clone()));
        }
        let node_name = flags
            .node_name
            .or(file.node_name)
            .unwrap_or_else(|| host_name.to_lowercase());
        if !is_node_name(&node_name) {
            return Err(ConfigError::NodeName(node_name));
        }
        let pod_pids_limit = match flags.pod_pids_limit.or(file.pod_pids_limit) {
            None => Some(DEFAULT_POD_PIDS),
            Some(-1) => None,
            Some(limit) => {
                let given = u64::try_from(limit).ok();
                let enough = given.filter(|limit| *limit >= LEAST_POD_PIDS);
                Some(enough.ok_or(ConfigError::PodPids(limit))?)
            }
        };
        let high = flags
            .image_gc_high_threshold
            .or(file.image_gc_high_threshold);
        let low = flags.image_gc_low_threshold.or(file.image_gc_low_threshold);
        let collection = Thresholds::given(high, low)?;
        Ok(Self {
            data_dir: flags
                .data_dir
                .or(file.data_dir)
                .unwrap_or_else(|| "/var/lib/barge/agent".into()),
            join,
            token_file: flags.token_file.or(file.token_file),
            containerd: flags
                .containerd
                .or(file.containerd)
                .unwrap_or_else(|| "/run/containerd/containerd.sock".into()),
            containerd_namespace: flags
                .containerd_namespace
                .or(file.containerd_namespace)
                .unwrap_or_else(|| "barge".into()),
            node_name,
            node_ip: flags.node_ip.or(file.node_ip),
            cgroup_root: flags
                .cgroup_root
                .or(file.cgroup_root)
                .unwrap_or_else(|| "barge".into()),
            pod_pids_limit,
            collection,
            registries: file.registry,
            registry_config: flags.registry_config.or(file.registry_config),
            resolv_conf: flags
                .resolv_conf
                .or(file.resolv_conf)
                .unwrap_or_else(|| "/etc/resolv.conf".into()),
            cluster_dns: flags.cluster_dns.or(file.cluster_dns).unwrap_or(true),
            cni_conf_dir: flags.cni_conf_dir.or(file.cni_conf_dir),
            cni_bin_dirs: match flags.cni_bin_dir.is_empty() {
                true => file.cni_bin_dir,
                false => flags.cni_bin_dir,
            },
            pod_network: flags.pod_network.or(file.pod_network).unwrap_or_default(),
        })
    }
}

impl Registry {
    /// Reads the certificates, and refuses what is none.
    fn read_ca(&mut self) -> Result<(), ConfigError> {
        let Some(path) = &self.ca else {
            return Ok(());
        };
        let read = fs::read(path).map_err(|error| format!("cannot be read: {error}"));
        let read = read.and_then(|pem| certificates(&pem).map(|_| pem));
        self.ca_pem = read.map_err(|why| ConfigError::Ca {
            host: self.host.clone(),
            path: path.clone(),
            why,
        })?;
        Ok(())
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

fn has_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn is_node_name(name: &str) -> bool {
    let fits = |label: &str| {
        let edge =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(label.chars().next())
            && edge(label.chars().last())
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= 253 && name.split('.').all(fits)
}

#[cfg(test)]
mod tests;
