//! A manager's life: it gets an identity, opens its state, serves, and drains.

mod activation;
mod announce;
mod health;
mod leading;
mod loops;
mod members;
pub mod metrics;
pub mod serve;

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use barge_client::{
    identity::{Identity, IdentityError, KeptIdentity},
    supervisor::Supervisor,
    tls::TlsError,
};
use barge_proto::auth::AuthError;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{activation::Own, serve::Serving};
use crate::{
    boot::{
        bootstrap::{self, BootstrapError},
        folder::{Folder, FolderError},
        join::{self, AdmissionError},
    },
    calls::in_flight::InFlight,
    config::{Config, Origin},
    error::ApiError,
    net::{Credentials, Dialer, Rules},
    observe::{logging::Logging, spans::Spans},
    pki::{PkiError, Subject},
    raft,
    runtime::Threads,
    security::{audit::AuditLog, issue::Issuer},
    store::{OpenError, Options, Store},
};

/// How long open requests and streams get when this manager stops.
const DRAIN: Duration = Duration::from_secs(10);
/// The same when the others can commit nothing without this manager: requests in progress get no answer then, and clients repeat them.
const DRAIN_DECISIVE: Duration = Duration::from_secs(1);

/// Why a manager does not run, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The data folder has no cluster, and no flag says where one comes from.
    #[error(
        "the data folder {} has no cluster yet: start one with --bootstrap, or join one with --join and --token-file",
        .0.display()
    )]
    NoCluster(std::path::PathBuf),
    /// It was removed from its cluster.
    #[error(
        "this manager was removed from its cluster, and the data folder {} is of no further use: to join again, empty it and \
         start with --join and a new token",
        .0.display()
    )]
    Removed(std::path::PathBuf),
    /// The beginning of a cluster.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Joining a cluster.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The manager's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The manager's certificate.
    #[error("the certificate in the data folder: {0}")]
    Certificate(#[from] PkiError),
    /// Key and certificates do not work.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The schema has no rule for an RPC.
    #[error("refusing to start: {0}")]
    Rules(#[from] AuthError),
    /// The address to listen on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The state.
    #[error("open the state: {0}")]
    Open(#[from] OpenError),
    /// The first transaction.
    #[error("begin the cluster: {0}")]
    Genesis(ApiError),
    /// The audit log.
    #[error("start the audit log: {0}")]
    Audit(io::Error),
    /// Signals.
    #[error("wait for signals: {0}")]
    Signals(io::Error),
    /// A thread.
    #[error("start a thread: {0}")]
    Thread(io::Error),
    /// Serving.
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
    /// The state cannot go on; a restart reads it again.
    #[error("this manager cannot go on: {0}")]
    Failed(Arc<str>),
}

impl RunError {
    /// The exit code of a process that ends with this error: 3 after a removal, when a restart is of no use, otherwise 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Removed(_) => 3,
            _ => 1,
        }
    }
}

/// Runs a manager until SIGTERM or SIGINT, or until it is removed from its cluster, and drains it. Its databases are closed
/// when the runtime has been shut down and the threads have ended.
///
/// # Errors
/// One sentence on why it does not run, or could not go on.
pub async fn run(
    config: Config,
    threads: Threads,
    logging: Logging,
    spans: Spans,
) -> Result<(), RunError> {
    let supervisor = Supervisor::from_environment();
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let rules = Rules::load()?;
    let folder = Folder::open(&config.data_dir)?;
    let identity = tokio::select! {
        identity = identity(&folder, &config) => identity?,
        () = signals.next() => return Ok(()),
    };
    let credentials = Credentials::new(&identity)?;
    if let Ok(Err(invalid)) = identity.validity().map(|v| v.check(SystemTime::now())) {
        tracing::warn!("this manager's {invalid}; it signs itself another by this clock");
    }
    let listener = bind(config.listen).await?;
    let metrics = match config.metrics {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let dialer = Dialer::new(&credentials);
    // Raft has connections of its own, on a thread of their own.
    let raft_thread = raft::lane::thread(&threads).map(Arc::new);
    let raft_thread = raft_thread.map_err(RunError::Thread)?;
    let rafts = (Dialer::for_raft(&credentials), raft_thread.handle().clone());
    let store = open(&folder, &config, &identity, rafts, threads.clone()).await?;
    let audit = match config.audit {
        true => AuditLog::open(folder.path()).map_err(RunError::Audit)?,
        false => AuditLog::off(),
    };
    let keyring = folder.load_keyring()?;
    if keyring.is_locked() {
        tracing::warn!(
            "this manager is locked: it takes part in everything but what needs the sealing key, until `barge cluster unlock`"
        );
    }
    let stop = CancellationToken::new();
    let in_flight = InFlight::default();
    let own = Own {
        store: store.clone(),
        dialer: dialer.clone(),
        identity: identity.clone(),
        advertise: config.advertise.clone(),
    };
    let serving = Serving {
        store: store.clone(),
        dialer,
        credentials,
        identity: KeptIdentity::new(identity, folder.identity()),
        issuer: Issuer::new(store.clone(), keyring.clone(), config.certificate_lifetime),
        audit: audit.clone(),
        advertise: config.advertise,
        in_flight: in_flight.clone(),
        data_dir: folder.path().to_owned(),
        spans,
        logging,
        node_grace: config.node_grace,
        threads,
        // It lives until this function ends, because the last request may wait for Raft.
        raft_thread: raft_thread.clone(),
        node_loss_interval: config.node_loss_interval,
        reserved_ports: config.reserved_ports,
        stop: stop.clone(),
    };
    let mut server = Box::pin(serve::serve(serving, rules, listener, metrics));
    // Whoever connects from now on is accepted; that there is a leader is not this process's doing alone.
    supervisor.ready("serving");
    tokio::spawn(keep_alive(supervisor.clone(), store.clone(), stop.clone()));
    let end = tokio::select! {
        ended = &mut server => return Ok(ended?),
        reason = store.failed() => return Err(RunError::Failed(reason)),
        () = own.until_removed() => {
            folder.mark_removed()?;
            Err(RunError::Removed(folder.path().to_owned()))
        }
        () = signals.next() => Ok(()),
    };
    match &end {
        Ok(()) => tracing::info!("stopping: a second signal ends this at once"),
        Err(removed) => tracing::error!("{removed}"),
    }
    supervisor.stopping();
    let patience = match store.is_decisive().await {
        true => DRAIN_DECISIVE,
        false => DRAIN,
    };
    let leave = async {
        // Writes go on at the next leader before the streams of this one end.
        if let Err(error) = store.hand_over().await {
            tracing::warn!(%error, "leadership was not handed over");
        }
        stop.cancel();
        // What is still being answered here may have to hear from Raft what was written elsewhere.
        in_flight.none().await;
        // Other managers hold their connections for Raft, and let go of them when it has ended.
        store.shutdown().await;
    };
    tokio::select! {
        drained = timeout(patience, async { tokio::join!(server, leave).0 }) => match drained {
            Ok(ended) => ended?,
            Err(_) => {
                tracing::warn!("requests were still open after {} s", patience.as_secs());
                store.shutdown().await;
            }
        },
        () = signals.next() => tracing::warn!("stopped without draining"),
    }
    // Waits for the disk, which is of no use to anybody else any more.
    audit.close();
    end
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })
}

/// Who this manager is: from its folder, or else from where the flags say.
async fn identity(folder: &Folder, config: &Config) -> Result<Identity, RunError> {
    if folder.is_removed() {
        return Err(RunError::Removed(folder.path().to_owned()));
    }
    if let Some(identity) = Identity::load(&folder.identity())? {
        if let Origin::Join { token_file, .. } = &config.origin {
            join::check_same_cluster(folder, &identity, token_file)?;
        }
        return Ok(identity);
    }
    match &config.origin {
        Origin::Existing => Err(RunError::NoCluster(folder.path().to_owned())),
        Origin::Bootstrap => Ok(bootstrap::begin(folder, config)?),
        Origin::Join {
            managers,
            token_file,
        } => Ok(join::admit(folder, &config.advertise, managers, token_file).await?),
    }
}

/// Opens the state, and commits the first transaction of a cluster that begins here.
async fn open(
    folder: &Folder,
    config: &Config,
    identity: &Identity,
    (dialer, network): (Dialer, Handle),
    threads: Threads,
) -> Result<Store, RunError> {
    let certificate = identity.chain.first().map(|c| c.as_ref());
    let subject = Subject::from_certificate(certificate.unwrap_or_default())?;
    let mut options = Options::new(
        folder.store(),
        identity.cluster_id.clone(),
        subject.raft_id.unwrap_or_default(),
        config.advertise.clone(),
        identity.uid.clone(),
        Arc::new(move |address| Ok(dialer.channel(address)?)),
    );
    options.process.threads = threads;
    options.network = Some(network);
    options.min_free_bytes = config.min_disk_free;
    folder.check_store()?;
    options.snapshot_log_bytes = config.snapshot_after.unwrap_or(options.snapshot_log_bytes);
    options.snapshot_rate = config.snapshot_rate.unwrap_or(options.snapshot_rate);
    let store = Store::open(options).await?;
    folder.mark_used()?;
    if let Some(genesis) = bootstrap::pending(folder, identity)? {
        let committed = async {
            store.bootstrap().await?;
            let outcome = store.propose(genesis).await?;
            match ApiError::check(outcome) {
                // It was committed before, and this manager stopped before it could note that.
                Ok(_) | Err(ApiError::Exists(_)) => Ok(()),
                Err(error) => Err(error),
            }
        };
        committed.await.map_err(RunError::Genesis)?;
        folder.remove(&folder.genesis())?;
    }
    Ok(store)
}

/// Tells the supervisor that this process lives, as long as tasks are run and the state can be read.
async fn keep_alive(supervisor: Supervisor, store: Store, stop: CancellationToken) {
    let Some(period) = supervisor.watchdog() else {
        return;
    };
    let mut ticks = tokio::time::interval(period);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        store.read(|_| supervisor.alive());
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
