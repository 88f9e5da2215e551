//! Metrics of the leader's loops. Names are those of Kubernetes' work queues and controller-runtime, so that their dashboards fit.

use barge_proto::v1::change::Change;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// Which loop.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Loop {
    name: &'static str,
}

/// Why a pod went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// From 0.1 ms to about 26 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

type Durations = Family<Loop, Histogram, fn() -> Histogram>;

/// The instruments; clones share them.
#[derive(Debug, Clone)]
pub struct Meters {
    depth: Family<Loop, Gauge>,
    adds: Family<Loop, Counter>,
    waits: Durations,
    looks: Durations,
    retries: Family<Loop, Counter>,
    longest: Family<Loop, Gauge<f64, AtomicU64>>,
    errors: Family<Loop, Counter>,
    panics: Family<Loop, Counter>,
    restarts: Family<Loop, Counter>,
    evictions: Family<Reason, Counter>,
    running: Arc<Mutex<Running>>,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            depth: Family::default(),
            adds: Family::default(),
            waits: Family::new_with_constructor(seconds),
            looks: Family::new_with_constructor(seconds),
            retries: Family::default(),
            longest: Family::default(),
            errors: Family::default(),
            panics: Family::default(),
            restarts: Family::default(),
            evictions: Family::default(),
            running: Arc::default(),
        }
    }
}

/// Looks that are under way.
#[derive(Debug, Default)]
struct Running {
    next: u64,
    since: BTreeMap<u64, (&'static str, Instant)>,
}

/// A loop that runs; none of its keys waits any more when this is dropped.
pub struct Ended {
    meters: Meters,
    name: &'static str,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.meters.depth(self.name, 0);
    }
}

/// A look that is under way; it ends when this is dropped.
pub struct Look {
    meters: Meters,
    id: u64,
}

impl Look {
    /// There was nothing to look at: it does not count.
    pub fn discard(self) {
        self.meters.running().since.remove(&self.id);
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let ended = self.meters.running().since.remove(&self.id);
        if let Some((name, since)) = ended {
            let took = since.elapsed().as_secs_f64();
            self.meters
                .looks
                .get_or_create(&Loop { name })
                .observe(took);
        }
    }
}

impl Meters {
    /// Names them all, below the prefix of the registry.
    pub fn register(&self, registry: &mut Registry) {
        let queue = registry.sub_registry_with_prefix("workqueue");
        queue.register(
            "depth",
            "Keys that wait to be looked at",
            self.depth.clone(),
        );
        queue.register("adds", "Keys that became due", self.adds.clone());
        queue.register(
            "retries",
            "Keys that wait after a failure",
            self.retries.clone(),
        );
        let (help, unit) = (
            "From when a key is due until it is looked at",
            Unit::Seconds,
        );
        queue.register_with_unit("queue_duration", help, unit, self.waits.clone());
        let (help, unit) = (
            "A look at a key, until its changes are applied",
            Unit::Seconds,
        );
        queue.register_with_unit("work_duration", help, unit, self.looks.clone());
        let (help, unit) = ("The look that takes longest by now", Unit::Seconds);
        queue.register_with_unit(
            "longest_running_processor",
            help,
            unit,
            self.longest.clone(),
        );
        let loops = registry.sub_registry_with_prefix("controller");
        loops.register("reconcile_errors", "Looks that failed", self.errors.clone());
        loops.register(
            "reconcile_panics",
            "Faults of Barge in a look",
            self.panics.clone(),
        );
        loops.register(
            "restarts",
            "Loops begun anew after a fault",
            self.restarts.clone(),
        );
        registry.register(
            "evictions",
            "Pods taken from their nodes",
            self.evictions.clone(),
        );
    }

    /// Sets what depends on when it is asked for.
    pub fn look_up(&self) {
        self.longest.clear();
        for (name, since) in self.running().since.values() {
            let gauge = self.longest.get_or_create(&Loop { name });
            gauge.set(gauge.get().max(since.elapsed().as_secs_f64()));
        }
    }

    /// So many keys wait.
    pub fn depth(&self, name: &'static str, depth: usize) {
        let depth = i64::try_from(depth).unwrap_or(i64::MAX);
        self.depth.get_or_create(&Loop { name }).set(depth);
    }

    /// A key became due.
    pub fn added(&self, name: &'static str) {
        self.adds.get_or_create(&Loop { name }).inc();
    }

    /// Has the depth of a loop be 0 when it ends, however it does.
    pub fn until_ended(&self, name: &'static str) -> Ended {
        Ended {
            meters: self.clone(),
            name,
        }
    }

    /// A look begins at a key that was due for that long; None for a loop without keys.
    pub fn begin(&self, name: &'static str, waited: Option<Duration>) -> Look {
        if let Some(waited) = waited {
            let waits = self.waits.get_or_create(&Loop { name });
            waits.observe(waited.as_secs_f64());
        }
        let mut running = self.running();
        let id = running.next;
        running.next += 1;
        running.since.insert(id, (name, Instant::now()));
        drop(running);
        Look {
            meters: self.clone(),
            id,
        }
    }

    /// A look failed, and is repeated later.
    pub fn failed(&self, name: &'static str) {
        self.errors.get_or_create(&Loop { name }).inc();
        self.retried(name);
    }

    /// A look came too late, and is repeated.
    pub fn retried(&self, name: &'static str) {
        self.retries.get_or_create(&Loop { name }).inc();
    }

    /// A piece of work panicked.
    pub fn panicked(&self, name: &'static str) {
        self.panics.get_or_create(&Loop { name }).inc();
    }

    /// A loop begins anew.
    pub fn restarted(&self, name: &'static str) {
        self.restarts.get_or_create(&Loop { name }).inc();
    }

    /// A pod was taken from its node; see [`eviction`].
    pub fn evicted(&self, reason: &'static str) {
        self.evictions.get_or_create(&Reason { reason }).inc();
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a change takes a pod from its node: a taint that it does not tolerate, its node is lost, its lost record goes, its node is gone.
pub fn eviction(change: &Change) -> Option<&'static str> {
    match change {
        Change::MarkPod(mark) if mark.lost => Some("NodeLost"),
        Change::TerminatePod(ended) => match ended.reason.as_str() {
            "TaintManagerEviction" => Some("TaintManagerEviction"),
            "NodeLost" => Some("LostPodRemoved"),
            "NodeGone" => Some("NodeGone"),
            _ => None,
        },
        _ => None,
    }
}
