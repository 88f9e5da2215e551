//! The credit of a failed key: how often changes that are no edits may end its back-off early.

use std::time::{Duration, Instant};

/// Looks that a key has at first, and at most.
const FULL: u32 = 3;
/// How long it takes until one comes back.
const REFILL: Duration = Duration::from_secs(10);

/// A bucket of tokens, full at first.
#[derive(Debug, Default)]
pub struct Credit {
    /// How many were spent and have not come back.
    spent: u32,
    /// Since when the next one is coming back.
    since: Option<Instant>,
}

impl Credit {
    /// Spends one, if there is one.
    pub fn spend(&mut self, now: Instant) -> bool {
        if let Some(since) = self.since {
            let back = now.saturating_duration_since(since).as_secs() / REFILL.as_secs();
            let back = u32::try_from(back).unwrap_or(u32::MAX).min(self.spent);
            self.spent -= back;
            self.since = (self.spent > 0).then(|| since + REFILL * back);
        }
        let has = self.spent < FULL;
        if has {
            self.spent += 1;
            self.since.get_or_insert(now);
        }
        has
    }
}
