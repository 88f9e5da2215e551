//! A Deployment's live pods by revision, and the step that follows from them.

use super::{
    budget::{Budget, is_recreate},
    rollout::{self, Steps},
};
use crate::controllers::{
    pods,
    replicas::group::{Count, Group},
};
use barge_proto::v1::{DeploymentSpec, Revision, Time};
use barge_state::{Kind, PackedPod};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The live pods of a Deployment.
#[derive(Debug, Default)]
pub struct Groups<'a> {
    /// Those of the newest revision.
    pub new: Group<'a>,
    /// Those of each older one that has any, oldest first.
    pub old: Vec<Group<'a>>,
}

impl<'a> Groups<'a> {
    /// Groups the pods that a Deployment owns, in one pass. `revisions` are ordered oldest first. Pods of a revision that is unknown can't be:
    /// it is kept as long as they are.
    pub fn new(
        owned: &[&'a Arc<PackedPod>],
        revisions: &[&'a Arc<Revision>],
        newest: &str,
        spec: &DeploymentSpec,
        now: &Time,
    ) -> Self {
        let group = |revision: &&'a Arc<Revision>| Group {
            revision: Some(*revision),
            ..Group::default()
        };
        let mut groups: Vec<_> = revisions.iter().map(group).collect();
        let uids = revisions.iter().map(|revision| revision.uid());
        let places: BTreeMap<_, _> = uids.zip(0..).collect();
        // Pods next to each other are mostly of one revision.
        let mut last = ("", None);
        for pod in owned.iter().copied() {
            let uid = pod.template_uid();
            if last.0 != uid {
                last = (uid, places.get(uid).copied());
            }
            if let Some(group) = last.1.and_then(|place: usize| groups.get_mut(place)) {
                group.count(pod, spec.min_ready_seconds, now);
            }
        }
        let place = places.get(newest).copied();
        let new = place.map_or_else(Group::default, |place| groups.remove(place));
        groups.retain(|group| group.count.total > 0);
        Self { new, old: groups }
    }

    fn all(&self) -> impl Iterator<Item = &Group<'a>> {
        std::iter::once(&self.new).chain(&self.old)
    }

    /// How many live pods are ready.
    pub fn ready(&self) -> usize {
        self.all().map(|group| group.ready).sum()
    }

    /// How long until the next of the ready pods is available.
    pub fn next_available(&self) -> Option<Duration> {
        self.all().filter_map(|group| group.next_available).min()
    }

    /// How many live pods there are.
    pub fn all_count(&self) -> Count {
        self.old.iter().fold(self.new.count, |sum, group| Count {
            total: sum.total + group.count.total,
            available: sum.available + group.count.available,
        })
    }

    /// The next step, as if no finished pod held its place. `owned` are all pods, whatever their phase.
    pub fn steps(
        &self,
        spec: &DeploymentSpec,
        budget: &Budget,
        owned: &[&Arc<PackedPod>],
        newest: &str,
    ) -> Steps {
        let old: Vec<_> = self.old.iter().map(|group| group.count).collect();
        if spec.paused {
            rollout::paused(budget, self.new.count, &old)
        } else if is_recreate(spec) {
            // A pod that is terminating may still run, and so may one that is lost: its node may be cut off only.
            let old_remain = owned
                .iter()
                .any(|pod| pod.template_uid() != newest && !pods::is_finished(pod));
            rollout::recreate(budget, self.new.count, &old, old_remain)
        } else {
            rollout::rolling(budget, self.new.count, &old)
        }
    }

    /// Steps without the pods whose place a finished one holds.
    pub fn held(&self, mut steps: Steps) -> Steps {
        steps.new.hold(self.new.held);
        for (step, group) in steps.old.iter_mut().zip(&self.old) {
            step.hold(group.held);
        }
        steps
    }
}
