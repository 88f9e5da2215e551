//! Which nodes a pod can go to.

use super::cluster::{Class, NodeInfo};
use crate::controllers::taints;
use barge_state::NO_FREE_PORTS;
use std::{collections::BTreeMap, fmt};

/// Why a node can't take a pod. The order is that of explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its agent isn't heard.
    NotReady,
    /// It is cordoned.
    Unschedulable,
    /// It has a taint that the pod does not tolerate.
    Taint,
    /// It hasn't the labels that the pod asks for.
    NodeSelector,
    /// Pods there claim a port that this one claims, too.
    Ports,
    /// It has as many pods as it may.
    TooManyPods,
    /// Not enough processor time is left.
    Cpu,
    /// Not enough memory is left.
    Memory,
    /// Not enough of the disk is left.
    Storage,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::NotReady,
        Self::Unschedulable,
        Self::Taint,
        Self::NodeSelector,
        Self::Ports,
        Self::TooManyPods,
        Self::Cpu,
        Self::Memory,
        Self::Storage,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "node(s) were not ready",
            Self::Unschedulable => "node(s) were unschedulable",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::NodeSelector => "node(s) did not match node selector",
            Self::Ports => NO_FREE_PORTS,
            Self::TooManyPods => "too many pods",
            Self::Cpu => "insufficient cpu",
            Self::Memory => "insufficient memory",
            Self::Storage => "insufficient ephemeral-storage",
        })
    }
}

/// A small set of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons(u16);

impl Reasons {
    /// Adds one.
    pub fn insert(&mut self, reason: Reason) {
        self.0 |= 1 << reason as u8;
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in it, in order.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL
            .into_iter()
            .filter(move |reason| self.0 & (1 << *reason as u8) != 0)
    }
}

/// Why a node can't take a pod of this class; empty when it can. The state of the node and its
/// labels come first and alone, as in Kubernetes: what a node lacks matters only if the pod could
/// go there at all.
pub fn refusals(class: &Class, node: &NodeInfo) -> Reasons {
    let mut reasons = Reasons::default();
    let single = if !node.ready {
        Some(Reason::NotReady)
    } else if node.unschedulable {
        Some(Reason::Unschedulable)
    } else if !tolerates(class, node) {
        Some(Reason::Taint)
    } else if !matches(&class.node_selector, &node.labels) {
        Some(Reason::NodeSelector)
    } else {
        None
    };
    if let Some(reason) = single {
        reasons.insert(reason);
        return reasons;
    }
    if !node.ports.has_room(&class.ports) {
        reasons.insert(Reason::Ports);
    }
    let free = node.allocatable.minus(node.allocated);
    let request = class.request;
    if request.pods > free.pods {
        reasons.insert(Reason::TooManyPods);
    }
    // A pod that asks for nothing fits a node that is overcommitted, as it does when the state
    // checks it.
    if request.cpu_milli > 0 && request.cpu_milli > free.cpu_milli {
        reasons.insert(Reason::Cpu);
    }
    if request.memory_bytes > 0 && request.memory_bytes > free.memory_bytes {
        reasons.insert(Reason::Memory);
    }
    if request.storage_bytes > 0 && request.storage_bytes > free.storage_bytes {
        reasons.insert(Reason::Storage);
    }
    reasons
}

fn tolerates(class: &Class, node: &NodeInfo) -> bool {
    let mut taints = node.taints.iter();
    taints.all(|taint| taints::admits(&class.tolerations, taint))
}

fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// How many nodes each reason refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([usize; Reason::ALL.len()]);

impl Counts {
    /// Counts a node.
    pub fn add(&mut self, reasons: Reasons) {
        for reason in reasons.iter() {
            self.0[reason as usize] += 1;
        }
    }

    /// No longer counts a node.
    pub fn remove(&mut self, reasons: Reasons) {
        for reason in reasons.iter() {
            self.0[reason as usize] -= 1;
        }
    }

    /// A sentence for people: "0/3 nodes are available: 2 insufficient memory, 1 node(s) did not
    /// match node selector". The reason that refused most nodes comes first.
    pub fn explain(&self, nodes: usize) -> String {
        if nodes == 0 {
            return "no nodes are available: none has joined the cluster".to_owned();
        }
        let mut parts: Vec<_> = Reason::ALL
            .into_iter()
            .map(|reason| (self.0[reason as usize], reason))
            .filter(|(count, _)| *count > 0)
            .collect();
        parts.sort_by_key(|(count, reason)| (std::cmp::Reverse(*count), *reason));
        let parts: Vec<_> = parts
            .iter()
            .map(|(count, reason)| format!("{count} {reason}"))
            .collect();
        format!("0/{nodes} nodes are available: {}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_explanation_names_every_reason_most_frequent_first() {
        let mut counts = Counts::default();
        let reasons = |list: &[Reason]| {
            let mut reasons = Reasons::default();
            list.iter().for_each(|reason| reasons.insert(*reason));
            reasons
        };
        counts.add(reasons(&[Reason::NodeSelector]));
        counts.add(reasons(&[Reason::Memory, Reason::Cpu]));
        counts.add(reasons(&[Reason::Memory]));
        assert_eq!(
            counts.explain(3),
            "0/3 nodes are available: 2 insufficient memory, 1 node(s) did not match node selector, 1 insufficient cpu"
        );
        counts.remove(reasons(&[Reason::Memory, Reason::Cpu]));
        assert_eq!(
            counts.explain(2),
            "0/2 nodes are available: 1 node(s) did not match node selector, 1 insufficient memory"
        );
    }

    #[test]
    fn a_cluster_without_nodes_says_so() {
        assert!(Counts::default().explain(0).contains("none has joined"));
    }
}
