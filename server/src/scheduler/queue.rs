//! Pods that wait for a node: by class, oldest first, with the reasons that were reported last.

use super::cluster::ClassId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long an explanation stands before a different one is told: the counts change with every pod
/// that comes or goes.
const RETELL: Duration = Duration::from_secs(10);

/// A pod that waits: when it was created, and its uid.
type Waiting = (i64, String);

#[derive(Debug, Default)]
struct OfClass {
    pods: BTreeSet<Waiting>,
    /// Those whose status doesn't say yet why they wait.
    untold: BTreeSet<Waiting>,
    message: Option<(Arc<str>, Instant)>,
}

/// The pods that wait.
#[derive(Debug, Default)]
pub struct Queue {
    classes: BTreeMap<ClassId, OfClass>,
}

impl Queue {
    /// Adds a pod.
    pub fn insert(&mut self, class: ClassId, created: i64, uid: &str) {
        let of_class = self.classes.entry(class).or_default();
        of_class.pods.insert((created, uid.to_owned()));
        of_class.untold.insert((created, uid.to_owned()));
    }

    /// Removes a pod.
    pub fn remove(&mut self, class: ClassId, created: i64, uid: &str) {
        if let Some(of_class) = self.classes.get_mut(&class) {
            let key = (created, uid.to_owned());
            of_class.pods.remove(&key);
            of_class.untold.remove(&key);
            if of_class.pods.is_empty() {
                self.classes.remove(&class);
            }
        }
    }

    /// The classes that have pods waiting.
    pub fn classes(&self) -> impl Iterator<Item = ClassId> {
        self.classes.keys().copied()
    }

    /// How many pods wait.
    pub fn count(&self) -> usize {
        self.classes
            .values()
            .map(|of_class| of_class.pods.len())
            .sum()
    }

    /// Whether pods of that class wait.
    pub fn has(&self, class: ClassId) -> bool {
        self.classes.contains_key(&class)
    }

    /// The pod of a class that has waited longest.
    pub fn first(&self, class: ClassId) -> Option<&Waiting> {
        self.classes.get(&class)?.pods.first()
    }

    /// Takes note of why pods of a class can't be placed.
    pub fn explain(&mut self, class: ClassId, message: &str, now: Instant) {
        let Some(of_class) = self.classes.get_mut(&class) else {
            return;
        };
        let news = match &of_class.message {
            None => true,
            Some((told, since)) => {
                **told != *message && now.saturating_duration_since(*since) >= RETELL
            }
        };
        if news {
            of_class.message = Some((Arc::from(message), now));
            of_class.untold.clone_from(&of_class.pods);
        }
    }

    /// Pods that aren't told yet why they wait, with the explanation; each once, at most `limit`.
    pub fn untold(&mut self, limit: usize) -> Vec<(String, Arc<str>)> {
        let mut untold = Vec::new();
        for of_class in self.classes.values_mut() {
            let Some((message, _)) = &of_class.message else {
                continue;
            };
            while untold.len() < limit
                && let Some((_, uid)) = of_class.untold.pop_first()
            {
                untold.push((uid, message.clone()));
            }
        }
        untold
    }
}
