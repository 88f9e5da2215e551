//! When the leader last heard from each node: in memory only, counted by the leader's own clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What the leader heard. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    leading_since: Option<Instant>,
    nodes: HashMap<String, Instant>,
    /// While the CA is rotated: the digest of the roots that each node trusts.
    roots: HashMap<String, [u8; 32]>,
}

impl Heartbeats {
    /// This manager leads from now on; what an earlier leader heard is not known here.
    pub fn begin(&self, now: Instant) {
        self.with(|heard| {
            heard.leading_since = Some(now);
            heard.nodes.clear();
            heard.roots.clear();
        });
    }

    /// This manager does not lead any more.
    pub fn end(&self) {
        self.with(|heard| *heard = Heard::default());
    }

    /// Since when this manager leads; absent when it does not.
    #[must_use]
    pub fn leading_since(&self) -> Option<Instant> {
        self.with(|heard| heard.leading_since)
    }

    /// When the node was heard from last, while this manager led; absent when it was not.
    #[must_use]
    pub fn last_heard(&self, node_uid: &str) -> Option<Instant> {
        self.with(|heard| heard.nodes.get(node_uid).copied())
    }

    /// How long the node has been silent: since it was heard from last, or since this manager began to lead; absent
    /// when this manager does not lead.
    #[must_use]
    pub fn silence(&self, node_uid: &str, now: Instant) -> Option<Duration> {
        self.with(|heard| {
            let since = heard.leading_since?;
            let last = heard.nodes.get(node_uid).copied().unwrap_or(since);
            Some(now.saturating_duration_since(last))
        })
    }

    /// The node was heard from at `at`. Earlier news than what is known is ignored, and so is everything while this
    /// manager does not lead.
    pub fn heard(&self, node_uid: &str, at: Instant) {
        self.with(|heard| {
            if heard.leading_since.is_none() {
                return;
            }
            match heard.nodes.get_mut(node_uid) {
                Some(last) => *last = at.max(*last),
                None => {
                    heard.nodes.insert(node_uid.to_owned(), at);
                }
            }
        });
    }

    /// The node said what roots it trusts. Ignored while this manager does not lead.
    pub fn said_roots(&self, node_uid: &str, roots_sha256: [u8; 32]) {
        self.with(|heard| {
            if heard.leading_since.is_some() {
                heard.roots.insert(node_uid.to_owned(), roots_sha256);
            }
        });
    }

    /// The digest of the roots that the node trusts, as it said last; absent when it said nothing while this manager led.
    #[must_use]
    pub fn trusts(&self, node_uid: &str) -> Option<[u8; 32]> {
        self.with(|heard| heard.roots.get(node_uid).copied())
    }

    /// How many nodes were heard from.
    #[must_use]
    pub fn count(&self) -> usize {
        self.with(|heard| heard.nodes.len())
    }

    /// Forgets nodes that are gone.
    pub fn retain(&self, mut lives: impl FnMut(&str) -> bool) {
        self.with(|heard| {
            heard.nodes.retain(|uid, _| lives(uid));
            heard.roots.retain(|uid, _| lives(uid));
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut Heard) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leader_counts_from_its_own_beginning() {
        let heartbeats = Heartbeats::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        heartbeats.heard("n", at(0));
        assert_eq!(heartbeats.silence("n", at(1)), None);
        heartbeats.begin(at(2));
        assert_eq!(heartbeats.silence("n", at(5)), Some(Duration::from_secs(3)));
        heartbeats.heard("n", at(4));
        heartbeats.heard("n", at(3));
        assert_eq!(heartbeats.silence("n", at(5)), Some(Duration::from_secs(1)));
        heartbeats.end();
        heartbeats.begin(at(6));
        assert_eq!(heartbeats.last_heard("n"), None);
    }
}
