//! How often the whole table is written again, when others change it again and again, or `nft` refuses it.

use std::time::Duration;

use tokio::time::Instant;

/// The first time is now, the second this long after it, and each further one twice as long after the one before …
const FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST: Duration = Duration::from_secs(60);
/// With nothing to be done for this long after the wait, it begins anew.
const CALM: Duration = Duration::from_secs(60);

/// The pace.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
    times: u32,
}

impl Pace {
    /// How long to wait from now on.
    pub fn wait(&mut self, now: Instant) -> Duration {
        let Some(last) = self.last else {
            return Duration::ZERO;
        };
        let wait = FIRST.saturating_mul(1 << self.times.saturating_sub(1).min(6));
        let wait = wait.min(LONGEST);
        if now >= last + wait + CALM {
            *self = Self::default();
            return Duration::ZERO;
        }
        (last + wait).saturating_duration_since(now)
    }

    /// It is written now.
    pub fn write(&mut self, now: Instant) {
        self.last = Some(now);
        self.times = self.times.saturating_add(1);
    }

    /// How many times it was written without a calm in between.
    pub fn times(&self) -> u32 {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_at_once_and_a_fight_is_slow() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut at = start;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let wait = pace.wait(at);
            waits.push(wait.as_secs());
            at += wait;
            pace.write(at);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pace.times(), 9);
        at += LONGEST + CALM;
        assert_eq!(pace.wait(at), Duration::ZERO);
        pace.write(at);
        assert_eq!(pace.wait(at), FIRST);
    }
}
