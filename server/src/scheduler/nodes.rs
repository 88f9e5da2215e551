//! Nodes as the scheduler sees them: what they offer and what is taken, and a log of which changed.

use super::{class::Class, cluster::ClassId};
use crate::controllers::taints;
use barge_proto::v1::{Node, Taint};
use barge_state::node_is_ready;
use barge_state::{Kind, PortsInUse, Usage};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// A node for as long as the scheduler knows it; never given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

/// What matters about a node.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// The uid of its record.
    pub uid: String,
    /// Its name, the last tie-break.
    pub name: Arc<str>,
    /// Whether its agent is heard.
    pub ready: bool,
    /// Whether new pods are kept away.
    pub unschedulable: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What pods may use.
    pub allocatable: Usage,
    /// What its pods, and those on their way to it, reserve.
    pub allocated: Usage,
    /// What they count as when nodes are scored.
    pub counted: Usage,
    /// The ports that they claim.
    pub ports: PortsInUse,
    /// Whether there is a record of it: pods may be bound to a node that is gone.
    known: bool,
    alike: BTreeMap<ClassId, u32>,
}

impl NodeInfo {
    /// How many pods of a class are there.
    pub fn alike(&self, class: ClassId) -> u32 {
        self.alike.get(&class).copied().unwrap_or(0)
    }

    fn unknown(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            name: Arc::from(""),
            ready: false,
            unschedulable: false,
            taints: Vec::new(),
            labels: BTreeMap::new(),
            allocatable: Usage::default(),
            allocated: Usage::default(),
            counted: Usage::default(),
            ports: PortsInUse::default(),
            known: false,
            alike: BTreeMap::new(),
        }
    }
}

/// All nodes.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: HashMap<NodeId, NodeInfo>,
    by_uid: HashMap<String, NodeId>,
    next: u64,
    log: VecDeque<NodeId>,
    log_start: u64,
}

impl Nodes {
    /// A node that there is a record of.
    pub fn get(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(&id).filter(|node| node.known)
    }

    /// The ids of nodes that there is a record of.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.known)
            .map(|(id, _)| *id)
    }

    /// The node with that uid, made up if there is no record of it.
    pub fn id(&mut self, uid: &str) -> NodeId {
        if let Some(id) = self.by_uid.get(uid) {
            return *id;
        }
        let id = NodeId(self.next);
        self.next += 1;
        self.by_uid.insert(uid.to_owned(), id);
        self.nodes.insert(id, NodeInfo::unknown(uid));
        id
    }

    /// Takes over a record.
    pub fn set(&mut self, record: &Node) {
        let id = self.id(record.uid());
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let meta = record.meta();
        let ready = node_is_ready(record);
        let cordoned = record.spec.as_ref().is_some_and(|spec| spec.unschedulable);
        let unschedulable = cordoned || record.meta().deletion_timestamp.is_some();
        let taints = taints::of(record);
        let allocatable = Usage::allocatable(record);
        let same = node.known
            && node.ready == ready
            && node.unschedulable == unschedulable
            && node.taints == taints
            && node.allocatable == allocatable
            && node.labels == meta.labels;
        if same {
            return;
        }
        node.known = true;
        node.name = Arc::from(meta.name.as_str());
        node.ready = ready;
        node.unschedulable = unschedulable;
        node.taints = taints.to_vec();
        node.allocatable = allocatable;
        node.labels.clone_from(&meta.labels);
        self.touch(id);
    }

    /// The record is gone.
    pub fn remove(&mut self, uid: &str) {
        let id = self.id(uid);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.known = false;
        }
        self.touch(id);
        self.forget_unused(id);
    }

    /// A pod is there from now on.
    pub fn occupy(&mut self, id: NodeId, class_id: ClassId, class: &Class) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.allocated = node.allocated.plus(class.request);
        node.counted = node.counted.plus(class.counted);
        node.ports.add(&class.ports);
        *node.alike.entry(class_id).or_default() += 1;
        self.touch(id);
    }

    /// A pod is no longer there.
    pub fn vacate(&mut self, id: NodeId, class_id: ClassId, class: &Class) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.allocated = node.allocated.minus(class.request);
        node.counted = node.counted.minus(class.counted);
        node.ports.remove(&class.ports);
        if let Some(alike) = node.alike.get_mut(&class_id) {
            *alike = alike.saturating_sub(1);
            if *alike == 0 {
                node.alike.remove(&class_id);
            }
        }
        self.touch(id);
        self.forget_unused(id);
    }

    fn forget_unused(&mut self, id: NodeId) {
        let unused = |node: &NodeInfo| !node.known && node.alike.is_empty();
        if self.nodes.get(&id).is_some_and(unused)
            && let Some(node) = self.nodes.remove(&id)
        {
            self.by_uid.remove(&node.uid);
        }
    }

    fn touch(&mut self, id: NodeId) {
        self.log.push_back(id);
        // A follower that is further behind starts afresh.
        let limit = self.nodes.len().max(1024);
        while self.log.len() > limit {
            self.log.pop_front();
            self.log_start += 1;
        }
    }

    /// Nodes that changed after a position in the log, each once; None when that is too long ago to
    /// know.
    pub fn changed_since(&self, position: u64) -> Option<BTreeSet<NodeId>> {
        let skip = usize::try_from(position.checked_sub(self.log_start)?).ok()?;
        Some(self.log.iter().skip(skip).copied().collect())
    }

    /// The position after all that has changed so far.
    pub fn log_end(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }
}
