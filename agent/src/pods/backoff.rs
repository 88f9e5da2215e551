//! How long to wait before trying again: Kubernetes' numbers.

/// First wait after a crash, in milliseconds.
pub const FIRST_MS: i64 = 10_000;
/// The longest wait, in milliseconds.
pub const LONGEST_MS: i64 = 300_000;
/// A container that ran this long starts from the first wait again, in milliseconds.
pub const RESET_MS: i64 = 600_000;

/// The back-off of a container that keeps ending. The first restart is immediate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CrashBackoff {
    /// The wait that the next restart is due, in milliseconds; 0 before the first restart.
    pub delay_ms: i64,
    /// When the last restart was, in milliseconds since the epoch.
    pub restarted_ms: i64,
}

impl CrashBackoff {
    /// When a container that ended at `finished_ms` may start again; `None` for now. A clock that jumped back cannot
    /// make the wait longer than it is meant to be.
    pub fn until(&self, finished_ms: i64, now_ms: i64) -> Option<i64> {
        if self.delay_ms == 0 || self.expired(finished_ms) {
            return None;
        }
        let until = finished_ms.min(now_ms).saturating_add(self.delay_ms);
        (until > now_ms).then_some(until)
    }

    /// The back-off after a restart at `now_ms` of what ended at `finished_ms`.
    pub fn restarted(&self, finished_ms: i64, now_ms: i64) -> Self {
        let delay_ms = if self.delay_ms == 0 || self.expired(finished_ms) {
            FIRST_MS
        } else {
            (self.delay_ms * 2).min(LONGEST_MS)
        };
        Self {
            delay_ms,
            restarted_ms: now_ms,
        }
    }

    fn expired(&self, finished_ms: i64) -> bool {
        finished_ms.saturating_sub(self.restarted_ms) > RESET_MS
    }
}

/// The retries of a step that keeps failing, and why it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// The last failure; `None` when the last try worked.
    pub failure: Option<Failure>,
}

/// A failed try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kubernetes' word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// Milliseconds since the epoch.
    pub failed_ms: i64,
    /// From the failure to the next try, in milliseconds.
    pub delay_ms: i64,
}

/// Waits between tries, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After the first failure; doubled by each.
    pub first_ms: i64,
    /// The ceiling.
    pub longest_ms: i64,
}

/// For what is a person's mistake more often than not.
pub const SLOW: Pace = Pace {
    first_ms: FIRST_MS,
    longest_ms: LONGEST_MS,
};
/// For what heals by itself.
pub const QUICK: Pace = Pace {
    first_ms: 1000,
    longest_ms: 30_000,
};

impl Retry {
    /// When the next try is due; `None` for now.
    pub fn until(&self, now_ms: i64) -> Option<i64> {
        let failure = self.failure.as_ref()?;
        let until = failure.failed_ms.min(now_ms) + failure.delay_ms;
        (until > now_ms).then_some(until)
    }

    /// It failed again.
    pub fn failed(&mut self, pace: Pace, reason: &'static str, message: String, now_ms: i64) {
        let delay_ms = match &self.failure {
            Some(before) => (before.delay_ms * 2).min(pace.longest_ms),
            None => pace.first_ms,
        };
        self.failure = Some(Failure {
            reason,
            message,
            failed_ms: now_ms,
            delay_ms,
        });
    }

    /// It worked.
    pub fn worked(&mut self) {
        self.failure = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_crashing_container_waits_longer_each_time() {
        let mut backoff = CrashBackoff::default();
        let mut now = 1_000_000;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let finished = now + 100;
            let start = backoff.until(finished, finished).unwrap_or(finished);
            waits.push((start - finished) / 1000);
            backoff = backoff.restarted(finished, start);
            now = start;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let long_run = now + RESET_MS + 1;
        assert_eq!(backoff.until(long_run, long_run), None);
        assert_eq!(backoff.restarted(long_run, long_run).delay_ms, FIRST_MS);
    }

    #[test]
    fn a_clock_that_jumped_back_does_not_freeze_a_container() {
        let backoff = CrashBackoff {
            delay_ms: 10_000,
            restarted_ms: 1_000_000,
        };
        assert_eq!(backoff.until(1_000_500, 400_000), Some(410_000));
    }

    #[test]
    fn tries_are_spaced_and_forgotten_after_success() {
        let mut retry = Retry::default();
        assert_eq!(retry.until(0), None);
        retry.failed(QUICK, "E", "e".into(), 0);
        assert_eq!(retry.until(0), Some(1000));
        assert_eq!(retry.until(1000), None);
        retry.failed(QUICK, "E", "e".into(), 1000);
        assert_eq!(retry.until(1000), Some(3000));
        retry.worked();
        assert_eq!(retry.until(1000), None);
    }
}
