//! The loop that begins attempts when they are due, and learns what they found.
//!
//! One timer serves all probes. An attempt is a task of its own with a deadline, so none waits for another; programs in containers are
//! run ten at a time, and the others wait for their turn. The loop also watches itself: when it wakes much later than it meant to, this process
//! or the machine stood still, and failures of attempts that were under way then count nothing.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use barge_proto::v1::{ObjectReference, Pod};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

mod save;

use super::{
    attempt::{Finding, attempt},
    board::{Board, Key, Known, Probed},
    meters::{Meters, Outcome},
    remembered::File,
    stalls::{Stalls, TICK_MS},
    state::{Begin, Kind, Verdict},
    target::Target,
};
use crate::{
    clock::Clock,
    events::{Recorder, Severity, pod_reference},
    runtime::Runtime,
};

/// Programs run in containers at a time, on the machine.
const EXECS: usize = 10;
/// Attempts over the network at a time, on the machine.
const ATTEMPTS: usize = 1024;
/// An attempt that begins so much later than it was due is late.
const LATE_MS: i64 = 1000;
/// For how long the start may wait to read what was known.
const LOAD: Duration = Duration::from_secs(5);
/// Between two looks at how many attempts were late.
const LATE_EVERY: Duration = Duration::from_secs(60);
/// For how long containers are remembered that no worker has told of since the start.
const FORGET_MS: i64 = 600_000;
/// An attempt during which the loop was late by more than this part of the time that the attempt had says nothing of the container: many short
/// stalls, as on a machine that has too much to do, take that time from the agent's side of it.
const LAGGING: i64 = 2;
/// Before the loop starts again after a fault in it.
const RESTART: Duration = Duration::from_secs(1);

/// What a prober needs.
pub struct Options {
    /// Runs programs in containers.
    pub runtime: Arc<dyn Runtime>,
    /// Tells when containers started.
    pub clock: Arc<dyn Clock>,
    /// Where failures are told.
    pub recorder: Recorder,
    /// The agent's data folder.
    pub data_dir: PathBuf,
    /// The node, for events about it; `None` while it is not known.
    pub node: Box<dyn Fn() -> Option<ObjectReference> + Send + Sync>,
}

/// Probes the containers of the node. Cheap to clone.
#[derive(Clone)]
pub struct Prober(Arc<Inner>);

struct Inner {
    options: Options,
    board: Mutex<Board>,
    remembered: Mutex<HashMap<String, Verdict>>,
    file: File,
    meters: Meters,
    /// The queue changed.
    queued: Notify,
    /// What is known changed.
    learnt: Notify,
    start: Instant,
}

/// A pod's place at the prober. Nothing of the pod is probed any more when it is dropped.
pub struct Registration {
    prober: Prober,
    uid: String,
    is_empty: bool,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.prober.board().forget(&self.uid);
        self.prober.0.learnt.notify_one();
    }
}

impl Registration {
    /// Probes these running containers of the pod, and no other of it. Answers what is known of each, by its name.
    pub fn sync(&mut self, pod: &Pod, running: &[Probed<'_>]) -> BTreeMap<String, Known> {
        if running.is_empty() && self.is_empty {
            return BTreeMap::new();
        }
        self.is_empty = running.is_empty();
        self.prober.sync(&self.uid, &pod_reference(pod), running)
    }
}

struct Done {
    begun_ms: i64,
    /// What [`Stalls::lag_ms`] was then.
    lag_ms: i64,
    within: Duration,
    finding: Finding,
}

impl Prober {
    /// Nothing is probed until `run`.
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Inner {
            file: File::new(&options.data_dir),
            options,
            board: Mutex::default(),
            remembered: Mutex::default(),
            meters: Meters::default(),
            queued: Notify::new(),
            learnt: Notify::new(),
            start: Instant::now(),
        }))
    }

    /// Counts of attempts.
    pub fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// Takes a pod in. `changed` is told when what is known of one of its containers changes.
    pub fn register(&self, uid: &str, changed: Arc<Notify>) -> Registration {
        self.board().register(uid, changed);
        Registration {
            prober: self.clone(),
            uid: uid.to_owned(),
            is_empty: true,
        }
    }

    /// Reads what was known before this process began. To be awaited before pods are registered.
    pub async fn remember(&self) {
        match timeout(LOAD, self.0.file.load()).await {
            Ok(Ok(known)) => *self.remembered() = known,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read which containers were ready; what the managers were told counts");
            }
            Err(_) => tracing::warn!(
                "the disk does not say in time which containers were ready; what the managers were told counts"
            ),
        }
    }

    /// Probes until stopped. A fault in the loop costs a pause.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let (saver, until) = (self.clone(), stop.clone());
            let mut saving = AbortOnDropHandle::new(tokio::spawn(async move {
                let both = async { tokio::join!(saver.save(&until), saver.tell_late()) };
                until.run_until_cancelled(both).await;
            }));
            let (prober, until) = (self.clone(), stop.clone());
            let serve = async move {
                until.run_until_cancelled(prober.serve()).await;
            };
            let mut serving = AbortOnDropHandle::new(tokio::spawn(serve));
            let ended = tokio::select! {
                ended = &mut serving => ended,
                ended = &mut saving => ended,
            };
            if let Err(error) = ended {
                tracing::error!(%error, "the loop of the probes failed; it is started again");
                sleep(RESTART).await;
                // It may have failed between a change and telling it.
                self.0.learnt.notify_one();
            }
        }
    }

    async fn serve(&self) {
        self.board().restart();
        let mut loop_ = Loop {
            prober: self,
            attempts: JoinSet::new(),
            keys: HashMap::new(),
            execs: 0,
            waiting: VecDeque::new(),
            stalls: Stalls::default(),
        };
        loop {
            loop_.stalls.observe(self.now_ms());
            loop_.begin_due();
            let wake_ms = loop_.wake_ms();
            loop_.stalls.observe(self.now_ms());
            let is_idle = loop_.attempts.is_empty();
            let timer = async {
                match wake_ms {
                    Some(at) => {
                        let at = Duration::from_millis(u64::try_from(at).unwrap_or(0));
                        sleep_until(self.0.start + at).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => loop_.stalls.woke(self.now_ms(), is_idle),
                () = self.0.queued.notified() => loop_.stalls.woke(self.now_ms(), is_idle),
                Some(ended) = loop_.attempts.join_next_with_id() => {
                    loop_.stalls.woke(self.now_ms(), is_idle);
                    loop_.ended(ended);
                    while let Some(ended) = loop_.attempts.try_join_next_with_id() {
                        loop_.ended(ended);
                    }
                }
            }
        }
    }

    fn sync(
        &self,
        uid: &str,
        pod: &ObjectReference,
        running: &[Probed<'_>],
    ) -> BTreeMap<String, Known> {
        let (now_ms, epoch_ms) = (self.now_ms(), self.0.options.clock.now_ms());
        let begin = |probed: &Probed<'_>| {
            // 0 is a start of which nothing is known: it may have been now.
            let age = match probed.started_ms {
                ..=0 => 0,
                started_ms => epoch_ms.saturating_sub(started_ms),
            };
            Begin {
                // A clock that was set back makes no container younger than it is.
                started_ms: now_ms.saturating_sub(age.max(0)),
                now_ms,
                spread: rand::random(),
            }
        };
        // Once: from then on the board knows better.
        let remembered = |id: &str| self.remembered().remove(id);
        let known = self.board().sync(uid, pod, running, begin, remembered);
        self.0.queued.notify_one();
        known
    }

    /// Says once a minute that attempts were late.
    async fn tell_late(&self) {
        let mut told = 0;
        loop {
            sleep(LATE_EVERY).await;
            let late = Kind::ALL.map(|kind| self.0.meters.late(kind));
            let late: u64 = late.iter().sum();
            let more = late - std::mem::replace(&mut told, late);
            let overdue = self.now_ms().saturating_sub(LATE_MS);
            let is_stuck = self.board().next_due().is_some_and(|due| due < overdue);
            if more == 0 && !is_stuck {
                continue;
            }
            let still = if is_stuck {
                ", and others wait still"
            } else {
                ""
            };
            let message = format!(
                "{more} probes began more than a second late within a minute{still}: the machine has too much to do, or {ATTEMPTS} attempts that get no answer, or {EXECS} programs of exec probes, are under way. A late probe is no failure"
            );
            tracing::warn!("{message}");
            if let Some(node) = (self.0.options.node)() {
                let recorder = &self.0.options.recorder;
                recorder.record(node, Severity::Warning, "ProbesLate", message);
            }
        }
    }

    fn known(&self) -> HashMap<String, Verdict> {
        let mut known = match self.now_ms() < FORGET_MS {
            true => self.remembered().clone(),
            false => HashMap::new(),
        };
        let board = self.board();
        known.extend(board.all().map(|(id, verdict)| {
            let failed = None;
            (id.to_owned(), Verdict { failed, ..verdict })
        }));
        known
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<String, Verdict>> {
        let remembered = self.0.remembered.lock();
        remembered.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is under way.
struct Loop<'a> {
    prober: &'a Prober,
    attempts: JoinSet<Done>,
    /// The probe of each attempt, whether it runs a program, and when it began.
    keys: HashMap<tokio::task::Id, (Key, bool, i64)>,
    execs: usize,
    /// Programs that are due and wait for their turn, with the time at which they were.
    waiting: VecDeque<(i64, Key)>,
    stalls: Stalls,
}

impl Loop<'_> {
    /// Begins what is due, as far as there is room.
    fn begin_due(&mut self) {
        let now_ms = self.prober.now_ms();
        while self.execs < EXECS
            && let Some((due, key)) = self.waiting.pop_front()
        {
            self.begin(due, key, now_ms);
        }
        while self.attempts.len() < ATTEMPTS + EXECS {
            let Some((due, key)) = self.prober.board().take_due(now_ms) else {
                return;
            };
            self.begin(due, key, now_ms);
        }
    }

    fn begin(&mut self, due_ms: i64, key: Key, now_ms: i64) {
        let prober = self.prober;
        let mut board = prober.board();
        let Some((tracked, asked)) = board.asked(key) else {
            return;
        };
        let is_exec = matches!(asked.target, Target::Exec { .. });
        if is_exec && self.execs >= EXECS {
            self.waiting.push_back((due_ms, key));
            return;
        }
        let (id, asked) = (tracked.id.clone(), asked.clone());
        let runtime = prober.0.options.runtime.clone();
        let lag_ms = self.stalls.lag_ms();
        let work = async move {
            let finding = attempt(&*runtime, &id, &asked.target, asked.timeout).await;
            Done {
                begun_ms: now_ms,
                lag_ms,
                within: asked.timeout,
                finding,
            }
        };
        let handle = self.attempts.spawn(work);
        self.keys.insert(handle.id(), (key, is_exec, now_ms));
        self.execs += usize::from(is_exec);
        board.began(key, handle);
        prober
            .0
            .meters
            .began(key.1, now_ms.saturating_sub(due_ms) > LATE_MS);
    }

    /// When to wake: when the next attempt is due and there is room, and soon while attempts are under way.
    fn wake_ms(&self) -> Option<i64> {
        let now_ms = self.prober.now_ms();
        let tick = (!self.attempts.is_empty()).then(|| now_ms + TICK_MS);
        let is_full = self.attempts.len() >= ATTEMPTS + EXECS;
        let due = self.prober.board().next_due().filter(|_| !is_full);
        // A timer counts whole milliseconds.
        let due = due.map(|due| due.max(now_ms + 1));
        [tick, due].into_iter().flatten().min()
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Done), tokio::task::JoinError>) {
        let now_ms = self.prober.now_ms();
        let task = ended
            .as_ref()
            .map_or_else(|error| error.id(), |(id, _)| *id);
        let Some((key, is_exec, begun)) = self.keys.remove(&task) else {
            return;
        };
        self.execs -= usize::from(is_exec);
        let done = ended.map(|(_, done)| done).unwrap_or_else(|error| Done {
            begun_ms: begun,
            lag_ms: 0,
            within: Duration::ZERO,
            finding: Finding::Void(format!("the attempt ended by itself: {error}")),
        });
        self.learn(key, done, now_ms);
    }

    fn learn(&mut self, key: Key, done: Done, now_ms: i64) {
        let lag_ms = self.stalls.lag_ms() - done.lag_ms;
        let within_ms = i64::try_from(done.within.as_millis()).unwrap_or(i64::MAX);
        let stood_still = self.stalls.overlaps(done.begun_ms) || lag_ms > within_ms / LAGGING;
        let finding = match done.finding {
            Finding::Failure(_) if stood_still => {
                Finding::Void("the agent or its machine stood still meanwhile".to_owned())
            }
            finding => finding,
        };
        let (success, outcome) = match &finding {
            Finding::Success | Finding::Warning(_) => (Some(true), Outcome::Success),
            Finding::Failure(_) => (Some(false), Outcome::Failure),
            Finding::Void(_) => (None, Outcome::Void),
        };
        let took = now_ms.saturating_sub(done.begun_ms);
        self.prober.0.meters.ended(key.1, outcome, took);
        let (tell, changed) = {
            let mut board = self.prober.board();
            let ended = board.learn(key, success, done.begun_ms, now_ms);
            let tell = match &finding {
                Finding::Success => false,
                Finding::Failure(_) => ended.tell,
                Finding::Void(_) if stood_still => false,
                Finding::Warning(_) | Finding::Void(_) => board.tells_trouble(key, now_ms),
            };
            let about = board
                .asked(key)
                .map(|(it, _)| (it.pod.clone(), it.name.clone()));
            (about.filter(|_| tell), ended.changed)
        };
        if changed {
            self.prober.0.learnt.notify_one();
        }
        if let Some((pod, name)) = tell {
            self.tell(pod, &name, key.1, finding);
        }
    }

    fn tell(&self, pod: ObjectReference, name: &str, kind: Kind, finding: Finding) {
        let kind = kind.name();
        let (reason, message) = match finding {
            Finding::Success => return,
            Finding::Warning(why) => (
                "ProbeWarning",
                format!("{kind} probe of {name} succeeded with a warning: {why}"),
            ),
            Finding::Failure(why) => ("Unhealthy", format!("{kind} probe of {name} failed: {why}")),
            Finding::Void(why) => (
                "Unhealthy",
                format!("{kind} probe of {name} could not be made, and counts nothing: {why}"),
            ),
        };
        let recorder = &self.prober.0.options.recorder;
        recorder.record(pod, Severity::Warning, reason, message);
    }
}
