//! Pins: the records that further pages of a list need, kept between two requests. The state drops replaced and removed records, and the
//! history keeps few of them. A pin keeps the records of its list until no page was asked for in a while, or until pins have no more
//! memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use barge_proto::v1::Kind;
use barge_state::{Parts, State};
use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{query::Query, rows::Rows, workers::Workers};
use crate::store::Store;

#[cfg(test)]
mod tests;

/// What pins may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Since a page was asked for. Default 60 s.
    pub idle: Duration,
    /// All pins, in bytes. Default 256 MiB.
    pub bytes: usize,
    /// All pins. Default 1,024.
    pub count: usize,
    /// Those of one caller, in bytes. Default 128 MiB.
    pub caller_bytes: usize,
    /// Those of one caller. Default 64.
    pub caller_count: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            bytes: 256 << 20,
            count: 1024,
            caller_bytes: 128 << 20,
            caller_count: 64,
        }
    }
}

/// Between two sweeps of expired pins.
const SWEEP: Duration = Duration::from_secs(1);

/// Which list: no other caller has its pin, nor has a list of something else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    caller: String,
    kind: Kind,
    prefix: Option<String>,
    namespace: Option<String>,
    owner_uid: String,
    revision: u64,
}

impl Key {
    /// Of the pages of a list that show this revision.
    #[must_use]
    pub fn new(caller: &str, query: &Query, revision: u64) -> Self {
        Self {
            caller: caller.to_owned(),
            kind: query.kind,
            prefix: query.prefix.clone(),
            namespace: query.namespace.clone(),
            owner_uid: query.owner_uid.clone(),
            revision,
        }
    }
}

#[derive(Debug)]
struct Pin {
    /// None when there is no room for them.
    rows: Option<Arc<Rows>>,
    used: Instant,
}

/// The pins of this manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pins(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    pins: Mutex<HashMap<Key, Pin>>,
    workers: Workers,
}

impl Default for Pins {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Pins {
    /// No pins yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            limits,
            pins: Mutex::default(),
            workers: Workers::default(),
        }))
    }

    /// Records that one pin can hold, when the state still has all of them.
    #[must_use]
    pub fn most(&self) -> usize {
        self.0.limits.caller_bytes / 2 / size_of::<Parts>()
    }

    /// What is kept for the page behind where the one before ended.
    #[must_use]
    pub fn get(&self, key: &Key, query: &Query) -> Option<Arc<Rows>> {
        let mut pins = self.lock();
        let pin = pins.get_mut(key)?;
        pin.used = Instant::now();
        pin.rows.clone().filter(|rows| rows.covers(query.after()))
    }

    /// Whether the rows of a list are worth collecting for more than one page: not while it is known that there is no room for them.
    #[must_use]
    pub fn has_room(&self, key: &Key) -> bool {
        self.lock().get(key).is_none_or(|pin| pin.rows.is_some())
    }

    /// Keeps rows for the pages that follow, or remembers that there is no room. `now` is the revision of the state.
    pub fn keep(&self, key: Key, rows: Arc<Rows>, now: u64) {
        let pin = Pin {
            rows: Some(rows),
            used: Instant::now(),
        };
        let replaced = self.lock().insert(key, pin);
        free(replaced.and_then(|pin| pin.rows));
        self.trim(now);
    }

    /// Where pages are made that take a while.
    #[must_use]
    pub fn workers(&self) -> &Workers {
        &self.0.workers
    }

    /// How many there are, and the bytes they take at most at this revision of the state.
    #[must_use]
    pub fn size(&self, now: u64) -> (usize, usize) {
        let pins = self.lock();
        let kept = pins.values().filter_map(|pin| pin.rows.as_ref());
        kept.fold((0, 0), |(count, bytes), rows| {
            (count + 1, bytes + rows.bytes(now))
        })
    }

    /// Drops expired pins, and the least recently used ones while there are too many.
    pub fn trim(&self, now: u64) {
        let limits = self.0.limits;
        let mut pins = self.lock();
        let mut recent: Vec<_> = pins.drain().collect();
        recent.sort_by_key(|(_, pin)| std::cmp::Reverse(pin.used));
        let (mut all, mut callers) = ((0, 0), HashMap::<String, (usize, usize)>::new());
        let mut dropped = Vec::new();
        for (key, mut pin) in recent {
            let own = callers.entry(key.caller.clone()).or_default();
            let bytes = pin.rows.as_ref().map_or(0, |rows| rows.bytes(now));
            let is_counted = pin.used.elapsed() < limits.idle
                && all.0 < limits.count
                && own.0 < limits.caller_count;
            let fits = all.1 + bytes <= limits.bytes && own.1 + bytes <= limits.caller_bytes;
            if !(is_counted && fits) {
                dropped.extend(pin.rows.take());
            }
            if is_counted {
                let bytes = if fits { bytes } else { 0 };
                all = (all.0 + 1, all.1 + bytes);
                *own = (own.0 + 1, own.1 + bytes);
                pins.insert(key, pin);
            }
        }
        drop(pins);
        free(dropped);
    }

    /// Trims now and then, until `stop`.
    pub async fn sweep(self, store: Store, stop: CancellationToken) {
        let sweep = async {
            let mut ticks = interval(SWEEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.trim(store.read(State::revision));
            }
        };
        stop.run_until_cancelled(sweep).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Pin>> {
        self.0.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops rows that only the pin holds. Millions take a while, so a thread does it that no request waits for.
pub fn free(rows: impl IntoIterator<Item = Arc<Rows>>) {
    let last: Vec<_> = rows.into_iter().filter_map(Arc::into_inner).collect();
    if !last.is_empty() {
        drop(spawn_blocking(move || drop(last)));
    }
}
