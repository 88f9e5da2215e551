//! Whether this process stood still: it was stopped, or the machine had no time for it.

/// Between two looks at the clock while attempts are under way, in milliseconds.
pub const TICK_MS: i64 = 250;
/// So much more may lie between them.
const STALL_MS: i64 = 500;

/// What the prober's loop knows of its own stops. Times are in milliseconds of one clock.
#[derive(Debug, Default)]
pub struct Stalls {
    last_ms: i64,
    lag_ms: i64,
    ended_ms: Option<i64>,
}

impl Stalls {
    /// The loop looks at the clock. While attempts are under way it does so every [`TICK_MS`], and between any two of its steps.
    pub fn observe(&mut self, now_ms: i64) {
        if now_ms.saturating_sub(self.last_ms) > TICK_MS + STALL_MS {
            self.ended_ms = Some(now_ms);
        }
        let late = now_ms.saturating_sub(self.last_ms).saturating_sub(TICK_MS);
        self.lag_ms = self.lag_ms.saturating_add(late.max(0));
        self.last_ms = now_ms;
    }

    /// By how much all looks together came later than they should have.
    pub fn lag_ms(&self) -> i64 {
        self.lag_ms
    }

    /// The loop woke. An idle one may have slept for any time.
    pub fn woke(&mut self, now_ms: i64, was_idle: bool) {
        if was_idle {
            self.last_ms = now_ms;
        }
        self.observe(now_ms);
    }

    /// Whether the process stood still after this time.
    pub fn overlaps(&self, begun_ms: i64) -> bool {
        self.ended_ms.is_some_and(|ended| begun_ms < ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_the_end_of_a_stop_overlaps_it() {
        let mut stalls = Stalls::default();
        stalls.woke(60_000, true);
        assert!(!stalls.overlaps(0), "nothing was to be done");
        stalls.observe(60_010);
        stalls.woke(60_300, false);
        assert!(!stalls.overlaps(60_000));
        stalls.woke(120_000, false);
        assert!(stalls.overlaps(60_300));
        assert!(!stalls.overlaps(120_000));
    }

    #[test]
    fn a_stop_between_two_steps_of_the_loop_is_seen() {
        let mut stalls = Stalls::default();
        stalls.woke(60_000, true);
        // Attempts begin, and the process stops before the loop sleeps.
        stalls.observe(90_000);
        assert!(stalls.overlaps(60_000));
    }

    #[test]
    fn many_short_stalls_add_up() {
        let mut stalls = Stalls::default();
        stalls.woke(60_000, true);
        assert_eq!(stalls.lag_ms(), 0, "an idle loop is not late");
        for look in 1..=3 {
            stalls.woke(60_000 + look * 650, false);
        }
        assert!(!stalls.overlaps(60_000), "none of them is a stop");
        assert_eq!(stalls.lag_ms(), 1200);
        stalls.woke(62_000, false);
        assert_eq!(stalls.lag_ms(), 1200);
    }
}
