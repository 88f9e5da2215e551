//! Puts the parts together: Options in, runs until told to stop.

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    boot::{self, Boot},
    carrier::{Carrier, keeper},
    clock::{Clock, to_time},
    collection::{self, Collector, Thresholds},
    desired::Desired,
    dns::{self, Resolver, keeper::Keeper},
    events::{Recorder, Severity, node_reference},
    files, life,
    managers::Managers,
    metrics::{self, sampler},
    network,
    node::{self, NodeWatcher, Sources},
    outbox::Outbox,
    pods::{self, PodManager, unknown::unknown},
    routes,
    runtime::{Paths, Runtime},
    services::{self, Network, ServiceRules, nft::Nft},
    session::{self, AssignmentFiles, Incarnation, SavedError, Session},
    streams::{Measured, StreamServer},
    tokens::{FromManagers, Tokens},
};

mod parts;

use parts::Parts;

/// An agent of which a part ends does not end before it is about as old.
const YOUNG: Duration = Duration::from_secs(10);
/// For steps under way when the agent is told to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// For the runtime to list what runs on when the node was deleted …
const LISTING: Duration = Duration::from_secs(5);
/// … and between two questions.
const LIST_AGAIN: Duration = Duration::from_millis(500);

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
    /// The node's name server; kept running, and told of names, unless it is `None`.
    pub names: Option<NameServer>,
    /// Sandboxes and containers created at a time, and as many that are removed.
    pub parallel_creations: usize,
    /// When images that nothing here uses are removed.
    pub collection: Thresholds,
}

/// How the node's name server is started and told.
pub struct NameServer {
    /// Program and arguments that start it; `--data-dir D` is added.
    pub command: Vec<OsString>,
    /// The file that says which name servers the node asks.
    pub resolv_conf: PathBuf,
    /// The data folder.
    pub paths: Paths,
}

/// Why an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to stop. Containers, rules and routes stay as they are.
    Stopped,
    /// A part of it is missing, which is a defect of this program. To be started again; containers, rules and routes stay as they are.
    Broken {
        /// Which.
        part: &'static str,
    },
    /// Its node was deleted, and nothing of the node's pods is left.
    NodeDeleted {
        /// Pods that run on, because the cluster never knew them or forgot them; `None` when the runtime does not list them. Rules and routes
        /// stay unless this is 0: what runs on may need them.
        unknown: Option<usize>,
    },
}

/// Runs an agent until `stop` is cancelled, until its node was deleted and its pods have ended, or until a part of it ended or panicked; then it cancels
/// `stop`.
///
/// # Errors
/// The data folder cannot be used.
pub async fn run(options: Options, stop: CancellationToken) -> Result<End, SavedError> {
    let begun = Instant::now();
    // Until this returns: the node lives while steps under way are waited for.
    let living = CancellationToken::new();
    let _until_drained = living.clone().drop_guard();
    let (sign, held) = oneshot::channel::<()>();
    let begin = async { drop(held.await) };
    let network = options.network.as_ref();
    let programmed = network.map(|it| it.programmed.clone()).unwrap_or_default();
    let everywhere = programmed.everywhere();
    let managers = options.managers.clone();
    let lane = life::start(&options.life, managers, programmed, living, begin);
    let boot = Boot::look(&options.data_dir, &options.sources.proc).await;
    let held_back = boot.is_new().then_some(sign);
    let incarnation = Incarnation::raise(&options.data_dir, options.clock.now_ms()).await;
    let outbox = Arc::new(Outbox::new(incarnation.number()));
    let recorder = Recorder::new(outbox.clone(), options.clock.clone());
    let host_ip = options.sources.address.clone();
    let taken = metrics::Store::default();
    let sampling = sampler::Options {
        runtime: options.runtime.clone(),
        store: taken.clone(),
        proc: options.sources.proc.clone(),
        data_dir: options.data_dir.clone(),
    };
    let (unknown_sender, strangers) = watch::channel(Default::default());
    let (network_found, of_network) = watch::channel(network::Found::default());
    let left = CancellationToken::new();
    let watcher = NodeWatcher::new(node::Options {
        sources: options.sources,
        runtime: options.runtime.clone(),
        clock: options.clock.clone(),
        unknown: strangers,
        network: of_network.clone(),
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
    let (open, session_open) = watch::channel(None);
    let ask = FromManagers::new(options.managers.clone(), lane.chosen(), session_open);
    let tokens = Tokens::default();
    let keep_tokens = tokens.clone().keep(
        Arc::new(ask),
        desired.clone(),
        recorder.clone(),
        stop.clone(),
    );
    let trusted = options.managers.clone();
    let measured = Measured {
        store: taken.clone(),
        clock: options.clock.clone(),
    };
    let streams = StreamServer::new(
        options.runtime.clone(),
        desired.clone(),
        measured,
        stop.clone(),
    );
    let streams_ended = streams.clone().ended();
    let session = Session::new(
        session::Options {
            cluster_id: options.cluster_id,
            managers: options.managers,
            lane: lane.clone(),
            outbox: outbox.clone(),
            node: node.clone(),
            files,
            streams: Arc::new(streams),
            open,
            left: left.clone(),
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
    let collector = Collector::new(collection::Options {
        runtime: options.runtime.clone(),
        clock: options.clock.clone(),
        recorder: recorder.clone(),
        desired: desired.clone(),
        thresholds: options.collection,
    });
    let (network_sender, network_ready) = watch::channel(false);
    // It is being started, and answers before a container of a new pod runs.
    let first = options
        .names
        .as_ref()
        .map(|_| Resolver::At(dns::LINK_LOCAL));
    let (resolver_sender, resolver) = watch::channel(first.unwrap_or_default());
    let pods = PodManager::new(pods::Options {
        runtime: options.runtime.clone(),
        clock: options.clock,
        outbox,
        recorder: recorder.clone(),
        desired: desired.clone(),
        everywhere,
        unknown: unknown_sender,
        host_ip,
        node,
        network_ready,
        resolver,
        data_dir: options.data_dir,
        parallel_creations: options.parallel_creations,
        tokens,
        taken,
        roots: Box::new(move || trusted.roots_pem()),
    });
    let kept = desired.clone();
    let all_ended = all_ended(pods.gone(), desired.clone());
    let mut parts = Parts::default();
    parts.lasting("session with the managers", session.run(stop.clone()));
    let until = stop.clone();
    parts.passing("note of the incarnation", async move {
        until.run_until_cancelled(incarnation.keep()).await;
    });
    let until = stop.clone();
    parts.passing("note of the boot", async move {
        until.run_until_cancelled(note_boot).await;
    });
    let until = stop.clone();
    parts.lasting("life signs", async move {
        until.run_until_cancelled(lane.log()).await;
    });
    parts.lasting("tokens", keep_tokens);
    parts.lasting("streams", streams_ended);
    parts.lasting("pods", pods.run(stop.clone()));
    parts.lasting("collection of images", collector.run(stop.clone()));
    parts.lasting("measurements", sampler::run(sampling, stop.clone()));
    parts.lasting("node status", watcher.run(node_sender, stop.clone()));
    let prepare = prepare_network(options.runtime.clone(), desired.clone(), network_sender);
    let until = stop.clone();
    parts.passing("pod network", async move {
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
        parts.lasting("keeper of the carrier", async move {
            until.run_until_cancelled(keeper::keep(carrier, tell)).await;
        });
    }
    let names = options.names.as_ref().map(|names| names.paths.dns());
    if let Some(names) = options.names {
        let (recorder, told) = (recorder.clone(), desired.clone());
        let tell = move |reason: &str, message: String| {
            let severity = match reason == dns::keeper::ANSWERS {
                true => Severity::Normal,
                false => Severity::Warning,
            };
            if let Some(node) = told.borrow().node() {
                recorder.record(node_reference(node), severity, reason, message);
            }
        };
        let publish = dns::publish::publish(desired.clone(), names.paths.dns(), names.resolv_conf);
        let keeper = Keeper {
            command: names.command,
            paths: names.paths,
            desired: desired.clone(),
            resolver: resolver_sender,
        };
        let until = stop.clone();
        parts.lasting("names", async move {
            until.run_until_cancelled(publish).await;
        });
        let until = stop.clone();
        parts.lasting("keeper of the name server", async move {
            until.run_until_cancelled(keeper.keep(tell)).await;
        });
    }
    let host_ports = options.runtime.host_ports();
    let cleared = options.network.as_ref().map(|it| it.nft.clone());
    if let Some(network) = options.network {
        let setting = network.setting;
        let looking = network::Options {
            desired: desired.clone(),
            cni_conf_dir: network.cni_conf_dir.clone(),
            vxlan_port: setting.vxlan_port(),
            nft: network.nft.clone(),
            recorder: recorder.clone(),
        };
        parts.lasting(
            "what the pod network depends on",
            network::run(looking, network_found, stop.clone()),
        );
        let rules = ServiceRules::new(network, recorder.clone(), host_ports);
        let guards = rules.guards();
        parts.lasting(
            "rules of Services",
            rules.run(desired.clone(), stop.clone()),
        );
        let runtime = options.runtime.clone();
        parts.lasting(
            "routes",
            routes::run(
                desired,
                of_network,
                guards,
                setting,
                runtime,
                recorder,
                stop.clone(),
            ),
        );
    }
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Some(End::Stopped),
        () = async { left.cancelled().await; all_ended.await } => None,
        part = parts.missing() => {
            tracing::error!(part, "a part of the agent ended; the agent ends, to be started again. Containers run on");
            // What ends a part again at each start must not keep the agent starting: what else it does goes on meanwhile.
            let pause = YOUNG.saturating_sub(begun.elapsed());
            let pause = pause.mul_f64(rand::random_range(0.5..1.0));
            match stop.run_until_cancelled(sleep(pause)).await {
                Some(()) => Some(End::Broken { part }),
                None => Some(End::Stopped),
            }
        }
    };
    stop.cancel();
    let drained = timeout(DRAIN, parts.finish());
    if drained.await.is_err() {
        tracing::warn!("gave up waiting for steps under way; they are repeated at the next start");
    }
    if let Some(ended) = ended {
        return Ok(ended);
    }
    let desired = kept.borrow().clone();
    let unknown = running_on(&*options.runtime, &desired).await;
    if let (Some(0), Some(nft)) = (unknown, cleared) {
        clear_network(&nft).await;
        if let Some(folder) = names {
            dns::publish::retire(folder).await;
            if let Err(error) = dns::keeper::clear(&desired).await {
                tracing::warn!(%error, "the name server's addresses stay");
            }
        }
    }
    Ok(End::NodeDeleted { unknown })
}

/// How many pods run on beside those that were deleted; `None` when the runtime does not list them in time.
async fn running_on(runtime: &dyn Runtime, desired: &Desired) -> Option<usize> {
    let inventory = async {
        loop {
            match runtime.list().await {
                Ok(inventory) => return inventory,
                Err(error) => tracing::warn!(%error, "cannot list what runs on"),
            }
            sleep(LIST_AGAIN).await;
        }
    };
    let inventory = timeout(LISTING, inventory).await.ok()?;
    Some(unknown(desired, &inventory).len())
}

/// Returns when the node's pods are marked as deleted and nothing is left of them.
async fn all_ended(
    mut gone: watch::Receiver<BTreeSet<String>>,
    mut desired: watch::Receiver<Arc<Desired>>,
) {
    loop {
        let now = desired.borrow_and_update().clone();
        if now.has_left() && now.deleted.is_subset(&gone.borrow_and_update()) {
            return;
        }
        let changed = tokio::select! {
            changed = gone.changed() => changed,
            changed = desired.changed() => changed,
        };
        if changed.is_err() {
            // The agent stops.
            return std::future::pending().await;
        }
    }
}

/// The machine is no node any more: cluster addresses and other nodes' pods are nothing to it. The rules guard the way to pods, and go after it.
async fn clear_network(nft: &Nft) {
    if let Err(error) = routes::clear().await {
        tracing::warn!(%error, "what leads to other nodes' pods stays, and so do the rules that guard it");
        return;
    }
    if let Err(error) = services::clear(nft).await {
        tracing::warn!(%error, "the rules of Services stay");
    }
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
