//! Live pods that are counted together, and the step to the number that is wanted.

use crate::controllers::{pods, stamp};
use barge_proto::v1::{Revision, Time};
use barge_state::PackedPod;
use std::{sync::Arc, time::Duration};

/// How long a finished pod keeps its place before it is replaced, counted from its creation: pods
/// that fail at once are not made anew without end.
const REPLACE_AFTER: Duration = Duration::from_secs(5);

/// How long a pod that has finished still keeps its place; None for any other.
pub fn held_for(pod: &PackedPod, now: &Time) -> Option<Duration> {
    if !pods::is_finished(pod) || pods::is_terminating(pod) {
        return None;
    }
    let created = pod.created()?;
    let left = REPLACE_AFTER.saturating_sub(stamp::age(now, &created));
    (!left.is_zero()).then_some(left)
}

/// Live pods: how many, and how many of them are available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Neither finished nor terminating.
    pub total: usize,
    /// Of these, ready for minReadySeconds.
    pub available: usize,
}

impl Count {
    /// Those that are not available.
    pub fn unavailable(&self) -> usize {
        self.total.saturating_sub(self.available)
    }

    /// Without so many that are not available.
    pub fn drop_unavailable(&mut self, number: usize) {
        self.total -= number;
    }

    /// Without so many that are available.
    pub fn drop_available(&mut self, number: usize) {
        self.total -= number;
        self.available -= number;
    }
}

/// What to do with the pods of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Pods to make.
    pub create: usize,
    /// Pods to end among those that are not available.
    pub end_unavailable: usize,
    /// Pods to end among those that are.
    pub end_available: usize,
}

impl Step {
    /// To so many pods: what is too much goes, first what is not available.
    pub fn to(wanted: usize, count: Count) -> Self {
        let excess = count.total.saturating_sub(wanted);
        let end_unavailable = excess.min(count.unavailable());
        Self {
            create: wanted.saturating_sub(count.total),
            end_unavailable,
            end_available: excess - end_unavailable,
        }
    }

    /// Makes fewer pods, by those whose place is still taken.
    pub fn hold(&mut self, places: usize) {
        self.create = self.create.saturating_sub(places);
    }
}

/// The live pods of an owner, or of one of its revisions.
#[derive(Debug, Default)]
pub struct Group<'a> {
    /// The revision; None when the group has pods of any.
    pub revision: Option<&'a Arc<Revision>>,
    /// Its live pods.
    pub pods: Vec<&'a Arc<PackedPod>>,
    /// How many there are.
    pub count: Count,
    /// Of these, how many are ready.
    pub ready: usize,
    /// How long until the next of those that are ready is available.
    pub next_available: Option<Duration>,
    /// Finished pods that are too young to be replaced yet.
    pub held: usize,
}

impl<'a> Group<'a> {
    /// All of these pods that are live.
    pub fn of(
        pods: impl IntoIterator<Item = &'a Arc<PackedPod>>,
        min_ready_seconds: i32,
        now: &Time,
    ) -> Self {
        let mut group = Self::default();
        for pod in pods {
            group.count(pod, min_ready_seconds, now);
        }
        group
    }

    /// Counts one more pod.
    pub fn count(&mut self, pod: &'a Arc<PackedPod>, min_ready_seconds: i32, now: &Time) {
        if !pods::is_live(pod) {
            self.held += usize::from(held_for(pod, now).is_some());
            return;
        }
        self.count.total += 1;
        match pods::available_in(pod, min_ready_seconds, now) {
            None => {}
            Some(Duration::ZERO) => {
                self.ready += 1;
                self.count.available += 1;
            }
            Some(wait) => {
                self.ready += 1;
                let next = self.next_available.map_or(wait, |next| next.min(wait));
                self.next_available = Some(next);
            }
        }
        self.pods.push(pod);
    }
}
