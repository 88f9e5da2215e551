//! The pause that keeps a transfer within its bytes a second.

use std::time::{Duration, Instant};

/// What was not sent for as long as this is not made up for: a stall must not be followed by a burst.
const CREDIT: Duration = Duration::from_millis(100);

/// Bytes per second, kept by waiting after each piece.
#[derive(Debug)]
pub struct Pace {
    rate: u64,
    /// When what was sent so far should have taken until.
    due: Instant,
}

impl Pace {
    /// `rate` is in bytes per second; at least one.
    pub fn new(rate: u64, now: Instant) -> Self {
        Self {
            rate: rate.max(1),
            due: now,
        }
    }

    /// How long to wait after so many bytes were sent.
    pub fn after(&mut self, bytes: u64, now: Instant) -> Duration {
        if let Some(oldest) = now.checked_sub(CREDIT) {
            self.due = self.due.max(oldest);
        }
        self.due += Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_and_bursts_little_after_a_stall() {
        let mut now = Instant::now();
        let begun = now;
        let mut pace = Pace::new(1000, now);
        for _ in 0..10 {
            now += pace.after(500, now);
        }
        assert_eq!((now - begun).as_millis(), 5000);
        // Nothing could be sent for a minute.
        now += Duration::from_secs(60);
        let stalled = now;
        for _ in 0..10 {
            now += pace.after(500, now);
        }
        assert_eq!((now - stalled).as_millis(), 4900);
    }
}
