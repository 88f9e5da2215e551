//! Classes whose pods cannot be placed because that panics: set aside for a while, so that all others are placed.

use crate::controllers::guard::Panicked;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a class is set aside at first; it doubles each time.
const FIRST: Duration = Duration::from_secs(1);
/// How long at most. Each attempt costs reading the whole cluster again.
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
    /// Sets a class aside, for longer each time.
    pub fn put(&mut self, template: &str, panicked: &Panicked, now: Instant) {
        let before = self.0.get(template);
        let wait = before.map_or(FIRST, |held| (held.wait * 2).min(LONGEST));
        let why = format!(
            "the scheduler failed on pods of this template, which is a fault of Barge; it tries again later. {panicked}"
        );
        if self.0.len() >= MAX {
            // It may fail once more, that is all.
            self.0.pop_first();
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
