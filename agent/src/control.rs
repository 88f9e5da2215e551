//! Control on a real machine: containerd, nftables, the clock, signals.

use std::{io, path::Path, sync::Arc, time::Duration};

use barge_client::supervisor::Supervisor;
use tokio::{
    net::UdpSocket,
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{self, Network},
    clock::SystemClock,
    config::Config,
    life,
    membership::{ClusterManagers, DataFolder, MembershipError},
    node::Sources,
    runtime::{Options, Registry, Runtime, RuntimeError, containerd::Containerd},
    services::{nft::Nft, sysctl},
    session::SavedError,
};

/// Sandboxes and containers created or removed at a time: containerd's rate hardly rises above it.
const PARALLEL_CREATIONS: usize = 8;

/// How long a node waits at its start for containerd, which starts with it when the machine boots.
const BOOT: Duration = Duration::from_secs(30);
/// Between two questions whether containerd is there.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Why control does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Folder, token, managers.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// containerd is missing, or a setting of it cannot work.
    #[error("{0}; is containerd running? Its socket is given with --containerd")]
    Runtime(#[from] RuntimeError),
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

/// Runs this machine's part of the cluster until SIGTERM or SIGINT. Containers run on.
///
/// # Errors
/// See [`ControlError`].
pub async fn run(config: Config) -> Result<(), ControlError> {
    let folder = DataFolder::take(&config.data_dir)?;
    let runtime = Containerd::new(runtime_options(&config, folder.path())?)?;
    let known = folder.load()?.map(|identity| identity.members);
    // Asked before joining: a machine without containerd should not become a node. One that is a node may be booting.
    let patience = known.as_ref().map_or(Duration::ZERO, |_| BOOT);
    let version = containerd_version(&runtime, patience).await?;
    if known.is_none() && config.join.is_empty() {
        return Err(MembershipError::NotJoined(folder.path().to_owned()).into());
    }
    let address = own_address(&config, known).await?;
    let identity = folder.join(&config, &address).await?;
    runtime.recover().await?;
    tracing::info!(node = identity.uid, address, version, "control runs");

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
    let bridge_netfilter = sysctl::prepare(Path::new("/proc/sys"))?;
    let cluster_id = identity.cluster_id.clone();
    let managers = Arc::new(ClusterManagers::new(identity, &folder, config.join)?);
    let (renewing, until) = (managers.clone(), stop.clone());
    tokio::spawn(async move {
        until.run_until_cancelled(renewing.keep_certificate()).await;
    });
    let ended = CancellationToken::new();
    let _until_ended = ended.clone().drop_guard();
    let options = agent::Options {
        cluster_id,
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
            bridge_netfilter,
        }),
        parallel_creations: PARALLEL_CREATIONS,
    };
    // Containers run and are looked after from now on, whether a manager can be reached or not.
    supervisor.ready("control runs");
    let alive = tokio::spawn(supervisor.keep_alive());
    let ended = agent::run(options, stop).await;
    alive.abort();
    signals.abort();
    Ok(ended?)
}

/// containerd's version; an error when it does not answer within `patience`.
async fn containerd_version(
    runtime: &Containerd,
    patience: Duration,
) -> Result<String, RuntimeError> {
    let deadline = Instant::now() + patience;
    loop {
        match runtime.version().await {
            Ok(version) => return Ok(version),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(error) => tracing::info!(%error, "waiting for containerd"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
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
        })
        .collect();
    Ok(options)
}

/// The address given by hand, or the one from which this machine reaches a manager. Nothing is sent for that: a datagram
/// socket that is connected has its local address from the routes.
async fn own_address(config: &Config, known: Option<Vec<String>>) -> Result<String, ControlError> {
    if let Some(address) = config.advertise {
        return Ok(address.to_string());
    }
    for manager in known.iter().flatten().chain(&config.join) {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        if socket.connect(manager).await.is_ok() {
            return Ok(socket.local_addr()?.ip().to_string());
        }
    }
    Err(MembershipError::NoAddress.into())
}
