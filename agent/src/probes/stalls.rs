//! Whether this process stood still: it was stopped, or the machine had no time for it.

/// So much later than it meant to may the loop wake, in milliseconds.
const STALL_MS: i64 = 500;

/// What the prober's loop knows of its own stops. Times are in milliseconds of one clock.
#[derive(Debug, Default)]
pub struct Stalls {
    expected_ms: Option<i64>,
    ended_ms: Option<i64>,
}

impl Stalls {
    /// The loop sleeps, and means to wake at this time at the latest.
    pub fn expect(&mut self, at_ms: Option<i64>) {
        self.expected_ms = at_ms;
    }

    /// The loop woke.
    pub fn observe(&mut self, now_ms: i64) {
        let late = self
            .expected_ms
            .map(|expected| now_ms.saturating_sub(expected));
        if late.is_some_and(|late| late > STALL_MS) {
            self.ended_ms = Some(now_ms);
        }
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
        stalls.expect(None);
        stalls.observe(60_000);
        assert!(!stalls.overlaps(0), "nothing was to be done");
        stalls.expect(Some(60_250));
        stalls.observe(60_300);
        assert!(!stalls.overlaps(60_000));
        stalls.expect(Some(60_550));
        stalls.observe(120_000);
        assert!(stalls.overlaps(60_300));
        assert!(!stalls.overlaps(120_000));
    }
}
