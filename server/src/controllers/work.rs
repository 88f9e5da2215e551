//! Keys that somebody should look at: each at most once, none twice at a time, with back-off after
//! failures.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// The wait after the first failure; it doubles with each one that follows.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// The longest wait after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How a look at a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// All is done; look again after that time even if nothing changes.
    Done(Option<Duration>),
    /// It didn't work; look again later.
    Failed,
}

/// A bounded set of dirty keys, by when they are due. Time is passed in.
#[derive(Debug)]
pub struct WorkSet<K> {
    keys: BTreeMap<K, Entry>,
    queue: BTreeSet<(Instant, K)>,
    limit: usize,
    overflowed: bool,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    failures: u32,
    running: bool,
    /// Became dirty while somebody looked at it.
    again: bool,
}

impl<K: Ord + Clone> WorkSet<K> {
    /// An empty set that keeps at most `limit` keys.
    pub fn new(limit: usize) -> Self {
        Self {
            keys: BTreeMap::new(),
            queue: BTreeSet::new(),
            limit,
            overflowed: false,
        }
    }

    /// Marks a key as dirty. One that has failed waits for its time all the same, and one that is
    /// being looked at is looked at once more. Beyond the limit the key is dropped, and
    /// [`Self::overflowed`] says so.
    pub fn add(&mut self, key: K, now: Instant) {
        if !self.keys.contains_key(&key) && self.keys.len() >= self.limit {
            self.overflowed = true;
            return;
        }
        let entry = self.keys.entry(key.clone()).or_default();
        if entry.running {
            entry.again = true;
        } else if entry.failures == 0 || entry.due.is_none() {
            if let Some(due) = entry.due {
                if due <= now {
                    return;
                }
                self.queue.remove(&(due, key.clone()));
            }
            entry.due = Some(now);
            self.queue.insert((now, key));
        }
    }

    /// Whether keys were dropped since this was last asked: then all have to be listed again.
    pub fn overflowed(&mut self) -> bool {
        // Only once there is room for them.
        let relist = self.overflowed && self.keys.len() < self.limit / 2;
        if relist {
            self.overflowed = false;
        }
        relist
    }

    /// Takes the key that is due longest, with the number of failures so far. [`Self::looked`] has
    /// to be called for it.
    pub fn take(&mut self, now: Instant) -> Option<(K, u32)> {
        let (due, _) = self.queue.first()?;
        if *due > now {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        let entry = self.keys.get_mut(&key)?;
        entry.due = None;
        entry.running = true;
        Some((key, entry.failures))
    }

    /// Says how the look at a key ended.
    pub fn looked(&mut self, key: K, result: Looked, now: Instant) {
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        entry.running = false;
        let again = std::mem::take(&mut entry.again);
        let wait = match result {
            Looked::Failed => {
                entry.failures = entry.failures.saturating_add(1);
                Some(backoff(entry.failures))
            }
            Looked::Done(wait) => {
                entry.failures = 0;
                if again { Some(Duration::ZERO) } else { wait }
            }
        };
        match wait {
            Some(wait) => {
                let due = now + wait;
                entry.due = Some(due);
                self.queue.insert((due, key));
            }
            None => {
                self.keys.remove(&key);
            }
        }
    }

    /// When the next key is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1).min(16))
        .unwrap_or(u32::MAX);
    FIRST_BACKOFF.saturating_mul(doubled).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_key_is_there_once() {
        let now = Instant::now();
        let mut work = WorkSet::new(10);
        work.add("a", now);
        work.add("a", now);
        assert_eq!(work.take(now), Some(("a", 0)));
        assert_eq!(work.take(now), None);
        work.looked("a", Looked::Done(None), now);
        assert_eq!(work.take(now), None);
        assert_eq!(work.next_due(), None);
    }

    #[test]
    fn a_key_that_becomes_dirty_meanwhile_is_looked_at_again() {
        let now = Instant::now();
        let mut work = WorkSet::new(10);
        work.add("a", now);
        work.take(now).unwrap();
        work.add("a", now);
        assert_eq!(work.take(now), None, "never two at a time");
        work.looked("a", Looked::Done(Some(SECOND)), now);
        assert_eq!(work.take(now), Some(("a", 0)));
    }

    #[test]
    fn failures_wait_longer_each_time_and_changes_do_not_shorten_it() {
        let mut now = Instant::now();
        let mut work = WorkSet::new(10);
        work.add("a", now);
        let mut waits = Vec::new();
        for failures in 0..20 {
            assert_eq!(work.take(now), Some(("a", failures)));
            work.looked("a", Looked::Failed, now);
            work.add("a", now);
            assert_eq!(work.take(now), None);
            let due = work.next_due().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert!(waits.is_sorted());
        assert_eq!(waits[0], FIRST_BACKOFF);
        assert_eq!(*waits.last().unwrap(), MAX_BACKOFF);
        work.take(now).unwrap();
        work.looked("a", Looked::Done(Some(SECOND)), now);
        work.add("a", now);
        assert_eq!(work.take(now), Some(("a", 0)), "success forgets failures");
    }

    #[test]
    fn a_timer_is_brought_forward_by_a_change() {
        let now = Instant::now();
        let mut work = WorkSet::new(10);
        work.add("a", now);
        work.take(now).unwrap();
        work.looked("a", Looked::Done(Some(SECOND)), now);
        assert_eq!(work.take(now), None);
        work.add("a", now);
        assert_eq!(work.take(now), Some(("a", 0)));
        work.looked("a", Looked::Done(None), now);
        assert_eq!(work.take(now + SECOND), None);
    }

    #[test]
    fn it_is_bounded_and_says_when_keys_were_dropped() {
        let now = Instant::now();
        let mut work = WorkSet::new(4);
        for key in 0..9 {
            work.add(key, now);
        }
        assert!(!work.overflowed(), "there is no room yet");
        for key in 0..4 {
            assert_eq!(work.take(now), Some((key, 0)));
            work.looked(key, Looked::Done(None), now);
        }
        assert!(work.overflowed());
        assert!(!work.overflowed());
    }
}
