//! Events by the time they were last seen: the order in which they are evicted.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use barge_proto::v1::Event;

use crate::kind::Kind;

/// An event that is compared by when it was last seen, then by its uid.
#[derive(Debug)]
struct ByAge(Arc<Event>);

/// What events are compared by: seconds and nanoseconds, then the uid.
pub fn age(event: &Event) -> (i64, i32, &str) {
    let time = event.last_timestamp.unwrap_or_default();
    (time.seconds, time.nanos, event.uid())
}

impl PartialEq for ByAge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByAge {}

impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByAge {
    fn cmp(&self, other: &Self) -> Ordering {
        age(&self.0).cmp(&age(&other.0))
    }
}

/// All events, and those of each namespace, the one that was seen least recently first.
#[derive(Debug, Default)]
pub struct Ages {
    all: BTreeSet<ByAge>,
    by_namespace: BTreeMap<String, BTreeSet<ByAge>>,
    /// How many each namespace has, the most last.
    counts: BTreeSet<(usize, String)>,
}

impl Ages {
    /// Replaces one event by another with its uid and namespace; absent stands for one that is not there.
    pub fn swap(&mut self, before: Option<&Arc<Event>>, after: Option<&Arc<Event>>) {
        let Some(event) = before.or(after) else {
            return;
        };
        let namespace = &event.meta().namespace;
        let old = self.count(namespace);
        let mut group = self.by_namespace.remove(namespace).unwrap_or_default();
        if let Some(before) = before {
            let before = ByAge(before.clone());
            self.all.remove(&before);
            group.remove(&before);
        }
        if let Some(after) = after {
            self.all.insert(ByAge(after.clone()));
            group.insert(ByAge(after.clone()));
        }
        let new = group.len();
        if new > 0 {
            self.by_namespace.insert(namespace.clone(), group);
        }
        if new != old {
            self.counts.remove(&(old, namespace.clone()));
            if new > 0 {
                self.counts.insert((new, namespace.clone()));
            }
        }
    }

    /// How many events a namespace has.
    pub fn count(&self, namespace: &str) -> usize {
        self.by_namespace.get(namespace).map_or(0, BTreeSet::len)
    }

    /// The least recent event of all.
    pub fn oldest(&self) -> Option<&Arc<Event>> {
        self.all.first().map(|event| &event.0)
    }

    /// The least recent event of a namespace.
    pub fn oldest_in(&self, namespace: &str) -> Option<&Arc<Event>> {
        let group = self.by_namespace.get(namespace)?;
        group.first().map(|event| &event.0)
    }

    /// The least recent event of the namespace with the most events; of two with as many, of the one whose name sorts last.
    pub fn oldest_of_fullest(&self) -> Option<&Arc<Event>> {
        let (_, namespace) = self.counts.last()?;
        self.oldest_in(namespace)
    }
}
