//! Waiting times between attempts: doubling up to a ceiling, with jitter.

use std::time::Duration;

/// The state of one sequence of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    next: Duration,
}

impl Backoff {
    /// The first wait, and the longest.
    #[must_use]
    pub fn new(first: Duration, ceiling: Duration) -> Self {
        Self {
            first,
            ceiling,
            next: first,
        }
    }

    /// How long to wait before the next attempt: between half and the whole of the current step, so that many
    /// clients that lost the same manager do not come back at the same moment.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.ceiling);
        step.mul_f64(rand::random_range(0.5..=1.0))
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
    fn grows_to_the_ceiling_and_begins_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(300));
        for step in [100, 200, 300, 300, 100] {
            if step == 100 {
                backoff.reset();
            }
            let wait = backoff.wait();
            assert!(
                wait >= ms(step / 2) && wait <= ms(step),
                "{wait:?} of {step}"
            );
        }
    }
}
