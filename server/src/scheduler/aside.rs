//! Classes whose placement panics: they are set aside for a while, so that the pods of all others are placed.

use crate::controllers::guard::Panicked;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a class is set aside at first, at least; it doubles each time.
const FIRST: Duration = Duration::from_secs(1);
/// And at least so many times as long as it takes to read the whole cluster, which each attempt costs.
const RELOADS: u32 = 10;
/// How long at most.
const LONGEST: Duration = Duration::from_secs(300);
/// Classes that are remembered.
const MAX: usize = 1_000;

/// What is set aside, by the uid of the template.
#[derive(Debug, Default)]
pub struct Aside(BTreeMap<String, Held>);

#[derive(Debug)]
struct Held {
    until: Instant,
    wait: Duration,
    why: Arc<str>,
}

impl Aside {
    /// Sets a class aside, for longer each time. `reload` is how long it took to read the cluster.
    pub fn put(&mut self, template: &str, panicked: &Panicked, reload: Duration, now: Instant) {
        let first = FIRST.max(reload.saturating_mul(RELOADS));
        let before = self.0.get(template);
        let doubled = before.map_or(first, |held| first.max(held.wait * 2));
        let wait = doubled.min(LONGEST);
        let why = format!(
            "the scheduler failed on pods of this template, which is a fault of Barge; it tries again later. {panicked}"
        );
        if self.0.len() >= MAX && before.is_none() {
            // The one whose time ends first may fail a little earlier, that is all.
            let first = self.0.iter().min_by_key(|(_, held)| held.until);
            if let Some(template) = first.map(|(template, _)| template.clone()) {
                self.0.remove(&template);
            }
        }
        let until = now + wait;
        let held = Held {
            until,
            wait,
            why: why.into(),
        };
        self.0.insert(template.to_owned(), held);
    }

    /// Why a class is set aside now.
    pub fn why(&self, template: &str, now: Instant) -> Option<Arc<str>> {
        let held = self.0.get(template)?;
        (now < held.until).then(|| held.why.clone())
    }

    /// The class was looked at without a panic.
    pub fn forget(&mut self, template: &str) {
        if !self.0.is_empty() {
            self.0.remove(template);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fault() -> Panicked {
        Panicked("a fault".to_owned())
    }

    /// How long a class is set aside after each of some panics.
    fn waits(reload: Duration, panics: usize) -> Vec<u64> {
        let (mut aside, now) = (Aside::default(), Instant::now());
        let wait = |_| {
            aside.put("web", &fault(), reload, now);
            aside.0.get("web").unwrap().wait.as_secs()
        };
        (0..panics).map(wait).collect()
    }

    #[test]
    fn reading_the_cluster_costs_a_tenth_of_the_time_at_most() {
        assert_eq!(waits(Duration::from_millis(20), 3), [1, 2, 4]);
        assert_eq!(waits(3 * SECOND, 6), [30, 60, 120, 240, 300, 300]);
        assert_eq!(waits(60 * SECOND, 2), [300, 300]);
    }

    #[test]
    fn when_there_are_too_many_the_one_that_ends_first_goes() {
        let (mut aside, began) = (Aside::default(), Instant::now());
        let at = |number: usize| began + Duration::from_micros(number as u64);
        // The latest has the lowest uid.
        let uid = |number: usize| format!("{:04}", MAX - number);
        for number in 0..=MAX {
            aside.put(&uid(number), &fault(), Duration::ZERO, at(number));
        }
        let held = |aside: &Aside, number| aside.0.contains_key(&uid(number));
        assert_eq!(aside.0.len(), MAX);
        assert!(!held(&aside, 0) && (1..=MAX).all(|number| held(&aside, number)));
        // One that is there already needs no room.
        aside.put(&uid(MAX), &fault(), Duration::ZERO, at(MAX));
        assert!((1..=MAX).all(|number| held(&aside, number)));
    }
}
