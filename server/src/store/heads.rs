//! The age of a revision.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A revision is noted at most so often.
const NOTED: Duration = Duration::from_secs(15);

/// Revisions that were the newest at some time: which changes are older than some age.
#[derive(Debug)]
pub struct Heads {
    age: Duration,
    /// The oldest first; at most one in [`NOTED`], and none that is much older than the age.
    noted: VecDeque<(Instant, u64)>,
}

impl Heads {
    /// For changes that are older than `age`.
    #[must_use]
    pub fn new(age: Duration) -> Self {
        Self {
            age,
            noted: VecDeque::new(),
        }
    }

    /// Notes the newest revision, and answers the one that was the newest so long ago that all changes up to it are older than the age; 0 when
    /// none is known yet. Called every few seconds.
    pub fn note(&mut self, now: Instant, head: u64) -> u64 {
        let is_due = |(last, _): &(Instant, u64)| now - *last >= NOTED;
        if self.noted.back().is_none_or(is_due) {
            self.noted.push_back((now, head));
        }
        let mut old = 0;
        while let Some((at, revision)) = self.noted.front()
            && now - *at >= self.age
        {
            old = *revision;
            self.noted.pop_front();
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_new_an_age_ago_is_old() {
        let mut heads = Heads::new(Duration::from_secs(60));
        let begin = Instant::now();
        for second in 0..600u64 {
            let old = heads.note(begin + Duration::from_secs(second), 1000 + second);
            // Noted every 15 seconds, told once.
            let told = second >= 60 && second.is_multiple_of(15);
            assert_eq!(
                old,
                if told { 1000 + second - 60 } else { 0 },
                "after {second} s"
            );
            assert!(heads.noted.len() <= 5);
        }
    }
}
