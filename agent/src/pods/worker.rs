//! Carries out the steps of one pod, one plan after the other, and says how the pod is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use barge_proto::v1::{NodeStatus, Pod, PodStatus};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{
    deadline,
    departure::Departures,
    given::Given,
    lister::Lister,
    memory::{Memory, Observed},
    plan::{self, Goal, Plan},
    pull_secrets::brought,
    record::RecordFile,
    spec,
    status::{self, View},
    volumes,
};
use crate::{
    clock::Clock,
    dns::Resolver,
    events::{Recorder, Severity},
    metrics,
    outbox::Outbox,
    probes::{Prober, Registration},
    runtime::{Inventory, Runtime},
    timing::timed,
    tokens::{Token, TokenRequest, Tokens},
};

mod hands;
mod hooks;
mod probing;
mod pulling;
mod running;
mod stages;
mod steps;

use running::Running;

/// What all workers share.
pub struct Shared {
    pub runtime: Arc<dyn Runtime>,
    pub clock: Arc<dyn Clock>,
    pub lister: Lister,
    pub outbox: Arc<Outbox>,
    pub recorder: Recorder,
    pub host_ip: String,
    pub node: watch::Receiver<NodeStatus>,
    pub network_ready: watch::Receiver<bool>,
    pub resolver: watch::Receiver<Resolver>,
    pub prober: Prober,
    pub tokens: Tokens,
    pub departures: Departures,
    /// Learns which containers run, and what they have on the disk.
    pub taken: metrics::Store,
    /// The roots of the managers' certificates, in PEM, as they are now.
    pub roots: Box<dyn Fn() -> String + Send + Sync>,
    /// Bounds what loads the machine: creations at a time,
    pub creations: Semaphore,
    /// and removals, which may take long: no start waits for one.
    pub removals: Semaphore,
}

/// What the managers say of the pod.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The pod; `None` when it is not assigned, or not any more.
    pub pod: Option<Arc<Pod>>,
    /// What the cluster gives it.
    pub given: Given,
    /// Its deletion was recorded.
    pub deleted: bool,
    /// Which full set it comes from.
    pub epoch: u64,
}

/// A pod's worker, from outside.
pub struct Handle {
    pub wanted: watch::Sender<Wanted>,
    /// Something happened to the pod's containers.
    pub changed: Arc<Notify>,
}

pub struct Worker {
    pub uid: String,
    pub shared: Arc<Shared>,
    pub wanted: watch::Receiver<Wanted>,
    pub changed: Arc<Notify>,
    /// What the probes of the pod's containers know changed.
    pub probed: Arc<Notify>,
    /// Tokens of the node's pods changed.
    pub new_tokens: watch::Receiver<u64>,
    pub record: RecordFile,
    pub stop: CancellationToken,
}

/// The worker's own.
struct Pad {
    observed: Observed,
    memory: Memory,
    /// The newest pod that the managers sent: its end needs its name and its grace.
    pod: Option<Arc<Pod>>,
    reported: Option<PodStatus>,
    epoch: u64,
    /// What the cluster gave the pod when that was looked at last.
    given: Given,
    /// What is on disk is older than the memory.
    unsaved: bool,
    /// It was told that the memory cannot be saved.
    told_unsaved: bool,
    /// It was told that the pod is set aside.
    told_aside: bool,
    /// Containers whose back-off has been told, with the attempt that waits.
    told: BTreeSet<(String, u32)>,
    /// Containers whose back-off from a pull has been told, with the time of the failure.
    told_pulls: BTreeMap<String, i64>,
    /// Ids of what was stopped and not listed since.
    stopped: Vec<String>,
    /// Steps under way.
    running: Running,
    /// The pod was ending already when this worker began.
    found_ending: bool,
    /// Cancelled when no container of the pod starts any more: what is done for a start is given up.
    over: CancellationToken,
    /// To give up the hooks after a start that are under way, by the container's id.
    hooks: BTreeMap<String, CancellationToken>,
    /// The tokens that the pod's files are made of.
    tokens: Vec<TokenRequest>,
    /// Those that the files were last made of.
    had_tokens: Vec<Option<Arc<Token>>>,
    /// The pod's place at the prober.
    probes: Registration,
}

impl Worker {
    /// Works until nothing of the pod is left, or until stopped; then containers stay as they are. Looks first what there is of the pod, unless that is given.
    pub async fn run(mut self, inventory: Option<Arc<Inventory>>) {
        let inventory = match inventory {
            Some(inventory) => inventory,
            None => match timed(&self.uid, "list", self.look()).await {
                Some(inventory) => inventory,
                None => return,
            },
        };
        let wanted = self.wanted.borrow_and_update().clone();
        let mut pad = Pad {
            observed: Observed::of(&inventory, &self.uid),
            memory: Memory::default(),
            reported: wanted.pod.as_ref().and_then(|pod| pod.status.clone()),
            pod: wanted.pod,
            epoch: wanted.epoch,
            given: wanted.given,
            unsaved: false,
            told_unsaved: false,
            told_aside: false,
            told: BTreeSet::new(),
            told_pulls: BTreeMap::new(),
            stopped: Vec::new(),
            running: Running::default(),
            found_ending: false,
            over: CancellationToken::new(),
            hooks: BTreeMap::new(),
            tokens: Vec::new(),
            had_tokens: Vec::new(),
            probes: self.shared.prober.register(&self.uid, self.probed.clone()),
        };
        drop(inventory);
        pad.found_ending = self.is_ending(&pad);
        timed(&self.uid, "restore", self.remember(&mut pad)).await;
        while !self.stop.is_cancelled() {
            let plan = self.decide(&mut pad).await;
            if plan.gone && pad.running.is_empty() {
                return self.finish(&mut pad).await;
            }
            self.begin(&mut pad, plan.steps);
            if !self.wait(&mut pad, plan.wake_ms).await {
                break;
            }
            self.take_wanted(&mut pad);
        }
        pad.running.finish().await;
    }

    /// Reads the pod's record. Without one that can be read, the managers and the runtime say how the pod is.
    async fn remember(&self, pad: &mut Pad) {
        match self.record.load().await {
            Ok(memory) => pad.memory = memory,
            Err(error) => {
                let path = self.record.path().display();
                let message = format!(
                    "Cannot read what was recorded of the pod in {path}: {error}. Its containers and their restarts count from what runs"
                );
                tracing::warn!(pod = self.uid, message);
                self.event(pad, Severity::Warning, "RecordUnreadable", &message);
                if let Some(pod) = &pad.pod {
                    let now = self.shared.clock.now_ms();
                    pad.memory = Memory::unreadable(pod, &pad.observed, now);
                    pad.unsaved = true;
                }
            }
        }
        // They may have changed while no agent ran, or the agent died while it wrote them.
        self.look_at_account(pad);
        let has_files = pad.pod.as_deref().is_some_and(volumes::has_files);
        pad.memory.volumes_due = pad.memory.automounts || has_files;
        if let Some(pod) = pad.pod.clone() {
            pad.memory.take_end(&pod, &pad.observed);
        }
        if pad.observed.is_damaged() {
            // What runs in it serves under the address that the managers have.
            let known = pad.reported.iter().flat_map(|status| &status.pod_ips);
            pad.memory.ips = known.filter_map(|known| known.ip.parse().ok()).collect();
        }
    }

    /// Learns, says how the pod is, and plans.
    async fn decide(&mut self, pad: &mut Pad) -> Plan {
        let now = self.shared.clock.now_ms();
        if pad.memory.started_ms == 0 {
            pad.memory.started_ms = now;
            // A pod's time counts from here, also for the agents that come after this one.
            let pod = pad.pod.as_deref();
            pad.unsaved |= pod.is_some_and(|pod| deadline::at_ms(pod, &pad.memory).is_some());
        }
        self.shared
            .taken
            .observe(&self.uid, &pad.observed.containers);
        self.check_stopped(pad, now);
        let words = self.last_words(pad).await;
        pad.unsaved |= pad.memory.absorb(&pad.observed, &words, now);
        let ending = self.is_ending(pad);
        probing::look(pad, ending);
        self.take_turns(pad, ending, now);
        if let Some(pod) = pad.pod.clone()
            && !ending
            && pad.memory.finished.is_none()
            && plan::is_finished(&pod, &pad.observed, &pad.memory)
        {
            pad.memory.finished = Some(self.status(pad, &pod, false, now));
            pad.unsaved = true;
        }
        if pad.memory.finished.is_some() {
            // Nothing of it starts again. Each time: a step under way may have asked for one.
            pad.tokens.clear();
            self.shared.tokens.forget(&self.uid);
        }
        let saved = self.save(pad).await;
        self.report(pad, now);
        let goal = match (&pad.pod, ending) {
            (Some(pod), false) => Goal::Run(pod),
            (None, false) => Goal::Leave,
            (pod, true) => Goal::End(pod.as_deref(), spec::grace(pod.as_deref())),
        };
        let mut plan = plan::next_steps(goal, &pad.observed, &pad.memory, now);
        if !ending && !saved {
            // What depends on it waits: a number must not be given twice. An end needs no number.
            plan.without_a_record(pad.memory.volumes_due, now + 1000);
        } else if !ending {
            self.tell_back_off(pad, now);
            self.tell_pull_back_off(pad, now);
            self.tell_aside(pad);
        }
        plan
    }

    /// Makes durable what is remembered. False when the disk does not take it.
    async fn save(&self, pad: &mut Pad) -> bool {
        if !pad.unsaved {
            return true;
        }
        match self.record.save(&pad.memory).await {
            Ok(()) => (pad.unsaved, pad.told_unsaved) = (false, false),
            Err(error) if !pad.told_unsaved => {
                pad.told_unsaved = true;
                tracing::warn!(pod = self.uid, %error, "cannot write the pod's record");
                let message = format!(
                    "Cannot save how the pod's containers ended in {}: {error}. They are restarted when that can be saved",
                    self.record.path().display()
                );
                self.event(pad, Severity::Warning, "RecordNotSaved", &message);
            }
            Err(_) => {}
        }
        !pad.unsaved
    }

    /// Tells once that a pod is left as it is.
    fn tell_aside(&self, pad: &mut Pad) {
        let damaged = pad.observed.damage().map(str::to_owned);
        if let Some(why) = damaged.as_ref().filter(|_| !pad.told_aside) {
            let message = format!(
                "The pod is left as it is, because {why}. What runs of it goes on running; delete the pod to have it replaced"
            );
            self.event(pad, Severity::Warning, "PodSetAside", &message);
        }
        pad.told_aside = damaged.is_some();
    }

    /// The pod was deleted, is being deleted, or was assigned and left the assignment, which it does on a recorded deletion only.
    fn is_ending(&self, pad: &Pad) -> bool {
        let wanted = self.wanted.borrow();
        let left = pad.pod.is_some() && wanted.pod.is_none();
        wanted.deleted || left || pad.pod.as_deref().is_some_and(spec::is_ending)
    }

    fn status(&self, pad: &Pad, pod: &Pod, ending: bool, now_ms: i64) -> PodStatus {
        status::status(View {
            pod,
            observed: &pad.observed,
            memory: &pad.memory,
            host_ip: &self.shared.host_ip,
            ending,
            now_ms,
            previous: pad.reported.as_ref(),
        })
    }

    fn report(&self, pad: &mut Pad, now: i64) {
        // Of a pod that the managers do not know there is nothing to say.
        if self.wanted.borrow().pod.is_none() {
            return;
        }
        let Some(pod) = pad.pod.clone() else { return };
        let status = self.status(pad, &pod, self.is_ending(pad), now);
        if pad.reported.as_ref() != Some(&status) {
            self.shared.outbox.pod_status(&self.uid, status.clone());
            pad.reported = Some(status);
        }
    }

    /// Waits for news. False when stopped.
    async fn wait(&mut self, pad: &mut Pad, wake_ms: Option<i64>) -> bool {
        let now = self.shared.clock.now_ms();
        let refresh = status::changes_at(&pad.memory, now);
        let wake = [wake_ms, refresh].into_iter().flatten().min();
        let timer = async {
            match wake {
                Some(at) => {
                    let ms = u64::try_from(at.saturating_sub(now)).unwrap_or(0);
                    tokio::time::sleep(Duration::from_millis(ms.max(1))).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = timer => !pad.observed.is_damaged() || self.relist(pad).await,
            changed = self.wanted.changed() => changed.is_ok(),
            () = self.changed.notified() => self.relist(pad).await,
            () = self.probed.notified() => true,
            Ok(()) = self.new_tokens.changed(), if !pad.tokens.is_empty() => {
                self.take_tokens(pad);
                true
            }
            outcome = pad.running.next() => {
                let mut relist = self.learn(pad, outcome);
                while let Some(outcome) = pad.running.ready() {
                    relist |= self.learn(pad, outcome);
                }
                !relist || self.relist(pad).await
            }
        }
    }

    /// What there is of the pod; `None` when stopped.
    async fn look(&self) -> Option<Arc<Inventory>> {
        self.shared.lister.pod(&self.uid, &self.stop).await
    }

    async fn relist(&mut self, pad: &mut Pad) -> bool {
        let Some(inventory) = self.look().await else {
            return false;
        };
        pad.observed = Observed::of(&inventory, &self.uid);
        true
    }

    fn take_wanted(&mut self, pad: &mut Pad) {
        let wanted = self.wanted.borrow_and_update().clone();
        let files = wanted.pod.as_deref().is_some_and(volumes::has_files);
        // One of which nobody knew what it should be is a pod now.
        let mut looks = pad.pod.is_none();
        if !wanted.given.is(&pad.given) {
            let pod = wanted.pod.as_deref();
            let brings = |given| pod.map(|pod| brought(pod, given).secrets);
            // It is the same only when no Secret that the pod pulls with is another one.
            let pulls = brings(&wanted.given) != brings(&pad.given);
            pad.memory.given_more(pulls);
            if files {
                pad.memory.files_changed();
            }
            pad.given = wanted.given;
            looks = true;
        }
        if let Some(pod) = wanted.pod {
            let known = pad.pod.as_deref();
            let same = known.is_some_and(|known| volumes::same_fields(known, &pod));
            if files && !same {
                pad.memory.files_changed();
            }
            if wanted.epoch != pad.epoch {
                // Another session's full set tells what the managers have of the pod now; when that is not what
                // was said last (they were restored, or keep less), it is said again.
                pad.epoch = wanted.epoch;
                if pod.status != pad.reported {
                    self.say_again(pad);
                }
            }
            pad.pod = Some(pod);
        }
        if looks {
            self.look_at_account(pad);
        }
    }

    /// Whether the pod's containers get a token without asking. One that is being told of by older managers, or whose account is not known now, keeps what it has.
    fn look_at_account(&self, pad: &mut Pad) {
        if let Some(pod) = &pad.pod
            && pad.memory.finished.is_none()
            && pad.given.account(pod).is_ok()
        {
            pad.memory.automounts = volumes::account::automounts(pod, &pad.given);
            pad.tokens = volumes::account::requests(pod, pad.memory.automounts);
            if !self.is_ending(pad) {
                // They come while the pod's network is made.
                let tokens = &self.shared.tokens;
                pad.tokens.iter().for_each(|it| drop(tokens.get(it)));
            }
        }
    }

    /// Other tokens came: they are written into the files of what runs. What is just being written is compared when it is there.
    fn take_tokens(&self, pad: &mut Pad) {
        if pad.running.makes_volumes() {
            return;
        }
        let tokens = &self.shared.tokens;
        let now: Vec<_> = pad.tokens.iter().map(|it| tokens.get(it)).collect();
        if now != pad.had_tokens {
            pad.had_tokens = now;
            pad.memory.files_changed();
            pad.memory.volumes.worked();
            pad.memory.refresh.worked();
        }
    }

    fn say_again(&self, pad: &Pad) {
        if let Some(status) = &pad.reported {
            self.shared.outbox.pod_status(&self.uid, status.clone());
        }
    }

    /// Nothing is left. The record goes first: a death before the report only repeats the removal of nothing.
    async fn finish(&self, pad: &mut Pad) {
        self.shared.taken.forget(&self.uid);
        if let Err(error) = self.record.remove().await {
            tracing::warn!(pod = self.uid, %error, "cannot remove the pod's record");
        }
        // Said also of a pod that the managers no longer have: its tombstone waits for this.
        self.shared.outbox.pod_gone(&self.uid, pad.reported.take());
    }
}
