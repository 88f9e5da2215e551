//! Puts the parts together: Options in, runs until told to stop.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    boot::{self, Boot},
    carrier::{Carrier, keeper},
    clock::{Clock, to_time},
    desired::Desired,
    events::{Recorder, Severity, node_reference},
    files, life,
    logs::LogServer,
    managers::Managers,
    node::{self, NodeWatcher, Sources},
    outbox::Outbox,
    pods::{self, PodManager},
    routes,
    runtime::Runtime,
    services::{ServiceRules, nft::Nft},
    session::{self, AssignmentFiles, Incarnation, SavedError, Session},
};

/// For steps under way when the agent is told to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// Images pulled at a time.
const PARALLEL_PULLS: usize = 8;

/// What an agent is made of.
pub struct Options {
    /// The cluster it belongs to.
    pub cluster_id: String,
    /// The way to the managers.
    pub managers: Arc<dyn Managers>,
    /// Where life signs are sent from: see [`life::thread`].
    pub life: Handle,
    /// Runs the containers.
    pub runtime: Arc<dyn Runtime>,
    /// Drains the containers' output; kept running unless it is `None`.
    pub carrier: Option<Carrier>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Records and assignments are kept here.
    pub data_dir: PathBuf,
    /// The machine.
    pub sources: Sources,
    /// Service rules and routes in this process's network namespace; `None` leaves it alone.
    pub network: Option<Network>,
    /// Sandboxes and containers created or removed at a time.
    pub parallel_creations: usize,
}

/// How the agent may change its network namespace.
pub struct Network {
    /// Writes rules.
    pub nft: Nft,
    /// Whether bridged traffic passes the rules.
    pub bridge_netfilter: bool,
}

/// Runs an agent until `stop` is cancelled. Containers, rules and routes stay as they are.
///
/// # Errors
/// The data folder cannot be used.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), SavedError> {
    // Until this returns: the node lives while steps under way are waited for.
    let living = CancellationToken::new();
    let _until_drained = living.clone().drop_guard();
    let (sign, held) = oneshot::channel::<()>();
    let begin = async { drop(held.await) };
    let lane = life::start(&options.life, options.managers.clone(), living, begin);
    let boot = Boot::look(&options.data_dir, &options.sources.proc).await;
    let held_back = boot.is_new().then_some(sign);
    let incarnation = Incarnation::raise(&options.data_dir, options.clock.now_ms()).await;
    let outbox = Arc::new(Outbox::new(incarnation.number()));
    let recorder = Recorder::new(outbox.clone(), options.clock.clone());
    let host_ip = options.sources.address.clone();
    let (unknown_sender, unknown) = watch::channel(Default::default());
    let watcher = NodeWatcher::new(node::Options {
        sources: options.sources,
        runtime: options.runtime.clone(),
        clock: options.clock.clone(),
        unknown,
        outbox: outbox.clone(),
    });
    let (node_sender, node) = watch::channel(watcher.look(None).await);
    // Begins with what is on disk: without managers the node runs what it ran.
    let (data_dir, cluster_id) = (options.data_dir.clone(), options.cluster_id.clone());
    let load = move || {
        let files = AssignmentFiles::open(&data_dir);
        Ok(files.map(|files| (files.load(&cluster_id), files)))
    };
    let loaded = files::blocking(load).await;
    let (kept, files) = loaded.map_err(|error| SavedError::new(&options.data_dir, error))??;
    let (desired_sender, desired) = watch::channel(Arc::new(kept));
    let streams = LogServer::new(options.runtime.clone(), desired.clone(), stop.clone());
    let session = Session::new(
        session::Options {
            cluster_id: options.cluster_id,
            managers: options.managers,
            lane: lane.clone(),
            outbox: outbox.clone(),
            node,
            files,
            streams: Arc::new(streams),
        },
        desired_sender,
    );
    let (first_desired, first_outbox) = (desired.borrow().clone(), outbox.clone());
    let now = to_time(options.clock.now_ms());
    let note_boot = async move {
        if held_back.is_some() {
            boot::say_not_ready(&first_desired, &first_outbox, now).await;
        }
        drop(held_back);
        if let Err(error) = boot.note().await {
            tracing::warn!(%error, "cannot note the machine's boot");
        }
    };
    let (network_sender, network_ready) = watch::channel(false);
    let pods = PodManager::new(pods::Options {
        runtime: options.runtime.clone(),
        clock: options.clock,
        outbox,
        recorder: recorder.clone(),
        desired: desired.clone(),
        unknown: unknown_sender,
        host_ip,
        network_ready,
        data_dir: options.data_dir,
        parallel_creations: options.parallel_creations,
        parallel_pulls: PARALLEL_PULLS,
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(session.run(stop.clone()));
    let until = stop.clone();
    tasks.spawn(async move {
        until.run_until_cancelled(incarnation.keep()).await;
    });
    let until = stop.clone();
    tasks.spawn(async move {
        until.run_until_cancelled(note_boot).await;
    });
    let until = stop.clone();
    tasks.spawn(async move {
        until.run_until_cancelled(lane.log()).await;
    });
    tasks.spawn(pods.run(stop.clone()));
    tasks.spawn(watcher.run(node_sender, stop.clone()));
    let prepare = prepare_network(options.runtime, desired.clone(), network_sender);
    let until = stop.clone();
    tasks.spawn(async move {
        until.run_until_cancelled(prepare).await;
    });
    if let Some(carrier) = options.carrier {
        let (recorder, desired) = (recorder.clone(), desired.clone());
        let tell = move |reason: &str, message: String| {
            if let Some(node) = desired.borrow().node() {
                recorder.record(node_reference(node), Severity::Warning, reason, message);
            }
        };
        let until = stop.clone();
        tasks.spawn(async move {
            until.run_until_cancelled(keeper::keep(carrier, tell)).await;
        });
    }
    if let Some(network) = options.network {
        let rules = ServiceRules::new(network.nft, recorder.clone(), network.bridge_netfilter);
        tasks.spawn(rules.run(desired.clone(), stop.clone()));
        tasks.spawn(routes::run(desired, recorder, stop.clone()));
    }
    stop.cancelled().await;
    let drained = timeout(DRAIN, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("gave up waiting for steps under way; they are repeated at the next start");
    }
    Ok(())
}

/// Has the runtime prepare for the node's pod range as soon as that is known. Returns when there is nothing left to wait
/// for.
async fn prepare_network(
    runtime: Arc<dyn Runtime>,
    mut desired: watch::Receiver<Arc<Desired>>,
    ready: watch::Sender<bool>,
) {
    let mut prepared = String::new();
    loop {
        let range = desired.borrow_and_update().pod_cidr().to_owned();
        if !range.is_empty() && range != prepared {
            match runtime.ensure_network(&range).await {
                Ok(()) => {
                    prepared = range;
                    ready.send_replace(true);
                }
                Err(error) => {
                    tracing::error!(%error, range, "cannot prepare the pod network");
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            }
        }
        if desired.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
