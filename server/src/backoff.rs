//! Waits between attempts.

use std::time::Duration;

/// Waits that double from a first one up to a ceiling.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    next: Duration,
}

impl Backoff {
    /// The first wait, and the longest.
    pub fn new((first, ceiling): (Duration, Duration)) -> Self {
        Self {
            first,
            ceiling,
            next: first,
        }
    }

    /// The wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.ceiling);
        wait
    }

    /// Begins with the first wait again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling_and_begins_again() {
        let mut backoff = Backoff::new((Duration::from_secs(2), Duration::from_secs(7)));
        let mut waits = || backoff.wait().as_secs();
        assert_eq!([waits(), waits(), waits(), waits()], [2, 4, 7, 7]);
        backoff.reset();
        assert_eq!(backoff.wait().as_secs(), 2);
    }
}
