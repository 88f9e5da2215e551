//! A worker for each pod that is desired or found.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use barge_proto::v1::NodeStatus;
use futures::StreamExt;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    departure::Departures,
    given::Given,
    lister::Lister,
    record::RecordFile,
    unknown::{Teller, Unknown},
    worker::{Handle, Shared, Wanted, Worker},
};
use crate::{
    clock::Clock,
    desired::Desired,
    dns::Resolver,
    events::{Recorder, node_reference},
    metrics,
    outbox::Outbox,
    probes::{self, Prober},
    runtime::{Inventory, Runtime, RuntimeEvent},
    tokens::Tokens,
};

/// Between two tries to tidy up at the start.
const RECOVER_AGAIN: Duration = Duration::from_millis(500);

/// Before a worker that failed is started again: after the first failure, and at most. Twice as long after each that follows within ten minutes.
const START_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const CALM: Duration = Duration::from_secs(600);

/// A worker failed, which is a defect of this program.
struct Failed {
    /// When it is started again.
    at: Instant,
    pause: Duration,
}

/// What the pods need.
pub struct Options {
    /// Runs the containers.
    pub runtime: Arc<dyn Runtime>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where statuses go.
    pub outbox: Arc<Outbox>,
    /// Where events go.
    pub recorder: Recorder,
    /// What should run.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// The revision whose Services and endpoints the rules of all live nodes have.
    pub everywhere: watch::Receiver<u64>,
    /// Gets the pods that the managers do not know.
    pub unknown: watch::Sender<Unknown>,
    /// The node's address.
    pub host_ip: String,
    /// What the machine is.
    pub node: watch::Receiver<NodeStatus>,
    /// Whether sandboxes can be made; those that are there need not wait.
    pub network_ready: watch::Receiver<bool>,
    /// Where sandboxes ask for names.
    pub resolver: watch::Receiver<Resolver>,
    /// The agent's data folder. Each pod has a folder in it, with the pod's record.
    pub data_dir: PathBuf,
    /// The tokens of the pods' ServiceAccounts.
    pub tokens: Tokens,
    /// Learns which containers run, and what they have on the disk.
    pub taken: metrics::Store,
    /// The roots of the managers' certificates, in PEM, as they are now.
    pub roots: Box<dyn Fn() -> String + Send + Sync>,
    /// Sandboxes and containers created or removed at a time.
    pub parallel_creations: usize,
}

/// Keeps the pods of the node as they should be.
pub struct PodManager {
    shared: Arc<Shared>,
    desired: watch::Receiver<Arc<Desired>>,
    data_dir: PathBuf,
    workers: BTreeMap<String, Handle>,
    running: JoinSet<String>,
    /// Uids of the pods whose workers run.
    tasks: HashMap<Id, String>,
    /// Pods whose workers failed.
    failed: BTreeMap<String, Failed>,
    /// Ended and said so, but the managers still have them.
    gone: watch::Sender<BTreeSet<String>>,
    /// The full set that was compared with what is here.
    epoch: u64,
    unknown: Teller,
}

impl PodManager {
    /// Nothing happens until `run`.
    pub fn new(options: Options) -> Self {
        let shared = Shared {
            lister: Lister::start(options.runtime.clone()),
            prober: Prober::new(probes::Options {
                runtime: options.runtime.clone(),
                clock: options.clock.clone(),
                recorder: options.recorder.clone(),
                data_dir: options.data_dir.clone(),
                node: {
                    let desired = options.desired.clone();
                    Box::new(move || desired.borrow().node().map(node_reference))
                },
            }),
            departures: Departures::new(options.desired.clone(), options.everywhere),
            tokens: options.tokens,
            taken: options.taken,
            roots: options.roots,
            runtime: options.runtime,
            clock: options.clock,
            outbox: options.outbox,
            recorder: options.recorder.clone(),
            host_ip: options.host_ip,
            node: options.node,
            network_ready: options.network_ready,
            resolver: options.resolver,
            creations: Semaphore::new(options.parallel_creations.max(1)),
            removals: Semaphore::new(options.parallel_creations.max(1)),
        };
        Self {
            shared: Arc::new(shared),
            desired: options.desired,
            data_dir: options.data_dir,
            workers: BTreeMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            failed: BTreeMap::new(),
            gone: watch::Sender::default(),
            epoch: 0,
            unknown: Teller::new(options.unknown, options.recorder),
        }
    }

    /// Uids of pods of which nothing is left here; those that the managers do not have any more are forgotten.
    pub fn gone(&self) -> watch::Receiver<BTreeSet<String>> {
        self.gone.subscribe()
    }

    /// Works until `stop` is cancelled; steps under way are finished, containers stay as they are.
    pub async fn run(mut self, stop: CancellationToken) {
        let recovered = stop.run_until_cancelled(self.recover()).await;
        if recovered.is_none() {
            return;
        }
        let prober = self.shared.prober.clone();
        prober.remember().await;
        let mut probing = AbortOnDropHandle::new(tokio::spawn(prober.run(stop.clone())));
        let mut events = self.shared.runtime.events();
        // Subscribed first, listed second: nothing falls between.
        let Some(inventory) = self.shared.lister.fresh(&stop).await else {
            return;
        };
        self.reconcile(inventory, &stop);
        loop {
            let again = self.next_start();
            tokio::select! {
                () = stop.cancelled() => break,
                () = at(again) => self.start_again(&stop).await,
                // Nothing works without these; whoever runs this notices that it ended.
                _ = &mut probing => match stop.is_cancelled() {
                    true => break,
                    false => return,
                },
                () = self.shared.lister.ended() => return,
                event = events.next() => match event {
                    Some(event) => self.happened(event, &stop).await,
                    None => events = self.shared.runtime.events(),
                },
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.assigned(&stop).await;
                }
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
            }
        }
        self.workers.clear();
        while self.running.join_next().await.is_some() {}
    }

    /// Tidies up, as soon as the runtime answers.
    async fn recover(&self) {
        let mut told = false;
        while let Err(error) = self.shared.runtime.recover().await {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "waiting for the container runtime; containers go on running");
            }
            tokio::time::sleep(RECOVER_AGAIN).await;
        }
    }

    async fn happened(&mut self, event: RuntimeEvent, stop: &CancellationToken) {
        match event {
            RuntimeEvent::Resync => {
                if let Some(inventory) = self.shared.lister.fresh(stop).await {
                    self.reconcile(inventory, stop);
                }
                self.workers.values().for_each(|w| w.changed.notify_one());
            }
            // What no worker has is looked at when one starts.
            RuntimeEvent::Changed { id } => {
                if let Some(worker) = self.owner(&id) {
                    worker.changed.notify_one();
                }
            }
        }
    }

    /// The worker of the pod of a container, whose id begins with the pod's uid.
    fn owner(&self, id: &str) -> Option<&Handle> {
        let dashes = id.match_indices('-');
        let mut owners = dashes.filter_map(|(at, _)| self.workers.get(id.get(..at)?));
        owners.next_back()
    }

    /// New or changed pods, and deletions. What the runtime has of a new pod its worker looks at; only a full set is compared with all of it.
    async fn assigned(&mut self, stop: &CancellationToken) {
        let desired = self.desired.borrow_and_update().clone();
        self.hand_out(&desired);
        self.unknown.tell(&desired);
        self.forget_gone(&desired);
        if desired.epoch == self.epoch {
            let assigned = desired.pods.keys().chain(&desired.deleted);
            self.start_all(assigned.map(String::as_str), &desired, None, stop);
        } else if let Some(inventory) = self.shared.lister.fresh(stop).await {
            self.reconcile(inventory, stop);
        }
    }

    /// Starts workers for what has none.
    fn reconcile(&mut self, inventory: Arc<Inventory>, stop: &CancellationToken) {
        let desired = self.desired.borrow_and_update().clone();
        self.hand_out(&desired);
        if desired.epoch != self.epoch {
            // Managers that still have a pod which is gone have not heard of it: it is looked for, and said, again.
            self.gone.send_modify(BTreeSet::clear);
            self.epoch = desired.epoch;
        }
        self.forget_gone(&desired);
        self.unknown.listed(&desired, &inventory);
        let assigned = desired.pods.keys().chain(&desired.deleted);
        let mut uids: BTreeSet<&str> = assigned.map(String::as_str).collect();
        // After a full set what is found here and not assigned is a stranger; its worker removes what never ran.
        if desired.epoch > 0 {
            uids.extend(inventory.sandboxes.iter().map(|s| s.pod_uid.as_str()));
            uids.extend(inventory.containers.iter().map(|c| c.pod_uid.as_str()));
        }
        self.start_all(uids.into_iter(), &desired, Some(&inventory), stop);
    }

    /// Starts workers for those of the pods that have none.
    fn start_all<'a>(
        &mut self,
        uids: impl Iterator<Item = &'a str>,
        desired: &Desired,
        inventory: Option<&Arc<Inventory>>,
        stop: &CancellationToken,
    ) {
        let missing = uids.filter(|uid| self.is_idle(uid));
        let missing: BTreeSet<_> = missing.map(str::to_owned).collect();
        for uid in missing {
            self.start(uid, desired, inventory.cloned(), stop);
        }
    }

    /// Pods that the managers no longer have: should they tell of one again, with a tombstone, its end is said again.
    fn forget_gone(&mut self, desired: &Desired) {
        let is_told =
            |uid: &String| desired.pods.contains_key(uid) || desired.deleted.contains(uid);
        self.gone.send_modify(|gone| gone.retain(is_told));
    }

    /// Whether a pod has neither a worker nor had one that found nothing left of it.
    fn is_idle(&self, uid: &str) -> bool {
        let waits = |failed: &Failed| failed.at > Instant::now();
        !self.workers.contains_key(uid)
            && !self.gone.borrow().contains(uid)
            && !self.failed.get(uid).is_some_and(waits)
    }

    fn start(
        &mut self,
        uid: String,
        desired: &Desired,
        inventory: Option<Arc<Inventory>>,
        stop: &CancellationToken,
    ) {
        let (wanted, receiver) = watch::channel(wanted(desired, &uid));
        let changed = Arc::new(Notify::new());
        let worker = Worker {
            record: RecordFile::new(&self.data_dir, &uid),
            uid: uid.clone(),
            shared: self.shared.clone(),
            wanted: receiver,
            changed: changed.clone(),
            probed: Arc::new(Notify::new()),
            new_tokens: self.shared.tokens.changed(),
            stop: stop.clone(),
        };
        self.workers.insert(uid.clone(), Handle { wanted, changed });
        let pod = uid.clone();
        let task = self.running.spawn(async move {
            worker.run(inventory).await;
            uid
        });
        self.tasks.insert(task.id(), pod);
    }

    fn hand_out(&self, desired: &Desired) {
        for (uid, worker) in &self.workers {
            let new = wanted(desired, uid);
            worker.wanted.send_if_modified(|old| {
                let same = match (&old.pod, &new.pod) {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (None, None) => true,
                    _ => false,
                };
                let given = old.given.is(&new.given);
                let changed =
                    !same || !given || old.deleted != new.deleted || old.epoch != new.epoch;
                *old = new;
                changed
            });
        }
    }

    /// A worker found nothing left of its pod. Should the pod be wanted again, or still, it starts over.
    fn ended(&mut self, ended: Result<(Id, String), JoinError>) {
        match ended {
            Ok((task, uid)) => {
                self.tasks.remove(&task);
                self.failed.remove(&uid);
                self.workers.remove(&uid);
                self.unknown.ended(&uid, &self.desired.borrow());
                self.gone.send_modify(|gone| {
                    gone.insert(uid);
                });
            }
            Err(error) => {
                let Some(uid) = self.tasks.remove(&error.id()) else {
                    return;
                };
                let (now, (first, longest)) = (Instant::now(), START_AGAIN);
                let before = self.failed.get(&uid);
                let before = before.filter(|it| now.saturating_duration_since(it.at) < CALM);
                let pause = before.map_or(first, |it| it.pause.saturating_mul(2).min(longest));
                tracing::error!(%error, pod = uid, ?pause, "a pod's worker failed; it is started again");
                self.workers.remove(&uid);
                let at = now + pause;
                self.failed.insert(uid, Failed { at, pause });
            }
        }
    }

    /// When a worker that failed is to be started again.
    fn next_start(&self) -> Option<Instant> {
        let failed = self.failed.iter();
        let waiting = failed.filter(|(uid, _)| !self.workers.contains_key(*uid));
        waiting.map(|(_, failed)| failed.at).min()
    }

    async fn start_again(&mut self, stop: &CancellationToken) {
        if let Some(inventory) = self.shared.lister.fresh(stop).await {
            self.reconcile(inventory, stop);
        }
        // Of some nothing may be left to be done.
        let (now, workers) = (Instant::now(), &self.workers);
        self.failed
            .retain(|uid, failed| failed.at > now || workers.contains_key(uid));
    }
}

/// Waits until then; for ever without a moment.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn wanted(desired: &Desired, uid: &str) -> Wanted {
    let pod = desired.pods.get(uid).cloned();
    let given = pod.as_deref().map(|pod| Given::to(pod, desired));
    Wanted {
        given: given.unwrap_or_default(),
        pod,
        deleted: desired.deleted.contains(uid),
        epoch: desired.epoch,
    }
}
