//! A Deployment's live pods by revision, and the step that follows from them.

use super::{
    budget::{Budget, is_recreate},
    rollout::{self, Count, Steps},
};
use crate::controllers::{pods, stamp};
use barge_proto::v1::{DeploymentSpec, Revision, Time};
use barge_state::{Kind, PackedPod};
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

/// The live pods of one revision.
#[derive(Debug, Default)]
pub struct Group<'a> {
    /// The revision.
    pub revision: Option<&'a Arc<Revision>>,
    /// Its live pods.
    pub pods: Vec<&'a Arc<PackedPod>>,
    /// How many there are.
    pub count: Count,
    /// Finished pods that are too young to be replaced yet.
    held: usize,
}

/// The live pods of a Deployment.
#[derive(Debug, Default)]
pub struct Groups<'a> {
    /// Those of the newest revision.
    pub new: Group<'a>,
    /// Those of each older one that has any, oldest first.
    pub old: Vec<Group<'a>>,
}

impl<'a> Groups<'a> {
    /// Groups the pods that a Deployment owns. `revisions` are ordered oldest first. Pods of a
    /// revision that is unknown can't be: it is kept as long as they are.
    pub fn new(
        owned: &[&'a Arc<PackedPod>],
        revisions: &[&'a Arc<Revision>],
        newest: &str,
        spec: &DeploymentSpec,
        now: &Time,
    ) -> Self {
        let live: Vec<_> = owned
            .iter()
            .copied()
            .filter(|pod| pods::is_live(pod))
            .collect();
        let group = |revision: Option<&'a Arc<Revision>>, uid: &str| {
            let pods: Vec<_> = live
                .iter()
                .copied()
                .filter(|pod| pod.template_uid() == uid)
                .collect();
            let available = pods
                .iter()
                .filter_map(|pod| pods::available_in(pod, spec.min_ready_seconds, now))
                .filter(|wait| wait.is_zero())
                .count();
            let held = owned
                .iter()
                .filter(|pod| pod.template_uid() == uid && held_for(pod, now).is_some())
                .count();
            Group {
                revision,
                held,
                count: Count {
                    total: pods.len(),
                    available,
                },
                pods,
            }
        };
        let is_newest = |revision: &&'a Arc<Revision>| revision.uid() == newest;
        Self {
            new: group(revisions.iter().copied().find(is_newest), newest),
            old: revisions
                .iter()
                .copied()
                .filter(|revision| !is_newest(revision))
                .map(|revision| group(Some(revision), revision.uid()))
                .filter(|group| group.count.total > 0)
                .collect(),
        }
    }

    /// All live pods.
    pub fn pods(&self) -> impl Iterator<Item = &'a Arc<PackedPod>> {
        self.new
            .pods
            .iter()
            .chain(self.old.iter().flat_map(|group| &group.pods))
            .copied()
    }

    /// How many live pods are ready.
    pub fn ready(&self) -> usize {
        self.pods().filter(|pod| pods::is_ready(pod)).count()
    }

    /// How many live pods there are.
    pub fn all_count(&self) -> Count {
        self.old.iter().fold(self.new.count, |sum, group| Count {
            total: sum.total + group.count.total,
            available: sum.available + group.count.available,
        })
    }

    /// The next step. `owned` are all pods, whatever their phase.
    pub fn steps(
        &self,
        spec: &DeploymentSpec,
        budget: &Budget,
        owned: &[&Arc<PackedPod>],
        newest: &str,
    ) -> Steps {
        let old: Vec<_> = self.old.iter().map(|group| group.count).collect();
        let mut steps = if spec.paused {
            rollout::paused(budget, self.new.count, &old)
        } else if is_recreate(spec) {
            // A pod that is terminating may still run, and so may one that is lost: its node may be cut off only.
            let old_remain = owned
                .iter()
                .any(|pod| pod.template_uid() != newest && !pods::is_finished(pod));
            rollout::recreate(budget, self.new.count, &old, old_remain)
        } else {
            rollout::rolling(budget, self.new.count, &old)
        };
        steps.new.hold(self.new.held);
        for (step, group) in steps.old.iter_mut().zip(&self.old) {
            step.hold(group.held);
        }
        steps
    }
}
