//! The work queue of a controller: keys that are due for planning, each at most once, none twice at a time, with back-off after failures.
//!
//! ```text
//!            add                take                 looked
//! (nothing) ─────► due at once ──────► being looked at ─────► Done:   due after its timer, or forgotten
//!                      ▲                                      Raced:  due at once, then soon
//!                      └── an edit, or a change that          Failed: due after a back-off that doubles
//!                          still has credit: due now          Unanswered: due at once, and no key is taken for a while
//! ```

mod credit;
#[cfg(test)]
mod tests;

use credit::Credit;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// The wait after the first failure; it doubles with each one that follows. Also the shortest time between a failure and a look that a
/// change brought forward.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// The longest wait after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The longest wait after a race.
const MAX_RACE_BACKOFF: Duration = Duration::from_millis(200);
/// The longest pause after a look that the cluster gave no answer to.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// A shorter rest is none.
const MIN_REST: Duration = Duration::from_millis(1);

/// Why a key has to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Something that it depends on changed: a pod's status, a node's condition. There may be thousands of these a second.
    Observed,
    /// An object's wanted state changed.
    Edited,
}

/// How a look at a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// All is done; look again after that time even if nothing changes.
    Done(Option<Duration>),
    /// As [`Self::Done`], but there was nothing to propose, so that the cluster was not asked.
    Idle(Option<Duration>),
    /// Another proposal was applied first: plan again, soon.
    Raced,
    /// It didn't work; look again later.
    Failed,
    /// The cluster gave no answer, which says nothing about the key: no quorum, a full disk, too many writes.
    Unanswered,
}

/// A bounded set of dirty keys, by when they are due. Time is passed in.
#[derive(Debug)]
pub struct WorkSet<K> {
    keys: BTreeMap<K, Entry>,
    queue: BTreeSet<(Instant, K)>,
    limit: usize,
    overflowed: bool,
    /// Looks in a row that had no answer; those that end during a pause count once.
    unanswered: u32,
    /// No key is taken before.
    paused_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    /// Nothing is to be done: the entry only keeps `rests_until`, and goes when it is due.
    idle: bool,
    failures: u32,
    running: bool,
    /// Became dirty while it was being planned.
    again: Option<Cause>,
    /// When the last look ended.
    looked: Option<Instant>,
    /// Observed changes wait until then, however many there are.
    rests_until: Option<Instant>,
    credit: Credit,
}

impl Entry {
    /// When the key should be looked at because of a change; None when its time stays what it is.
    fn wanted(&mut self, cause: Cause, now: Instant) -> Option<Instant> {
        if self.failures == 0 {
            let rested = self.rests_until.filter(|_| cause == Cause::Observed);
            return Some(rested.map_or(now, |rested| rested.max(now)));
        }
        let soon = self.looked.map_or(now, |at| now.max(at + FIRST_BACKOFF));
        let sooner = self.due.is_none_or(|due| soon < due);
        let allowed = cause == Cause::Edited || sooner && self.credit.spend(now);
        (sooner && allowed).then_some(soon)
    }
}

impl<K: Ord + Clone> WorkSet<K> {
    /// An empty set that keeps at most `limit` keys.
    pub fn new(limit: usize) -> Self {
        Self {
            keys: BTreeMap::new(),
            queue: BTreeSet::new(),
            limit,
            overflowed: false,
            unanswered: 0,
            paused_until: None,
        }
    }

    /// Marks a key as dirty; true when that makes it due earlier than it was. One that is being looked at is looked at once more. One that
    /// has failed is looked at soon when it was edited, or when its credit for other changes lasts; otherwise it waits for its time. Beyond
    /// the limit the key is dropped, and [`Self::overflowed`] says so.
    pub fn add(&mut self, key: K, cause: Cause, now: Instant) -> bool {
        if !self.keys.contains_key(&key) && self.keys.len() >= self.limit {
            self.overflowed = true;
            return false;
        }
        let entry = self.keys.entry(key.clone()).or_default();
        if entry.running {
            entry.again = entry.again.max(Some(cause));
            return false;
        }
        let Some(wanted) = entry.wanted(cause, now) else {
            return false;
        };
        let was_idle = std::mem::take(&mut entry.idle);
        if let Some(due) = entry.due {
            if due <= wanted {
                return was_idle;
            }
            self.queue.remove(&(due, key.clone()));
        }
        entry.due = Some(wanted);
        self.queue.insert((wanted, key));
        true
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

    /// Takes the key that is due longest, with the number of failures so far and since when it is due. [`Self::looked`] has to be called
    /// for it. None during a pause.
    pub fn take(&mut self, now: Instant) -> Option<(K, u32, Instant)> {
        if self.is_paused(now) {
            return None;
        }
        while self.queue.first().is_some_and(|(due, _)| *due <= now) {
            let (due, key) = self.queue.pop_first()?;
            let entry = self.keys.get_mut(&key)?;
            entry.due = None;
            if entry.idle {
                self.keys.remove(&key);
                continue;
            }
            entry.running = true;
            return Some((key, entry.failures, due));
        }
        None
    }

    /// Says how the look at a key ended. For the time `rest` changes that are only observed do not have it looked at again: they are
    /// looked at together.
    pub fn looked(&mut self, key: K, result: Looked, rest: Duration, now: Instant) {
        match result {
            Looked::Unanswered => self.pause(now),
            Looked::Idle(_) => {}
            Looked::Done(_) | Looked::Raced | Looked::Failed => self.unanswered = 0,
        }
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        entry.running = false;
        entry.looked = Some(now);
        entry.rests_until = (rest >= MIN_REST).then(|| now + rest);
        let again = std::mem::take(&mut entry.again);
        let due = match result {
            Looked::Failed | Looked::Raced => {
                entry.failures = entry.failures.saturating_add(1);
                let wait = match result {
                    Looked::Raced if entry.failures == 1 => Duration::ZERO,
                    Looked::Raced => backoff(entry.failures - 1).min(MAX_RACE_BACKOFF),
                    _ => backoff(entry.failures),
                };
                Some(now + wait)
            }
            Looked::Unanswered => Some(now),
            Looked::Done(wait) | Looked::Idle(wait) => {
                entry.failures = 0;
                wait.map(|wait| now + wait)
            }
        };
        entry.idle = due.is_none();
        match due.or(entry.rests_until) {
            Some(due) => {
                entry.due = Some(due);
                self.queue.insert((due, key.clone()));
            }
            None => {
                self.keys.remove(&key);
            }
        }
        if let Some(cause) = again {
            self.add(key, cause, now);
        }
    }

    /// How many keys are due.
    pub fn waiting(&self, now: Instant) -> usize {
        let due = self.queue.iter().take_while(|(due, _)| *due <= now);
        due.count()
    }

    /// Whether a key is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.queue.first().is_some_and(|(due, _)| *due <= now)
    }

    /// When the next key can be taken.
    pub fn next_due(&self) -> Option<Instant> {
        let (due, _) = self.queue.first()?;
        Some(self.paused_until.map_or(*due, |until| until.max(*due)))
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Begins a pause, longer each time. Looks that were under way when it began do not make it longer.
    fn pause(&mut self, now: Instant) {
        if !self.is_paused(now) {
            self.unanswered = self.unanswered.saturating_add(1);
            self.paused_until = Some(now + backoff(self.unanswered).min(MAX_PAUSE));
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1).min(16))
        .unwrap_or(u32::MAX);
    FIRST_BACKOFF.saturating_mul(doubled).min(MAX_BACKOFF)
}
