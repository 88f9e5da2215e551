//! Control on a real machine: containerd, nftables, the clock, signals.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use barge_client::{identity::Identity, supervisor::Supervisor};
use barge_proto::v1::Node;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    address::{AddressError, Before, own_address},
    agent::{self, End, NameServer},
    clock::SystemClock,
    config::Config,
    life,
    membership::{ClusterManagers, DataFolder, MembershipError},
    node::Sources,
    routes,
    runtime::{Options, Registry, Runtime, RuntimeError, certificates, containerd::Containerd},
    services::{Network, nft::Nft, sysctl},
    session::{AssignmentFiles, SavedError},
};

/// Sandboxes and containers created at a time, and as many that are removed: containerd's rate hardly rises above it.
const PARALLEL_CREATIONS: usize = 8;

/// Why control does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Folder, token, managers.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// This machine has no address that could be the node's.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The cluster has no such node any more. A start finds the same.
    #[error(
        "this node was deleted from cluster {cluster}, and its pods have ended{}. To have the machine join again, move {} away and start the agent with --join and a new token",
        running_on(unknown), identity.display()
    )]
    NodeDeleted {
        /// The cluster.
        cluster: String,
        /// The file that makes the machine this node.
        identity: PathBuf,
        /// Pods that run on; `None` when the runtime does not list them.
        unknown: Option<usize>,
    },
    /// containerd is missing, or a setting of it cannot work.
    #[error("{0}; is containerd running? Its socket is given with --containerd")]
    Runtime(#[from] RuntimeError),
    /// A defect of this program. A start mends it, and containers run on meanwhile.
    #[error(
        "the agent's part {0:?} ended, so the agent ends, to be started again; containers run on"
    )]
    Broken(&'static str),
    /// What was assigned cannot be read or kept.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// The kernel refuses a setting.
    #[error(transparent)]
    Sysctl(#[from] sysctl::SysctlError),
    /// Signals or sockets cannot be used.
    #[error("cannot begin: {0}")]
    Io(#[from] io::Error),
}

fn running_on(unknown: &Option<usize>) -> String {
    let which = match unknown {
        Some(0) => return String::new(),
        Some(unknown) => format!("but {unknown} that the cluster did not know"),
        None => "but containerd does not say whether others run on".to_owned(),
    };
    format!(" ({which}: `barge-agent forget-pods` lists them)")
}

/// Runs this machine's part of the cluster until SIGTERM or SIGINT. Containers run on.
///
/// # Errors
/// See [`ControlError`].
pub async fn run(config: Config) -> Result<(), ControlError> {
    let folder = DataFolder::take(&config.data_dir)?;
    let settings = runtime_options(&config, folder.path())?;
    let names = NameServer {
        command: settings.dns_command.clone(),
        resolv_conf: settings.resolv_conf.clone(),
        paths: settings.paths.clone(),
    };
    let programmed = settings.programmed.clone();
    let runtime = Containerd::new(settings)?;
    let known = folder.load()?;
    if known.is_none() {
        // A machine without containerd should not become a node. One that is a node may be booting, and its containers are there
        // whatever containerd does: it signs that it lives, and says that its runtime does not answer.
        let version = runtime.version().await?;
        if config.join.is_empty() {
            return Err(MembershipError::NotJoined(folder.path().to_owned()).into());
        }
        tracing::info!(version, "containerd answers");
    }
    let before = match &known {
        Some(identity) => Some(before(&folder, identity)?),
        None => None,
    };
    let members = known.map(|identity| identity.members).unwrap_or_default();
    let managers = [&members[..], &config.join].concat();
    let address = own_address(config.node_ip, before, &managers).await?;
    let (ip, address) = (address, address.to_string());
    let identity = folder.join(&config, &address).await?;
    // Nobody was asked for a sandbox yet.
    let runtime = runtime.at(ip.into());
    tracing::info!(node = identity.uid, address, "control runs");

    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let supervisor = Supervisor::from_environment();
    let (stopper, told) = (stop.clone(), supervisor.clone());
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.stopping();
        stopper.cancel();
    });
    sysctl::prepare(Path::new("/proc/sys"))?;
    let cluster_id = identity.cluster_id.clone();
    let managers = Arc::new(ClusterManagers::new(identity, &folder, config.join)?);
    let (renewing, until) = (managers.clone(), stop.clone());
    let renewal = tokio::spawn(async move {
        until.run_until_cancelled(renewing.keep_certificate()).await;
    });
    let stopper = stop.clone();
    let renewed = tokio::spawn(async move {
        let _ = renewal.await;
        let is_wanted = stopper.is_cancelled();
        stopper.cancel();
        is_wanted
    });
    let ended = CancellationToken::new();
    let _until_ended = ended.clone().drop_guard();
    let options = agent::Options {
        cluster_id: cluster_id.clone(),
        managers,
        life: life::thread(ended)?,
        carrier: Some(runtime.carrier().clone()),
        runtime: Arc::new(runtime),
        clock: Arc::new(SystemClock),
        data_dir: folder.path().to_owned(),
        sources: Sources {
            proc: "/proc".into(),
            etc: "/etc".into(),
            data_dir: folder.path().to_owned(),
            name: config.node_name,
            address,
        },
        network: Some(Network {
            nft: Nft::default(),
            setting: routes::Setting {
                mode: config.pod_network,
                address: Some(ip),
            },
            programmed,
            cni_conf_dir: config.cni_conf_dir,
        }),
        names: config.cluster_dns.then_some(names),
        parallel_creations: PARALLEL_CREATIONS,
        collection: config.collection,
    };
    // Containers run and are looked after from now on, whether a manager can be reached or not.
    supervisor.ready("control runs");
    let alive = tokio::spawn(supervisor.keep_alive());
    let ended = agent::run(options, stop).await;
    alive.abort();
    signals.abort();
    match ended? {
        End::Stopped => match renewed.await {
            Ok(true) => Ok(()),
            _ => Err(ControlError::Broken("renewal of certificates")),
        },
        End::Broken { part } => Err(ControlError::Broken(part)),
        End::NodeDeleted { unknown } => Err(ControlError::NodeDeleted {
            cluster: cluster_id,
            identity: folder.path().join("identity"),
            unknown,
        }),
    }
}

/// What the runtime is asked for by the settings.
pub(crate) fn runtime_options(config: &Config, data_dir: &Path) -> io::Result<Options> {
    let mut options = Options::new(data_dir)?;
    options.socket.clone_from(&config.containerd);
    options.namespace.clone_from(&config.containerd_namespace);
    options.cgroup_root.clone_from(&config.cgroup_root);
    options.pod_pids_limit = config.pod_pids_limit;
    options.registries = config
        .registries
        .iter()
        .map(|registry| Registry {
            host: registry.host.clone(),
            mirrors: registry.mirrors.clone(),
            plain_http: registry.plain_http,
            credentials: registry.username.clone().zip(registry.password.clone()),
            // Those that cannot be read were refused with the settings.
            ca: certificates(&registry.ca_pem).unwrap_or_default(),
        })
        .collect();
    options.registry_config.clone_from(&config.registry_config);
    options.resolv_conf.clone_from(&config.resolv_conf);
    options.cni_conf_dir.clone_from(&config.cni_conf_dir);
    if !config.cni_bin_dirs.is_empty() {
        options.cni_bin_dirs.clone_from(&config.cni_bin_dirs);
    }
    Ok(options)
}

/// What the folder says of the node's address.
fn before(folder: &DataFolder, identity: &Identity) -> Result<Before, ControlError> {
    let files = AssignmentFiles::open(folder.path())?;
    let assigned = files.load(&identity.cluster_id);
    let last = assigned.node().and_then(internal_ip);
    Ok(Before {
        last: last.and_then(|address| address.parse().ok()),
    })
}

fn internal_ip(node: &Node) -> Option<&str> {
    let mut all = node.status.iter().flat_map(|status| &status.addresses);
    let found = all.find(|address| address.r#type == "InternalIP")?;
    Some(&found.address)
}
