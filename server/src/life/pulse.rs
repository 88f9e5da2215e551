//! Detects that this process was stopped (by a signal, or with its virtual machine). A manager that was stopped has heard no node, which says
//! nothing about the nodes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two ticks.
const TICK: Duration = Duration::from_millis(100);
/// A tick that is later than this means that the process did not run. A processor that many share can be late by tenths of a second.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Ticks, and remembers since when no tick was late. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Mutex<Ticks>>);

#[derive(Debug)]
struct Ticks {
    last: Instant,
    awake_since: Instant,
}

impl Pulse {
    /// Awake since `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Ticks {
            last: now,
            awake_since: now,
        })))
    }

    /// Ticks for as long as it is polled, on a thread on which nothing takes long.
    pub async fn run(self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick(Instant::now());
        }
    }

    /// This process runs at `now`.
    pub fn tick(&self, now: Instant) {
        let mut ticks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(ticks.last) > PAUSE {
            tracing::warn!(
                seconds = now.saturating_duration_since(ticks.last).as_secs_f32(),
                "this manager did not run for a while"
            );
            ticks.awake_since = now;
        }
        ticks.last = ticks.last.max(now);
    }

    /// Since when the process has been awake without a pause; `now` while a tick is overdue, because whoever asks may be the first
    /// that runs after a pause.
    #[must_use]
    pub fn awake_since(&self, now: Instant) -> Instant {
        let ticks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match now.saturating_duration_since(ticks.last) > PAUSE {
            true => now,
            false => ticks.awake_since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_noticed_by_whoever_looks_first() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let pulse = Pulse::new(start);
        for ms in (100..=2000).step_by(100) {
            pulse.tick(at(ms));
        }
        assert_eq!(pulse.awake_since(at(2050)), start);
        // Stopped for a minute: the question comes before the tick.
        assert_eq!(pulse.awake_since(at(62_000)), at(62_000));
        pulse.tick(at(62_010));
        assert_eq!(pulse.awake_since(at(62_020)), at(62_010));
        pulse.tick(at(62_900));
        assert_eq!(
            pulse.awake_since(at(63_000)),
            at(62_010),
            "a late tick is no pause"
        );
    }
}
