//! The brakes: which silent node the leader declares lost, so that its pods are replaced. They decide about all nodes at once.
//!
//! One silent machine is probably dead. When many are silent at once, the fault is probably in a part that they share: a switch, or the managers' own
//! network. So when three or more and 55 % of the nodes are silent, or all of them, none is lost; otherwise one at a time.

use super::{
    is_lost,
    readiness::{is_heard, was_heard},
};
use crate::controllers::{stamp, taints};
use barge_proto::v1::{Node, Time};
use barge_state::{Kind, LOSS, State};
use std::{cmp::Reverse, fmt, time::Duration};

/// The number and the share, in percent, of silent nodes from which on none is lost.
const MANY: usize = 3;
const MANY_PERCENT: usize = 55;
/// How long a lost node still counts as one of the silent ones.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What the brakes know of a node.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// Its name.
    pub name: &'a str,
    /// How long it has been silent, by this leader's own clock.
    pub silence: Duration,
    /// Whether it counts: it was heard once, and is not lost for long. Silence alone does not end that, or a pause would end
    /// by itself, and the first node to return would have all others lost.
    pub counts: bool,
    /// Whether the state says that its agent is heard.
    pub heard: bool,
    /// Whether it is lost already.
    pub lost: bool,
    /// Whether a person says that its machine is off.
    pub off: bool,
}

impl<'a> Seen<'a> {
    /// What matters of a node that has been silent for that long.
    pub fn of(node: &'a Node, silence: Duration, now: &Time) -> Self {
        let taint = taints::of(node)
            .iter()
            .find(|it| taints::is(it, taints::UNREACHABLE));
        let long_lost = taint
            .and_then(|taint| taint.time_added)
            .is_some_and(|since| stamp::age(now, &since) >= REMEMBERED);
        Self {
            uid: node.uid(),
            name: &node.meta().name,
            silence,
            counts: was_heard(node) && !long_lost,
            heard: is_heard(node),
            lost: is_lost(node),
            off: taints::has(node, taints::OUT_OF_SERVICE),
        }
    }
}

/// What follows from all nodes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict<'a> {
    /// The node to be lost next.
    pub next: Option<Next<'a>>,
    /// Nodes are silent for too long, and the brakes keep them from being lost.
    pub held: Option<Held<'a>>,
}

/// A node to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// Whether a person said so: then nothing waits.
    pub confirmed: bool,
}

/// Why no node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'a> {
    /// Silent nodes.
    pub silent: usize,
    /// Of so many that count.
    pub counted: usize,
    /// The uid of the one that is silent for longest.
    pub longest: &'a str,
    /// And its name.
    pub name: &'a str,
}

impl fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            silent,
            counted,
            name,
            ..
        } = self;
        write!(
            f,
            "{silent} of {counted} nodes are silent at once: none is given up, and their pods are not replaced, until enough are \
             heard again; look at the network between nodes and managers, and where a machine is certainly off, such as {name}, \
             say so: `barge node lost {name} --confirm`"
        )
    }
}

/// Whether so many silent nodes are too many to lose any.
fn hold(silent: usize, counted: usize) -> bool {
    let many = silent >= MANY && silent * 100 >= counted * MANY_PERCENT;
    many || silent == counted
}

/// Decides. A node counts as silent after half of its grace: nodes that one cause cuts off fall silent within one interval of
/// their signs, and the first of them must not be lost before the others are missed.
pub fn decide<'a>(nodes: &[Seen<'a>], grace: Duration) -> Verdict<'a> {
    let counted = || nodes.iter().filter(|node| node.counts);
    let silent = counted().filter(|node| node.silence > grace / 2).count();
    // The longest silent first; the state has to call it silent before.
    let candidates = counted().filter(|node| !node.lost && !node.heard && node.silence > grace);
    let longest = |node: &&Seen<'a>| (node.off, node.silence, Reverse(node.uid));
    let Some(first) = candidates.max_by_key(longest) else {
        return Verdict::default();
    };
    let next = Next {
        uid: first.uid,
        confirmed: first.off,
    };
    let held = hold(silent, counted().count()).then(|| Held {
        silent,
        counted: counted().count(),
        longest: first.uid,
        name: first.name,
    });
    Verdict {
        next: Some(next).filter(|next| held.is_none() || next.confirmed),
        held,
    }
}

/// Why no node is lost, if the brakes hold, as a sentence: by what the state says alone, so any manager can tell. A node that is
/// not heard counts as silent.
pub fn held(state: &State, now: &Time) -> Option<String> {
    if state.feature_level() < LOSS {
        return None;
    }
    let seen: Vec<_> = state
        .list::<Node>(None)
        .map(|node| {
            let silence = if is_heard(node) {
                Duration::ZERO
            } else {
                Duration::MAX
            };
            Seen::of(node, silence, now)
        })
        .collect();
    let held = decide(&seen, Duration::ZERO).held?;
    Some(held.to_string())
}

#[cfg(test)]
mod tests;
