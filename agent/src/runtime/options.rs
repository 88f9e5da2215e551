//! What a [`Containerd`](super::containerd::Containerd) is made with.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::Paths;
use crate::programmed::Programmed;

/// See [`Options::pod_pids_limit`].
pub const DEFAULT_POD_PIDS: u64 = 4096;

/// Settings of the containerd runtime. [`Options::new`] fills in what most machines want.
#[derive(Debug, Clone)]
pub struct Options {
    /// containerd's socket. Default `/run/containerd/containerd.sock`.
    pub socket: PathBuf,
    /// containerd namespace of everything this agent makes. runc's state lies in one folder per namespace name whatever
    /// containerd it belongs to, so two agents on one machine need different names. Default `barge`.
    pub namespace: String,
    /// containerd's snapshotter. Default `overlayfs`.
    pub snapshotter: String,
    /// How long containerd may take for a call that changes something. Default two minutes, as in Kubernetes: a container whose disk is
    /// slow may take long to start.
    pub change_timeout: Duration,
    /// Where everything of the pods lies.
    pub paths: Paths,
    /// Parent of the pods' control groups, relative to the root of each hierarchy. Default `barge`.
    pub cgroup_root: String,
    /// How many processes and threads a pod may have; `None`: any number. Default 4096: room for programs with a thread or a process
    /// for each of a few thousand connections, and an eighth of the 32,768 process ids of a kernel with its own default, so that
    /// a pod that forks without end leaves the rest to the others.
    pub pod_pids_limit: Option<u64>,
    /// Where control groups are mounted. Default `/sys/fs/cgroup`.
    pub cgroup_mount: PathBuf,
    /// Registries with settings of their own; all others are asked directly over TLS.
    pub registries: Vec<Registry>,
    /// A configuration file of Docker with credentials that all pods of the node may use. Read again when it changes. Default none.
    pub registry_config: Option<PathBuf>,
    /// Layers fetched at a time from one registry, over all pulls; from all registries together three times as many.
    /// Default 4.
    pub parallel_fetches: usize,
    /// Images pulled at a time from one registry; from all registries together twice as many. Default 8.
    pub parallel_pulls: usize,
    /// A registry that sends fewer bytes than this in a `progress_window` is given up. Default 256 KiB.
    pub progress_bytes: u64,
    /// The time for `progress_bytes`, and for an answer to begin. Default one minute.
    pub progress_window: Duration,
    /// Folders with CNI plugins, in order. Default `/opt/cni/bin`, `/usr/lib/cni`.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// A folder with the user's own network configuration: when it holds one, the first by name is used, and pods are not routed by the agent.
    /// Default none.
    pub cni_conf_dir: Option<PathBuf>,
    /// Copied into containers, without name servers on loopback addresses. Default `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The machine's `/etc/hosts`, for pods in its network.
    pub hosts: PathBuf,
    /// Program and arguments that hold a process namespace for the containers of a pod; see [`crate::pause`]. Default: this program, `pause`.
    pub pause_command: Vec<OsString>,
    /// Program and arguments that start a carrier; `--data-dir D` is added. Default: this program, `carrier`.
    pub carrier_command: Vec<OsString>,
    /// Program and arguments that start a name server; `--data-dir D` is added. Default: this program, `dns`.
    pub dns_command: Vec<OsString>,
    /// How far the rules of Services are: addresses of pods rest until no node's rules lead to them. Default: nothing is known, so they rest for their least time.
    pub programmed: Programmed,
}

impl Options {
    /// Defaults over a data folder.
    ///
    /// # Errors
    /// When the path of the running program cannot be found out.
    pub fn new(data_dir: impl Into<PathBuf>) -> std::io::Result<Self> {
        let program = OsString::from(std::env::current_exe()?);
        Ok(Self {
            socket: "/run/containerd/containerd.sock".into(),
            namespace: "barge".into(),
            snapshotter: "overlayfs".into(),
            change_timeout: Duration::from_secs(120),
            paths: Paths::new(data_dir),
            cgroup_root: "barge".into(),
            pod_pids_limit: Some(DEFAULT_POD_PIDS),
            cgroup_mount: "/sys/fs/cgroup".into(),
            registries: Vec::new(),
            registry_config: None,
            parallel_fetches: 4,
            parallel_pulls: 8,
            progress_bytes: 256 * 1024,
            progress_window: Duration::from_secs(60),
            cni_bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cni_conf_dir: None,
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            pause_command: vec![program.clone(), "pause".into()],
            carrier_command: vec![program.clone(), "carrier".into()],
            dns_command: vec![program, "dns".into()],
            programmed: Programmed::default(),
        })
    }

    /// Whether these settings can work at all.
    ///
    /// # Errors
    /// Names the first setting that cannot.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        let cgroup_root = std::path::Path::new(&self.cgroup_root);
        let plain = cgroup_root
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if self.cgroup_root.is_empty() || !plain {
            return Err(ConfigurationError::CgroupRoot(self.cgroup_root.clone()));
        }
        let namespace = self.namespace.as_bytes();
        let named = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if namespace.is_empty() || namespace.len() > 76 || !namespace.iter().all(named) {
            return Err(ConfigurationError::Namespace(self.namespace.clone()));
        }
        let counts = [self.parallel_fetches, self.parallel_pulls];
        if self.carrier_command.is_empty() || counts.contains(&0) {
            return Err(ConfigurationError::Empty);
        }
        Ok(())
    }
}

/// How to reach the images of one host.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// The host as image names have it ("docker.io", "localhost:5000").
    pub host: String,
    /// Base URLs asked first, in order ("http://10.0.0.1:5000"); a path becomes a prefix of the repository.
    pub mirrors: Vec<String>,
    /// Speak HTTP without TLS to the host itself.
    pub plain_http: bool,
    /// User name and password for the host itself. A mirror is asked with those of the entry whose `host` is the mirror's.
    pub credentials: Option<(String, String)>,
    /// Certificates of authorities that are trusted for the host besides the machine's, and for no other host.
    pub ca: Vec<reqwest::Certificate>,
}

/// Reads certificates of authorities in PEM.
///
/// # Errors
/// A sentence's end that says what is wrong with them.
pub fn certificates(pem: &[u8]) -> Result<Vec<reqwest::Certificate>, String> {
    let mut roots = rustls::RootCertStore::empty();
    let mut read = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM: {error}"))?;
        let number = read.len() + 1;
        let taken = reqwest::Certificate::from_der(&certificate);
        read.push(
            taken.map_err(|error| format!("has no certificate as number {number}: {error}"))?,
        );
        let added = roots.add(certificate);
        added.map_err(|error| format!("has no certificate as number {number}: {error}"))?;
    }
    match read.is_empty() {
        true => Err("has no certificate (-----BEGIN CERTIFICATE-----)".to_owned()),
        false => Ok(read),
    }
}

/// A setting that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Not a relative path of plain names.
    #[error("the control group root \"{0}\" must be a relative path like \"barge\"")]
    CgroupRoot(String),
    /// Not a name for a containerd namespace.
    #[error(
        "the containerd namespace \"{0}\" must be 1 to 76 letters, digits, dashes, underscores or dots"
    )]
    Namespace(String),
    /// A mirror's URL is not one.
    #[error("the mirror \"{url}\" of {host} must be a URL like http://10.0.0.1:5000")]
    Mirror {
        /// The registry's host.
        host: String,
        /// The URL.
        url: String,
    },
    /// A list or number that must not be empty.
    #[error("the carrier's command is empty, or no layer or image may be fetched at a time")]
    Empty,
}
