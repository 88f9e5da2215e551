//! The lock of the state in memory, which measures its holds and waits by purpose.

use std::{
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use barge_state::State;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
};

/// A hold that is longer is worth a line in the log.
const LONG: Duration = Duration::from_millis(100);
/// Between two such lines.
const PAUSE: Duration = Duration::from_secs(10);

/// What the lock is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Applying the log. Nobody reads meanwhile.
    Apply,
    /// Applying a transaction and taking it back. Nobody reads meanwhile.
    DryRun,
    /// Collecting what a list shows.
    List,
    /// Collecting what a watch shows.
    Watch,
    /// Planning what a client's write changes.
    Plan,
    /// Planning by the leader's controllers and its scheduler.
    Controller,
    /// What an agent's session needs.
    Session,
    /// Anything else: looking up one thing or a few.
    Lookup,
}

impl By {
    const ALL: [Self; 8] = [
        Self::Apply,
        Self::DryRun,
        Self::List,
        Self::Watch,
        Self::Plan,
        Self::Controller,
        Self::Session,
        Self::Lookup,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::DryRun => "dry-run",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Plan => "plan",
            Self::Controller => "controller",
            Self::Session => "session",
            Self::Lookup => "lookup",
        }
    }
}

/// The label of the series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Label {
    by: &'static str,
}

/// Durations by what the lock is for, in seconds.
pub type Durations = Family<Label, Histogram, fn() -> Histogram>;

/// How long the lock is held and waited for. Clones share what was measured.
#[derive(Debug, Clone)]
pub struct LockTimes {
    /// From getting the lock to giving it back.
    pub holds: Durations,
    /// From asking for the lock to getting it.
    pub waits: Durations,
}

/// A change of the state in memory panicked, and may be half done. What is on disk is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change of the state in memory was left half done: start this manager again")]
pub struct Broken;

/// The state behind its lock.
#[derive(Debug)]
pub struct StateLock {
    state: RwLock<State>,
    times: LockTimes,
    /// Of `times`, in the order of [`By`]: the family has a lock of its own.
    series: [(Histogram, Histogram); By::ALL.len()],
    begun: Instant,
    /// When the last line was logged, in milliseconds since `begun`; 0 for never.
    warned: AtomicU64,
}

/// From 16 microseconds to half a second.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_016, 2.0, 16))
}

impl StateLock {
    /// Puts a state behind a lock.
    pub fn new(state: State) -> Self {
        let family = || Durations::new_with_constructor(histogram);
        let times = LockTimes {
            holds: family(),
            waits: family(),
        };
        let series = By::ALL.map(|by| {
            let label = Label { by: by.name() };
            let (holds, waits) = (&times.holds, &times.waits);
            (
                holds.get_or_create(&label).clone(),
                waits.get_or_create(&label).clone(),
            )
        });
        Self {
            state: RwLock::new(state),
            times,
            series,
            begun: Instant::now(),
            warned: AtomicU64::new(0),
        }
    }

    /// What is measured.
    pub fn times(&self) -> LockTimes {
        self.times.clone()
    }

    /// Calls `look` with the state. Others read meanwhile, and nothing is applied.
    pub fn read<T>(&self, by: By, look: impl FnOnce(&State) -> T) -> T {
        let asked = Instant::now();
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let got = Instant::now();
        let result = look(&state);
        drop(state);
        self.observe(by, asked, got);
        result
    }

    /// Calls `change` with the state. Nobody reads meanwhile.
    ///
    /// # Errors
    /// [`Broken`] when an earlier change panicked: nothing may be built on what it left. Reads go on until the process ends.
    pub fn write<T>(&self, by: By, change: impl FnOnce(&mut State) -> T) -> Result<T, Broken> {
        let asked = Instant::now();
        let mut state = self.state.write().map_err(|_| Broken)?;
        let got = Instant::now();
        let result = change(&mut state);
        drop(state);
        self.observe(by, asked, got);
        Ok(result)
    }

    fn observe(&self, by: By, asked: Instant, got: Instant) {
        let held = got.elapsed();
        if let Some((holds, waits)) = self.series.get(by as usize) {
            holds.observe(held.as_secs_f64());
            waits.observe((got - asked).as_secs_f64());
        }
        if held > LONG && self.may_warn() {
            let (by, held_ms) = (by.name(), held.as_millis());
            tracing::warn!(by, held_ms, "held the lock of the state for long");
        }
    }

    fn may_warn(&self) -> bool {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        let last = self.warned.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= pause;
        let (order, now) = (Ordering::Relaxed, now.max(1));
        due && self
            .warned
            .compare_exchange(last, now, order, order)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn what_is_held_is_counted_by_what_it_is_for() {
        let lock = StateLock::new(State::default());
        let revision = lock.read(By::List, State::revision);
        lock.read(By::List, State::revision);
        lock.write(By::Apply, |state| assert_eq!(state.revision(), revision))
            .unwrap();
        let mut registry = Registry::default();
        registry.register("hold", "help", lock.times().holds);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "hold_count{by=\"list\"} 2",
            "hold_count{by=\"apply\"} 1",
            "hold_count{by=\"dry-run\"} 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn nothing_is_built_on_what_a_panic_left() {
        let lock = StateLock::new(State::default());
        let panics = || lock.write(By::DryRun, |_| panic!("half done"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(lock.write(By::Apply, |_| ()), Err(Broken));
    }

    #[test]
    fn one_line_is_logged_and_then_none_for_a_while() {
        let lock = StateLock::new(State::default());
        assert!(lock.may_warn());
        assert!(!lock.may_warn());
    }
}
