//! Pods as the state keeps them in memory: packed, because there may be a million of them.
//!
//! Nearly all of a pod's record is the same in many pods: the owner, the template, the image, the phase, which conditions
//! there are and what they say. So a record is taken apart into its *shape*, which pods share, and its *leaves*, in
//! which they differ: names, addresses, times. A shape is a `PodRecord` whose leaves are blank. A field that is not
//! known as a leaf is part of the shape, so no field is lost; an unusual value only costs its pod a shape of its own.

mod leaves;
mod pool;

use std::{mem, sync::Arc};

use barge_proto::Heap as _;
use barge_proto::v1::{ObjectMeta, OwnerReference, PodRecord, PodStatus, Time};

pub use pool::Pool;

use crate::{kind::Kind, labels::Own};

/// A pod, packed. Cheap to look at, and made into a record again by [`PackedPod::record`].
#[derive(Clone, Debug)]
pub struct PackedPod {
    shape: Arc<PodRecord>,
    node: Arc<str>,
    /// The uid, then the name: in the clear, because pods are looked up and compared by them.
    text: Box<str>,
    uid_len: u32,
    leaves: Box<[u8]>,
    /// 0 where the shape has the resource version.
    revision: u64,
}

impl PackedPod {
    /// Packs a record. What it has in common with others is shared once it went through a pool.
    pub fn new(mut record: PodRecord) -> PackedPod {
        let node = mem::take(&mut record.node_uid).into();
        let (mut text, mut uid_len, mut revision) = (String::new(), 0, 0);
        if let Some(meta) = &mut record.metadata {
            text = mem::take(&mut meta.uid);
            uid_len = text.len();
            if let Some(number) = canonical(&meta.resource_version) {
                revision = number;
                meta.resource_version.clear();
            }
        }
        let leaves = leaves::take(&mut record, &text);
        if let Some(meta) = &mut record.metadata {
            text.push_str(&mem::take(&mut meta.name));
        }
        PackedPod {
            shape: Arc::new(record),
            node,
            text: text.into(),
            // A message has at most 2^31 bytes.
            uid_len: u32::try_from(uid_len).unwrap_or_default(),
            leaves,
            revision,
        }
    }

    /// The whole record.
    pub fn record(&self) -> PodRecord {
        let mut record = self.shape.as_ref().clone();
        leaves::give(&mut record, self.uid(), &self.leaves);
        record.node_uid = self.node.as_ref().to_owned();
        if let Some(meta) = &mut record.metadata {
            self.uid().clone_into(&mut meta.uid);
            self.name().clone_into(&mut meta.name);
            if self.revision != 0 {
                meta.resource_version = self.revision.to_string();
            }
        }
        record
    }

    /// The metadata of the record.
    pub fn meta(&self) -> ObjectMeta {
        self.record().metadata.unwrap_or_default()
    }

    /// The status of the record; an empty one when it has none.
    pub fn status(&self) -> PodStatus {
        self.record().status.unwrap_or_default()
    }

    /// The uid.
    pub fn uid(&self) -> &str {
        self.text.get(..self.uid_len as usize).unwrap_or_default()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.text.get(self.uid_len as usize..).unwrap_or_default()
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.shape.meta().namespace
    }

    /// What it belongs to.
    pub fn owners(&self) -> &[OwnerReference] {
        &self.shape.meta().owner_references
    }

    /// What has to be done before it may go.
    pub fn finalizers(&self) -> &[String] {
        &self.shape.meta().finalizers
    }

    /// Whether an owner counts it as its own, and makes another one when it goes.
    pub fn has_controller(&self) -> bool {
        let mut owners = self.owners().iter();
        owners.any(|owner| owner.controller == Some(true))
    }

    /// How its labels differ from those of its template.
    pub fn own_labels(&self) -> Own<'_> {
        Own {
            set: &self.shape.meta().labels,
            removed: &self.shape.removed_labels,
        }
    }

    /// How its annotations differ from those of its template.
    pub fn own_annotations(&self) -> Own<'_> {
        Own {
            set: &self.shape.meta().annotations,
            removed: &self.shape.removed_annotations,
        }
    }

    /// The uid of the Revision that it was made from.
    pub fn template_uid(&self) -> &str {
        &self.shape.template_uid
    }

    /// The uid of the node that it is bound to; empty until then.
    pub fn node_uid(&self) -> &str {
        &self.node
    }

    /// Whether it is bound to a node.
    pub fn is_bound(&self) -> bool {
        !self.node.is_empty()
    }

    /// The phase; empty until an agent has reported one.
    pub fn phase(&self) -> &str {
        let status = self.shape.status.as_ref();
        status.map_or("", |status| &status.phase)
    }

    /// Whether its deletion was requested.
    pub fn is_terminating(&self) -> bool {
        self.shape.meta().deletion_timestamp.is_some()
    }

    /// Whether it is lost with its node: it may run or not.
    pub fn is_lost(&self) -> bool {
        self.shape.lost.is_some()
    }

    /// The deadline by which it has to end, and its grace period in seconds; absent until its deletion was requested.
    pub fn deletion(&self) -> Option<(Time, Option<i64>)> {
        let grace = self.shape.meta().deletion_grace_period_seconds;
        let deadline = self.is_terminating().then(|| self.first().deletion)?;
        deadline.map(|deadline| (deadline, grace))
    }

    /// Whether its condition of this type is True.
    pub fn has_condition(&self, kind: &str) -> bool {
        let mut conditions = self
            .shape
            .status
            .iter()
            .flat_map(|status| &status.conditions);
        let found = conditions.find(|condition| condition.r#type == kind);
        found.is_some_and(|condition| condition.status == "True")
    }

    /// The sum of its containers' restarts.
    pub fn restarts(&self) -> i64 {
        let status = self.shape.status.as_ref();
        let containers = status.into_iter().flat_map(|status| {
            let init = &status.init_container_statuses;
            init.iter().chain(&status.container_statuses)
        });
        containers
            .map(|container| i64::from(container.restart_count))
            .sum()
    }

    /// When it was created.
    pub fn created(&self) -> Option<Time> {
        self.first().created
    }

    /// When its condition Ready last became what it is; absent without that condition or its time.
    pub fn ready_transition(&self) -> Option<Time> {
        self.first().ready
    }

    /// Its address; empty before it has one.
    pub fn pod_ip(&self) -> String {
        self.first().pod_ip
    }

    fn first(&self) -> leaves::First {
        leaves::first(&self.shape, self.uid(), &self.leaves)
    }

    /// The size of its shape when no other pod shares it, in bytes.
    pub(crate) fn unshared_size(&self) -> usize {
        // Its own, and the pool's.
        match Arc::strong_count(&self.shape) {
            0..=2 => size_of::<PodRecord>() + self.shape.heap(),
            _ => 0,
        }
    }

    /// Nearly what it takes in memory, in bytes, without what it shares.
    pub fn size(&self) -> usize {
        size_of::<PackedPod>() + self.text.len() + self.leaves.len()
    }
}

impl PartialEq for PackedPod {
    fn eq(&self, other: &PackedPod) -> bool {
        self.revision == other.revision
            && self.uid_len == other.uid_len
            && self.text == other.text
            && self.leaves == other.leaves
            && self.node == other.node
            && (Arc::ptr_eq(&self.shape, &other.shape) || self.shape == other.shape)
    }
}

/// The number that a resource version stands for, when it is written as we write it.
fn canonical(version: &str) -> Option<u64> {
    let number = version.parse().ok().filter(|number| *number != 0)?;
    (version == u64::to_string(&number)).then_some(number)
}

#[cfg(test)]
mod tests;
