//! Which containers are probed, what is known of them, and which attempt is due next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use barge_proto::v1::{Container, ObjectReference};
use tokio::{sync::Notify, task::AbortHandle};

use super::{
    state::{Begin, Kind, Probes, Verdict},
    target::{Asked, Target, asked},
};

/// A running container that has probes.
#[derive(Debug, Clone, Copy)]
pub struct Probed<'a> {
    /// The runtime's id.
    pub id: &'a str,
    /// When it started, in milliseconds since the epoch.
    pub started_ms: i64,
    /// Its specification.
    pub container: &'a Container,
    /// The pod's address.
    pub ip: Option<IpAddr>,
    /// What the managers were told of it before this process began.
    pub reported: Option<Verdict>,
}

/// What is known of a running container by its probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The runtime's id of the container that this is about.
    pub id: String,
    /// What its probes found.
    pub verdict: Verdict,
    /// Between TERM and KILL when it is to be ended; `None` for the pod's.
    pub grace: Option<Duration>,
}

/// A probe of a container, for the queue.
pub type Key = (u64, Kind);

/// Everything that is probed.
#[derive(Default)]
pub struct Board {
    pods: HashMap<String, PodEntry>,
    tracked: HashMap<u64, Tracked>,
    /// By the time at which an attempt is due, in milliseconds of the prober's clock.
    queue: BTreeSet<(i64, Key)>,
    serial: u64,
}

struct PodEntry {
    changed: Arc<Notify>,
    /// By the container's name.
    containers: BTreeMap<String, u64>,
}

/// A container.
pub struct Tracked {
    /// The runtime's id.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// Its pod, for events.
    pub pod: ObjectReference,
    asked: [Option<Asked>; 3],
    probes: Probes,
    /// What workers are told. That a container started or is ready is told when it is on disk; what is worse, at once.
    told: Verdict,
    stages: [Stage; 3],
    changed: Arc<Notify>,
    /// When a failure of each probe was told last.
    told_ms: [Option<i64>; 3],
    /// When one that changed what is known was.
    told_change_ms: [Option<i64>; 3],
}

/// Where a probe is between two results.
enum Stage {
    /// Held back, or not there.
    Held,
    /// In the queue, by this time.
    Queued(i64),
    /// Taken from the queue: under way, or waiting for its turn.
    Taken(Option<AbortHandle>),
}

impl Drop for Tracked {
    fn drop(&mut self) {
        for (stage, asked) in self.stages.iter().zip(&self.asked) {
            // What the runtime runs is ended by its deadline.
            let is_exec = asked
                .as_ref()
                .is_some_and(|it| matches!(it.target, Target::Exec { .. }));
            if let (Stage::Taken(Some(attempt)), false) = (stage, is_exec) {
                attempt.abort();
            }
        }
    }
}

/// What either of two knows, of which nobody can say which one is newer. A container that is wrongly called ready is found out by its
/// probe; one that is wrongly called unready would lose its traffic at once.
fn either(one: Option<Verdict>, other: Option<Verdict>) -> Option<Verdict> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Verdict {
            started: one.started || other.started,
            ready: one.ready || other.ready,
            failed: None,
        }),
        (one, other) => one.or(other),
    }
}

impl Board {
    /// A pod of which nothing is probed yet.
    pub fn register(&mut self, uid: &str, changed: Arc<Notify>) {
        let containers = BTreeMap::new();
        let entry = PodEntry {
            changed,
            containers,
        };
        self.forget(uid);
        self.pods.insert(uid.to_owned(), entry);
    }

    /// Nothing of the pod is probed any more.
    pub fn forget(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            pod.containers.values().for_each(|it| self.remove(*it));
        }
    }

    fn remove(&mut self, serial: u64) {
        if let Some(tracked) = self.tracked.remove(&serial) {
            for (kind, stage) in Kind::ALL.into_iter().zip(&tracked.stages) {
                if let Stage::Queued(due) = stage {
                    self.queue.remove(&(*due, (serial, kind)));
                }
            }
        }
    }

    /// Probes these containers of a pod, and no other of it. Answers what is known of each, by its name. `begin` says when a container
    /// started, by its time since the epoch; `remembered` what was known of it by its id.
    pub fn sync(
        &mut self,
        uid: &str,
        pod: &ObjectReference,
        running: &[Probed<'_>],
        begin: impl Fn(&Probed<'_>) -> Begin,
        remembered: impl Fn(&str) -> Option<Verdict>,
    ) -> BTreeMap<String, Known> {
        let Some(entry) = self.pods.get_mut(uid) else {
            return BTreeMap::new();
        };
        let changed = entry.changed.clone();
        let before = std::mem::take(&mut entry.containers);
        let mut now = BTreeMap::new();
        let mut known = BTreeMap::new();
        for probed in running {
            let name = &probed.container.name;
            let asked = Kind::ALL.map(|kind| asked(probed.container, kind, probed.ip));
            let there = before.get(name).copied();
            let same = there.filter(|serial| {
                let tracked = self.tracked.get(serial);
                tracked.is_some_and(|it| it.id == probed.id)
            });
            let serial = same.unwrap_or_else(|| {
                self.serial += 1;
                self.serial
            });
            let tracked = self.tracked.entry(serial).or_insert_with(|| {
                let thresholds = asked.clone().map(|it| it.map(|it| it.thresholds));
                let known = either(remembered(probed.id), probed.reported);
                let probes = Probes::new(thresholds, begin(probed), known);
                Tracked {
                    id: probed.id.to_owned(),
                    name: name.clone(),
                    pod: pod.clone(),
                    told: probes.verdict(),
                    probes,
                    asked: [None, None, None],
                    stages: [Stage::Held, Stage::Held, Stage::Held],
                    changed: changed.clone(),
                    told_ms: [None; 3],
                    told_change_ms: [None; 3],
                }
            });
            tracked.asked = asked;
            known.insert(name.clone(), tracked.known());
            now.insert(name.clone(), serial);
            if same.is_none() {
                self.enqueue(serial);
            }
        }
        let gone = before
            .values()
            .filter(|serial| !now.values().any(|it| it == *serial));
        gone.for_each(|serial| self.remove(*serial));
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.containers = now;
        }
        known
    }

    /// Puts into the queue what is due some time and neither under way nor waiting for its turn.
    fn enqueue(&mut self, serial: u64) {
        let Some(tracked) = self.tracked.get_mut(&serial) else {
            return;
        };
        for kind in Kind::ALL {
            let stage = &mut tracked.stages[kind as usize];
            match stage {
                Stage::Taken(_) => continue,
                Stage::Queued(due) => {
                    self.queue.remove(&(*due, (serial, kind)));
                }
                Stage::Held => {}
            }
            *stage = match tracked.probes.due_ms(kind) {
                Some(due) => {
                    self.queue.insert((due, (serial, kind)));
                    Stage::Queued(due)
                }
                None => Stage::Held,
            };
        }
    }

    /// When the next attempt is due.
    pub fn next_due(&self) -> Option<i64> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Takes the attempt that has been due for longest, if one is.
    pub fn take_due(&mut self, now_ms: i64) -> Option<(i64, Key)> {
        let first = self.queue.first().filter(|(due, _)| *due <= now_ms)?;
        let (due, (serial, kind)) = *first;
        self.queue.pop_first();
        if let Some(tracked) = self.tracked.get_mut(&serial) {
            tracked.stages[kind as usize] = Stage::Taken(None);
        }
        Some((due, (serial, kind)))
    }

    /// What an attempt needs; `None` when its container is gone.
    pub fn asked(&self, (serial, kind): Key) -> Option<(&Tracked, &Asked)> {
        let tracked = self.tracked.get(&serial)?;
        Some((tracked, tracked.asked[kind as usize].as_ref()?))
    }

    /// An attempt is under way.
    pub fn began(&mut self, (serial, kind): Key, attempt: AbortHandle) {
        if let Some(tracked) = self.tracked.get_mut(&serial) {
            tracked.stages[kind as usize] = Stage::Taken(Some(attempt));
        }
    }

    /// No attempt is under way: the loop that had them ended. All are due again.
    pub fn restart(&mut self) {
        let serials: Vec<_> = self.tracked.keys().copied().collect();
        for serial in serials {
            if let Some(tracked) = self.tracked.get_mut(&serial) {
                let taken = tracked.stages.iter_mut();
                let taken = taken.filter(|it| matches!(it, Stage::Taken(_)));
                taken.for_each(|it| *it = Stage::Held);
            }
            self.enqueue(serial);
        }
    }

    /// Learns what an attempt found; `None` counts nothing. Answers what to tell, and whether the worker was woken.
    pub fn learn(&mut self, key: Key, success: Option<bool>, begun_ms: i64, now_ms: i64) -> Ended {
        let (serial, kind) = key;
        let mut ended = Ended::default();
        if let Some(tracked) = self.tracked.get_mut(&serial) {
            tracked.stages[kind as usize] = Stage::Held;
            ended.changed = tracked.probes.learn(kind, success, begun_ms, now_ms);
            if success == Some(false) {
                ended.tell = tracked.tells(kind, ended.changed, now_ms);
            }
            if ended.changed && !tracked.waits_for_the_disk() {
                tracked.tell();
            }
        }
        self.enqueue(serial);
        ended
    }

    /// Whether a failure is to be told although nothing of it counts; at most every five minutes.
    pub fn tells_trouble(&mut self, (serial, kind): Key, now_ms: i64) -> bool {
        let tracked = self.tracked.get_mut(&serial);
        tracked.is_some_and(|it| it.tells(kind, false, now_ms))
    }

    /// What is on disk now, or cannot be put there, is told to the workers.
    pub fn publish(&mut self, saved: &HashMap<String, Verdict>) {
        for tracked in self.tracked.values_mut() {
            let verdict = tracked.probes.verdict();
            if verdict != tracked.told && saved.get(&tracked.id) == Some(&verdict) {
                tracked.tell();
            }
        }
    }

    /// What is known of every container, by its id.
    pub fn all(&self) -> impl Iterator<Item = (&str, Verdict)> {
        let all = self.tracked.values();
        all.map(|tracked| (tracked.id.as_str(), tracked.probes.verdict()))
    }
}

/// What follows of the end of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// What is known of the container changed.
    pub changed: bool,
    /// The failure is worth an event.
    pub tell: bool,
}

impl Tracked {
    /// Whether what is known is better than what was told. An agent that dies before it is on disk must not have told it: the next one would take it back.
    fn waits_for_the_disk(&self) -> bool {
        let now = self.probes.verdict();
        let better = now.ready && !self.told.ready || now.started && !self.told.started;
        better && now.failed.is_none()
    }

    fn tell(&mut self) {
        self.told = self.probes.verdict();
        self.changed.notify_one();
    }

    fn known(&self) -> Known {
        let verdict = self.told;
        let asked = verdict.failed.map(|kind| &self.asked[kind as usize]);
        Known {
            id: self.id.clone(),
            verdict,
            grace: asked.and_then(|it| it.as_ref()?.grace),
        }
    }

    /// Whether a failure is told. One that ends the container always is; one that changes what is known every two minutes; any other
    /// every five. An object has few events, and others need them.
    fn tells(&mut self, kind: Kind, changed: bool, now_ms: i64) -> bool {
        const CHANGE: i64 = 120_000;
        const ANY: i64 = 300_000;
        let (told, apart) = match changed {
            true => (&mut self.told_change_ms[kind as usize], CHANGE),
            false => (&mut self.told_ms[kind as usize], ANY),
        };
        let ends = changed && kind != Kind::Readiness;
        let tell = ends || told.is_none_or(|told| now_ms.saturating_sub(told) >= apart);
        if tell {
            *told = Some(now_ms);
        }
        tell
    }
}
