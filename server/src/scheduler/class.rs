//! A class: the pods of one revision. They are alike, so which nodes fit is computed once for all of them, and again only
//! for nodes that changed.

use super::{
    cluster::{ClassId, NodeId, Nodes},
    filter::{self, Counts, Reasons},
    score::{self, Score},
};
use barge_proto::{
    host_ports::HostPort,
    v1::{Revision, Toleration},
};
use barge_state::{Usage, claimed};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// What the pods of one revision ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// What one of them reserves.
    pub request: Usage,
    /// What one of them counts as when nodes are scored.
    pub counted: Usage,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not keep it away.
    pub tolerations: Vec<Toleration>,
    /// Ports that it claims of its node.
    pub ports: Vec<HostPort>,
}

impl Class {
    /// The class of pods made from that template.
    pub fn of(revision: &Revision) -> Self {
        let spec = revision
            .template
            .as_ref()
            .and_then(|template| template.spec.as_ref());
        let request = spec.map_or(Self::unknown().request, Usage::of_spec);
        Self {
            request,
            counted: score::counted(request),
            node_selector: spec.map_or_else(BTreeMap::new, |spec| spec.node_selector.clone()),
            tolerations: spec.map_or_else(Vec::new, |spec| spec.tolerations.clone()),
            ports: spec.map_or_else(Vec::new, claimed),
        }
    }

    /// What a pod counts as whose template isn't known: the state counts it so, too.
    pub fn unknown() -> Self {
        let request = Usage {
            pods: 1,
            ..Usage::default()
        };
        Self {
            request,
            counted: score::counted(request),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            ports: Vec::new(),
        }
    }
}

/// A node that can take a pod; the least one is the best. The order of the fields is the policy: the least required over available,
/// then the fewest pods of the same revision, then the fewest pods, then the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    score: Score,
    /// Pods of the same revision that are there.
    alike: u32,
    /// Pods that are there.
    pods: i64,
    name: Arc<str>,
    node: NodeId,
}

#[derive(Debug)]
enum Verdict {
    Fits(Rank),
    Refused(Reasons),
}

/// What each node means to a class, kept up to date from the log of nodes that changed.
#[derive(Debug, Default)]
pub struct View {
    /// How far in the log this has come; None before the first look.
    seen: Option<u64>,
    verdicts: HashMap<NodeId, Verdict>,
    fitting: BTreeSet<Rank>,
    refused: Counts,
}

impl View {
    /// The best node for a pod of the class; None when none can take it.
    pub fn best(&mut self, id: ClassId, class: &Class, nodes: &Nodes) -> Option<NodeId> {
        self.refresh(id, class, nodes);
        self.fitting.first().map(|rank| rank.node)
    }

    /// Why no node can take a pod, as of the last look.
    pub fn explain(&self) -> String {
        self.refused.explain(self.verdicts.len())
    }

    fn refresh(&mut self, id: ClassId, class: &Class, nodes: &Nodes) {
        #[cfg(test)]
        assert!(!class.node_selector.contains_key(super::tests::POISON));
        match self.seen.and_then(|seen| nodes.changed_since(seen)) {
            Some(changed) => {
                for node in changed {
                    self.update(id, class, nodes, node);
                }
            }
            // It never looked, or so long ago that the log has forgotten.
            None => {
                *self = Self::default();
                for node in nodes.ids() {
                    self.update(id, class, nodes, node);
                }
            }
        }
        self.seen = Some(nodes.log_end());
    }

    fn update(&mut self, id: ClassId, class: &Class, nodes: &Nodes, node: NodeId) {
        match self.verdicts.remove(&node) {
            Some(Verdict::Fits(rank)) => {
                self.fitting.remove(&rank);
            }
            Some(Verdict::Refused(reasons)) => self.refused.remove(reasons),
            None => {}
        }
        let Some(info) = nodes.get(node) else {
            return;
        };
        let reasons = filter::refusals(class, info);
        let verdict = if reasons.is_empty() {
            let rank = Rank {
                score: Score::of(class, info),
                alike: info.alike(id),
                pods: info.allocated.pods,
                name: info.name.clone(),
                node,
            };
            self.fitting.insert(rank.clone());
            Verdict::Fits(rank)
        } else {
            self.refused.add(reasons);
            Verdict::Refused(reasons)
        };
        self.verdicts.insert(node, verdict);
    }
}
