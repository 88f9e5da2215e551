//! The pause before a failed step is tried again. It grows, so a step that never works costs little.

use std::time::Duration;

use barge_client::backoff::Backoff;
use tokio::time::Instant;

use super::step::Step;

/// Keeps a step from following itself without a wait, whether it failed or only had no effect. Another step is progress.
#[derive(Debug)]
pub struct Pace {
    last: Option<(Step, Instant)>,
    backoff: Backoff,
    /// A step that was not taken for as long begins anew.
    ceiling: Duration,
}

impl Pace {
    /// Nothing was tried yet; repetitions wait for the first of these times, at most for the second.
    pub fn new(waits: (Duration, Duration)) -> Self {
        Self {
            last: None,
            backoff: Backoff::new(waits.0, waits.1),
            ceiling: waits.1,
        }
    }

    /// How long this step has to wait; absent when it may be taken now.
    pub fn wait(&self, step: &Step) -> Option<Duration> {
        let (_, not_before) = self.last.as_ref().filter(|(last, _)| last == step)?;
        let wait = not_before.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then_some(wait)
    }

    /// This step was taken now.
    pub fn took(&mut self, step: Step) {
        let now = Instant::now();
        let again = |(last, not_before): &(Step, Instant)| {
            *last == step && now < *not_before + self.ceiling
        };
        if !self.last.as_ref().is_some_and(again) {
            self.backoff.reset();
        }
        self.last = Some((step, now + self.backoff.wait()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::MemberChange;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_step_that_changes_nothing_is_taken_ever_more_seldom() {
        let mut pace = Pace::new((SECOND / 2, 30 * SECOND));
        let settle = Step::Change(MemberChange::Settle);
        let (begun, mut taken) = (Instant::now(), 0);
        while begun.elapsed() < 600 * SECOND {
            if let Some(wait) = pace.wait(&settle) {
                tokio::time::sleep(wait).await;
                continue;
            }
            pace.took(settle.clone());
            taken += 1;
        }
        assert!((20..=50).contains(&taken), "{taken} times in ten minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn another_step_waits_for_nothing_and_ends_the_waiting() {
        let mut pace = Pace::new((SECOND / 2, 30 * SECOND));
        let settle = Step::Change(MemberChange::Settle);
        for _ in 0..4 {
            pace.took(settle.clone());
        }
        let wait = pace.wait(&settle).unwrap();
        assert!(wait >= 2 * SECOND && wait <= 4 * SECOND, "{wait:?}");
        assert_eq!(pace.wait(&Step::HandOver), None);
        pace.took(Step::HandOver);
        assert_eq!(pace.wait(&settle), None);
        assert!(
            pace.wait(&Step::HandOver)
                .is_some_and(|wait| wait <= SECOND / 2)
        );
    }
}
