//! The pool of shapes, which pods share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use barge_proto::v1::PodRecord;
use prost::Message;

use super::PackedPod;

/// Below this number the pool does not look for unused shapes.
pub(super) const FEW: usize = 1024;

/// Shapes and uids of nodes, each once. What no pod uses any more goes when twice as much has come as was in use.
///
/// Which pods share what has no effect on anything but memory.
#[derive(Debug, Default)]
pub struct Pool {
    /// By their encoded bytes.
    shapes: BTreeMap<Box<[u8]>, Arc<PodRecord>>,
    nodes: BTreeSet<Arc<str>>,
    in_use: usize,
}

impl Pool {
    /// The same pod, with what it has in common with others shared.
    pub fn share(&mut self, mut pod: PackedPod) -> PackedPod {
        let key = pod.shape.encode_to_vec();
        match self.shapes.get(key.as_slice()) {
            Some(known) => pod.shape = known.clone(),
            None => {
                self.shapes.insert(key.into(), pod.shape.clone());
            }
        }
        match self.nodes.get(pod.node.as_ref()) {
            Some(known) => pod.node = known.clone(),
            None => {
                self.nodes.insert(pod.node.clone());
            }
        }
        if self.len() > FEW && self.len() > 2 * self.in_use {
            self.sweep();
        }
        pod
    }

    fn sweep(&mut self) {
        self.shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
        self.nodes.retain(|node| Arc::strong_count(node) > 1);
        self.in_use = self.len();
    }

    pub(super) fn len(&self) -> usize {
        self.shapes.len() + self.nodes.len()
    }
}
