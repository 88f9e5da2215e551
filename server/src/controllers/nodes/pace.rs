//! The leader's memory of the nodes that it declared lost. A new leader starts without it, because it counts a whole grace period first.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How fast nodes are lost, and since when each is.
#[derive(Debug, Default)]
pub struct Pace {
    paused: bool,
    /// When the brakes held last.
    held: Option<Instant>,
    last: Option<(String, Instant)>,
    lost: BTreeMap<String, Instant>,
}

impl Pace {
    /// Whether this node may be lost now. The one that was lost last may be lost again at once: the first try was refused.
    pub fn is_due(&self, uid: &str, now: Instant, interval: Duration) -> bool {
        match &self.last {
            Some((last, at)) => last == uid || now.saturating_duration_since(*at) >= interval,
            None => true,
        }
    }

    /// The node is lost from now on.
    pub fn lost(&mut self, uid: &str, now: Instant) {
        self.last = Some((uid.to_owned(), now));
        self.lost.insert(uid.to_owned(), now);
    }

    /// Whether a node that lived at `confirmed` has lived since it was lost. What is confirmed at all is confirmed to this
    /// leader, so after what an earlier one did.
    pub fn lives(&self, uid: &str, confirmed: Option<Instant>) -> bool {
        confirmed.is_some_and(|at| self.lost.get(uid).is_none_or(|lost| at > *lost))
    }

    /// Notes whether the brakes hold at `now`; true when they begin to.
    pub fn begins_pause(&mut self, held: bool, now: Instant) -> bool {
        let begins = held && !self.paused;
        self.paused = held;
        if held {
            self.held = Some(now);
        }
        begins
    }

    /// Whether the brakes have not held for a whole grace period: nodes that were cut off together return one after the other, and
    /// the first ones to be heard say nothing against the others.
    pub fn is_settled(&self, now: Instant, grace: Duration) -> bool {
        self.held
            .is_none_or(|held| now.saturating_duration_since(held) >= grace)
    }

    /// Forgets nodes that are gone.
    pub fn retain(&mut self, mut is_there: impl FnMut(&str) -> bool) {
        self.lost.retain(|uid, _| is_there(uid));
    }
}
