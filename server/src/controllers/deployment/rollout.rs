//! The next step of a rollout: a function of the pods there are.
//!
//! Kubernetes keeps a wanted number of pods in each ReplicaSet. Barge keeps no such number, so none
//! can be wrong after a failover: the next step follows from the pods alone. The bounds are
//! Kubernetes': never more than `replicas + maxSurge` pods, and the rollout never reduces the available pods below
//! `replicas - maxUnavailable`.

use super::budget::Budget;
use crate::controllers::replicas::group::{Count, Step};

/// The steps for the revision that is rolled out and for the older ones, in the order they were
/// given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// For the newest revision.
    pub new: Step,
    /// For each older one.
    pub old: Vec<Step>,
}

/// The next step of a rolling update. `old` is ordered oldest first, and has revisions with live
/// pods only.
pub fn rolling(budget: &Budget, new: Count, old: &[Count]) -> Steps {
    let mut work = Work::new(new, old);
    work.shrink_new(budget.replicas);
    work.shrink_total(budget);
    work.retire_old(budget);
    work.grow_new(budget);
    work.replenish_old(budget);
    work.steps
}

/// The next step of Recreate: first every old pod goes, `old_remain` says whether any (terminating
/// ones too) still runs, and only then do new ones come.
pub fn recreate(budget: &Budget, new: Count, old: &[Count], old_remain: bool) -> Steps {
    let mut work = Work::new(new, old);
    work.shrink_new(budget.replicas);
    for index in 0..work.old.len() {
        let count = work.old[index];
        work.end_old_unavailable(index, count.unavailable());
        work.end_old_available(index, count.available);
    }
    if !old_remain && old.is_empty() {
        work.steps.new.create = budget.replicas.saturating_sub(work.new.total);
    }
    work.steps
}

/// While a Deployment is paused no rollout moves, but the number of pods is kept: what is missing is made, and what is too
/// much is ended, of all revisions in proportion to the pods they have. Without any pods `new`, the newest revision
/// that there is, makes them, whatever the template says by now.
pub fn paused(budget: &Budget, new: Count, old: &[Count]) -> Steps {
    let mut work = Work::new(new, old);
    let limit = match old.is_empty() {
        true => budget.replicas,
        false => budget.max_total(),
    };
    work.shrink_all(budget, limit);
    let missing = budget.replicas.saturating_sub(work.total());
    let mut created = shares(&work.totals(), missing).into_iter();
    work.steps.new.create = created.next().unwrap_or_default();
    for (step, create) in work.steps.old.iter_mut().zip(created) {
        step.create = create;
    }
    work.steps
}

/// Divides a number in proportion to weights, the largest remainders first; without any weight the first gets all.
fn shares(weights: &[usize], number: usize) -> Vec<usize> {
    let sum: usize = weights.iter().sum();
    if sum == 0 {
        return (0..weights.len())
            .map(|index| if index == 0 { number } else { 0 })
            .collect();
    }
    let mut shares: Vec<_> = weights.iter().map(|weight| number * weight / sum).collect();
    let mut order: Vec<_> = (0..weights.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse((number * weights[index] % sum, weights[index])));
    let left = number - shares.iter().sum::<usize>();
    for &index in order.iter().take(left) {
        shares[index] += 1;
    }
    shares
}

struct Work {
    new: Count,
    old: Vec<Count>,
    steps: Steps,
}

impl Work {
    fn new(new: Count, old: &[Count]) -> Self {
        Self {
            new,
            old: old.to_vec(),
            steps: Steps {
                new: Step::default(),
                old: vec![Step::default(); old.len()],
            },
        }
    }

    fn total(&self) -> usize {
        self.new.total + self.old_total()
    }

    fn old_total(&self) -> usize {
        self.old.iter().map(|count| count.total).sum()
    }

    /// Of the newest revision, then of each older one.
    fn totals(&self) -> Vec<usize> {
        let old = self.old.iter().map(|count| count.total);
        std::iter::once(self.new.total).chain(old).collect()
    }

    /// Ends what is beyond a limit, each revision its share; but never so many that serve that too few are left.
    fn shrink_all(&mut self, budget: &Budget, limit: usize) {
        let excess = self.total().saturating_sub(limit);
        let mut left = excess;
        for (index, share) in shares(&self.totals(), excess).into_iter().enumerate() {
            let spare = self.available().saturating_sub(budget.min_available());
            left -= match index.checked_sub(1) {
                None => {
                    let ended = self.end_new_unavailable(share);
                    ended + self.end_new_available((share - ended).min(spare))
                }
                Some(index) => {
                    let ended = self.end_old_unavailable(index, share);
                    ended + self.end_old_available(index, (share - ended).min(spare))
                }
            };
        }
        // Where a share could not be ended, others have pods that don't serve.
        left -= self.end_new_unavailable(left);
        self.end_unavailable(left);
    }

    fn end_new_unavailable(&mut self, limit: usize) -> usize {
        let number = self.new.unavailable().min(limit);
        self.new.drop_unavailable(number);
        self.steps.new.end_unavailable += number;
        number
    }

    fn end_new_available(&mut self, limit: usize) -> usize {
        let number = self.new.available.min(limit);
        self.new.drop_available(number);
        self.steps.new.end_available += number;
        number
    }

    fn available(&self) -> usize {
        self.new.available + self.old.iter().map(|count| count.available).sum::<usize>()
    }

    fn end_old_unavailable(&mut self, index: usize, limit: usize) -> usize {
        let number = self.old[index].unavailable().min(limit);
        self.old[index].drop_unavailable(number);
        self.steps.old[index].end_unavailable += number;
        number
    }

    fn end_old_available(&mut self, index: usize, limit: usize) -> usize {
        let number = self.old[index].available.min(limit);
        self.old[index].drop_available(number);
        self.steps.old[index].end_available += number;
        number
    }

    /// Ends up to `limit` old pods that aren't available, of the oldest revisions first; returns
    /// how many.
    fn end_unavailable(&mut self, limit: usize) -> usize {
        (0..self.old.len()).fold(0, |ended, index| {
            ended + self.end_old_unavailable(index, limit - ended)
        })
    }

    /// Ends up to `limit` old pods that are available, of the oldest revisions first; returns how
    /// many.
    fn end_available(&mut self, limit: usize) -> usize {
        (0..self.old.len()).fold(0, |ended, index| {
            ended + self.end_old_available(index, limit - ended)
        })
    }

    /// More new pods than are wanted, after a scale down: those that aren't available first.
    fn shrink_new(&mut self, replicas: usize) {
        let excess = self.new.total.saturating_sub(replicas);
        let unavailable = self.end_new_unavailable(excess);
        self.end_new_available(excess - unavailable);
    }

    /// More pods than a rollout may have, after a scale down in the middle of it.
    fn shrink_total(&mut self, budget: &Budget) {
        let mut excess = self.total().saturating_sub(budget.max_total());
        excess -= self.end_unavailable(excess);
        let spare = self.available().saturating_sub(budget.min_available());
        excess -= self.end_available(excess.min(spare));
        // What is left over the limit can only be new pods that don't serve yet: had there been old
        // ones to spare, they would have gone.
        self.end_new_unavailable(excess);
    }

    /// Old pods that may go. Broken ones go first, as long as enough pods are left that serve or
    /// may yet serve; new ones that aren't available are not counted on.
    fn retire_old(&mut self, budget: &Budget) {
        let reserve = budget.min_available() + self.new.unavailable();
        let limit = self.total().saturating_sub(reserve);
        if limit == 0 {
            return;
        }
        self.end_unavailable(limit);
        let spare = self.available().saturating_sub(budget.min_available());
        self.end_available(spare);
    }

    /// New pods within the surge. While old ones still serve, at most `maxSurge + maxUnavailable`
    /// new ones may be unavailable: more there can't be in an undisturbed rollout, and when old
    /// pods are lost during one whose new pods don't start, it keeps new pods that don't work from
    /// taking their place.
    fn grow_new(&mut self, budget: &Budget) {
        let room = budget.max_total().saturating_sub(self.total());
        let mut wanted = budget.replicas.saturating_sub(self.new.total);
        if self.old_total() > 0 {
            let trials = budget.max_surge + budget.max_unavailable;
            wanted = wanted.min(trials.saturating_sub(self.new.unavailable()));
        }
        self.steps.new.create = room.min(wanted);
    }

    /// Old pods that were lost in the middle of a rollout come back as what they were, as far as
    /// the new ones don't make up for them; also after a scale up in the middle of it.
    fn replenish_old(&mut self, budget: &Budget) {
        let (Some(newest), true) = (
            self.steps.old.last_mut(),
            self.old.iter().any(|count| count.total > 0),
        ) else {
            return;
        };
        let old_total: usize = self.old.iter().map(|count| count.total).sum();
        let serving = old_total + self.new.available;
        let missing = budget.min_available().saturating_sub(serving);
        let total = old_total + self.new.total + self.steps.new.create;
        let room = budget.max_total().saturating_sub(total);
        newest.create = missing.min(room);
    }
}
