//! Opening a store, and the first member of a cluster.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use openraft::{ConfigError, ServerState, async_runtime::watch::WatchReceiver};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inner, Instruments, Leadership, Members, Store, StoreError, batch, housekeeping, leadership,
    propose, reads, room::ClientRoom, space, watch::Hub,
};
use crate::{
    raft::{Channels, Connect, Contact, Timing, config::config, snapshots},
    runtime::thread::RuntimeThread,
    storage::{
        self, Failure, LogStore, Process, StateStore, StorageError,
        applier::Observer,
        rocks::Identity,
        space::Space,
        types::{Fatal, Node, Raft, RaftId, RaftInitializeError},
    },
};

/// What a store needs to know.
#[derive(Clone)]
pub struct Options {
    /// The folder for the log and the state; made if it is not there.
    pub folder: PathBuf,
    /// The cluster's uid. A folder of another cluster is refused.
    pub cluster_id: String,
    /// This manager's Raft id; never used before by another manager of this cluster.
    pub raft_id: RaftId,
    /// This manager's host:port, as others reach it.
    pub address: String,
    /// The uid that this manager's certificate names.
    pub uid: String,
    /// Makes authenticated channels to other managers.
    pub connect: Connect,
    /// How fast a lost leader is noticed.
    pub timing: Timing,
    /// A snapshot is taken when the log has grown by so many bytes; on disk it has up to twice as many. Default 64 MiB.
    pub snapshot_log_bytes: u64,
    /// A snapshot is sent with at most so many bytes per second, so that entries and heartbeats are not held up. Default 64 MiB.
    pub snapshot_rate: u64,
    /// Memory for changes that watches can be resumed from, in bytes. Default 16 MiB.
    pub history_bytes: usize,
    /// At most so many changes. Default 100,000.
    pub history_changes: usize,
    /// The space that should stay free on the folder's disk, in bytes. Default 5 % of the disk, but at least 128 MiB and
    /// at most 4 GiB.
    pub min_free_bytes: Option<u64>,
    /// The process that the store runs in; one for each store.
    pub process: Process,
    /// The runtime that drives Raft's connections to other managers. Default: the one in which the store is opened.
    pub network: Option<Handle>,
}

impl Options {
    /// The defaults for this manager.
    pub fn new(
        folder: PathBuf,
        cluster_id: String,
        raft_id: RaftId,
        address: String,
        uid: String,
        connect: Connect,
    ) -> Self {
        Self {
            folder,
            cluster_id,
            raft_id,
            address,
            uid,
            connect,
            timing: Timing::default(),
            snapshot_log_bytes: 64 << 20,
            snapshot_rate: 64 << 20,
            history_bytes: 16 << 20,
            history_changes: 100_000,
            min_free_bytes: None,
            process: Process::default(),
            network: None,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Raft found the log and the state to be at odds, or could not read them.
    #[error("start Raft: {0}")]
    Raft(#[from] Fatal),
    /// The timing makes no sense.
    #[error("the timing of Raft: {0}")]
    Config(#[from] ConfigError),
    /// A thread could not be started.
    #[error("start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl Store {
    /// Opens what is in the folder, and takes part in the cluster as what it was before. A fresh folder waits to be
    /// [bootstrapped](Store::bootstrap), or to be added by a cluster's leader.
    ///
    /// # Errors
    /// When the folder belongs to another manager, is damaged or in use, or a thread cannot be started.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let owner = Identity {
            cluster_id: options.cluster_id.clone(),
            raft_id: options.raft_id,
        };
        let process = options.process.clone();
        let failure = process.failure.clone();
        let hub = Arc::new(Hub::new(options.history_bytes, options.history_changes));
        let (log, state) = {
            let (folder, process) = (options.folder.clone(), process.clone());
            let observer: Arc<dyn Observer> = hub.clone();
            let open = move || {
                let log = LogStore::open(&folder.join("log"), &owner, &process)?;
                let state = StateStore::open(&folder.join("state"), owner, observer, &process)?;
                storage::agree(&log, &state).map_err(|error| error.damaged(&folder))?;
                Ok::<_, StorageError>((log, state))
            };
            tokio::task::spawn_blocking(open)
                .await
                .map_err(io::Error::other)??
        };
        // One snapshot's worth of log is kept on purpose; what is beyond it counts towards the next one.
        state.add_log_bytes(
            log.loaded_bytes()
                .saturating_sub(options.snapshot_log_bytes),
        );

        let instruments = Instruments {
            log_syncs: log.syncs(),
            leader_changes: Counter::default(),
            rejected: Counter::default(),
            lock: state.lock_times(),
        };
        let thread = RuntimeThread::start("barge-raft", &process.threads)?;
        let channels = Channels::new(
            options.connect.clone(),
            options.network.unwrap_or_else(Handle::current),
            options.snapshot_rate,
        );
        let config = config(&options.cluster_id, options.timing)?;
        let id = options.raft_id;
        let raft = thread
            .spawn(Raft::new(
                id,
                config,
                channels.clone(),
                log.clone(),
                state.clone(),
            ))
            .await
            .map_err(io::Error::other)??;
        thread.spawn(snapshots::run(
            raft.clone(),
            state.progress(),
            options.snapshot_log_bytes,
        ));

        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let handing_over = watch::Sender::new(false);
        let (leadership, followed) = watch::channel(Leadership::default());
        let (members, known) = watch::channel(Members::default());
        tasks.spawn(leadership::follow(
            raft.clone(),
            channels.clone(),
            handing_over.subscribe(),
            leadership,
            members,
            instruments.leader_changes.clone(),
        ));
        tasks.spawn(watch_over(raft.clone(), failure.clone(), stop.clone()));
        let (proposals, proposed) = mpsc::channel(batch::QUEUE);
        tasks.spawn(batch::run(
            raft.clone(),
            followed.clone(),
            state.progress(),
            proposed,
            stop.clone(),
        ));
        let (reads, requests) = mpsc::channel(reads::QUEUE);
        let reader = reads::Reader {
            raft: raft.clone(),
            channels: channels.clone(),
            leadership: followed.clone(),
            progress: state.progress(),
        };
        tasks.spawn(reader.run(requests, stop.clone()));
        let disk = space::Disk {
            path: options.folder,
            floor: options.min_free_bytes,
        };
        let (measured, space) = watch::channel(disk.measure(Space::default()));
        let (refuse, refusing) = watch::channel(None);
        let store = Self(Arc::new(Inner {
            id,
            node: Node {
                address: options.address,
                uid: options.uid,
            },
            raft,
            channels,
            log,
            state,
            instruments,
            space,
            refusing,
            contact: Contact::default(),
            hub,
            failure,
            leadership: followed,
            members: known,
            handing_over,
            reads,
            room: Arc::new(Semaphore::new(propose::ROOM)),
            client_room: Arc::new(ClientRoom::new(propose::ROOM)),
            proposals,
            tasks: tasks.clone(),
            stop: stop.clone(),
            _thread: thread,
        }));
        tasks.spawn(housekeeping::run(store.clone(), stop.clone()));
        tasks.spawn(space::keep(store.clone(), disk, measured, refuse, stop));
        Ok(store)
    }

    /// Makes this manager the first and only member of its cluster, and waits until there is a leader. Does nothing when it has been
    /// a member before, so that it can be repeated.
    ///
    /// # Errors
    /// [`StoreError::NoQuorum`] when no manager leads in time, which is no error for a cluster that has other members.
    pub async fn bootstrap(&self) -> Result<(), StoreError> {
        /// The only voter elects itself at once, as soon as the disk has its vote.
        const BOUND: Duration = Duration::from_secs(10);
        let members = BTreeMap::from([(self.0.id, self.0.node.clone())]);
        match self.0.raft.initialize(members).await {
            Ok(()) => {}
            // There is a log already: it was done before.
            Err(RaftInitializeError::APIError(_)) => {}
            Err(RaftInitializeError::Fatal(_)) => return Err(StoreError::Stopped),
        }
        let mut leadership = self.leadership();
        let led = leadership.wait_for(|leadership| leadership.leader.is_some());
        match tokio::time::timeout(BOUND, led).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(StoreError::Stopped),
            Err(_) => return Err(StoreError::NoQuorum),
        }
        // Only then is the first entry committed, and members can be added.
        self.read_index().await
    }
}

/// Reports the end of Raft, unless it was asked to end.
async fn watch_over(raft: Raft, failure: Failure, stop: CancellationToken) {
    let mut metrics = raft.metrics();
    loop {
        let (state, ended) = {
            let metrics = metrics.borrow_watched();
            (metrics.state, metrics.running_state.clone().err())
        };
        if state == ServerState::Shutdown || ended.is_some() {
            if !stop.is_cancelled() {
                let reason = ended.map_or_else(|| "it stopped".to_owned(), |e| e.to_string());
                failure.report(&format!("Raft ended: {reason}"));
            }
            return;
        }
        if metrics.changed().await.is_err() {
            if !stop.is_cancelled() {
                failure.report("Raft ended");
            }
            return;
        }
    }
}
