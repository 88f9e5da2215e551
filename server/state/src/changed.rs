//! One change of one record, as `apply` reports it to the disk and to watchers.

use std::{borrow::Cow, sync::Arc};

use barge_proto::{
    selector::Labels,
    v1::{PodRecord, Revision},
};

use crate::{
    kind::{Kind, RecordKind, Stored},
    labels,
    packed::PackedPod,
};

/// What a change takes besides its records, in bytes: itself, its size, and its share of a block.
const OVERHEAD: usize = size_of::<Changed>() + 16;

/// A record before and after it changed. At least one of the two is present, and both are of one kind,
/// uid and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The revision of the change; no other change has it.
    pub revision: u64,
    /// Absent when the record was created.
    pub before: Option<Stored>,
    /// Absent when the record was removed.
    pub after: Option<Stored>,
    /// For pods, the template: it may be gone from the state by the time that the change is shown.
    pub template: Option<Arc<Revision>>,
}

/// What is kept of a record of some kind before and after a change.
type BeforeAndAfter<'a, K> = (
    Option<&'a Arc<<K as Kind>::Kept>>,
    Option<&'a Arc<<K as Kind>::Kept>>,
);

impl Changed {
    /// The record after the change, or as it was when it was removed.
    pub fn record(&self) -> Option<&Stored> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// The kind of the record; absent only for a change without any.
    pub fn kind(&self) -> Option<RecordKind> {
        self.record().map(Stored::kind)
    }

    /// The record's uid.
    pub fn uid(&self) -> &str {
        self.record().map_or("", Stored::uid)
    }

    /// The record's namespace; empty for kinds that have none.
    pub fn namespace(&self) -> &str {
        self.record().map_or("", Stored::namespace)
    }

    /// The record's name.
    pub fn name(&self) -> &str {
        self.record().map_or("", Stored::name)
    }

    /// The nodes a pod was bound to before and is bound to after the change; for nodes, the node itself; for tombstones, the node that
    /// the pod was bound to.
    pub fn node_uids(&self) -> impl Iterator<Item = &str> {
        let before = self.before.as_ref().and_then(Stored::node_uid);
        let after = self.after.as_ref().and_then(Stored::node_uid);
        before
            .into_iter()
            .chain(after.filter(move |after| before != Some(*after)))
    }

    /// Nearly what keeping it takes in memory, in bytes.
    ///
    /// A version of a record is kept by the change that made it and by the one that replaced it, and each counts half of it. The state has the newest
    /// one anyway, but then no change may have counted the one before the first of these changes. A removed record counts whole: the change
    /// that made its last version may be long gone.
    pub fn size(&self) -> usize {
        let size = |record: &Option<Stored>| record.as_ref().map_or(0, Stored::size);
        let (before, after) = (size(&self.before), size(&self.after));
        OVERHEAD
            + match self.after {
                Some(_) => before.midpoint(after),
                None => before,
            }
    }

    /// The record as a type, before and after; both absent when it is of another kind.
    pub fn of<K: Kind>(&self) -> BeforeAndAfter<'_, K> {
        let before = self.before.as_ref().and_then(K::from_stored);
        (before, self.after.as_ref().and_then(K::from_stored))
    }

    /// The labels of a pod before and after, only the latter where they are the same; none when it is no pod.
    pub fn labels(&self) -> [Option<Cow<'_, Labels>>; 2] {
        let (mut before, after) = self.of::<PodRecord>();
        if let (Some(old), Some(new)) = (before, after)
            && old.own_labels() == new.own_labels()
        {
            before = None;
        }
        let labels = |pod: &Arc<PackedPod>| labels::of_pod(pod, self.template.as_deref());
        [before.map(labels), after.map(labels)]
    }

    /// Where the record lives on disk; see [`Stored::key`].
    pub fn key(&self) -> Vec<u8> {
        self.record().map(Stored::key).unwrap_or_default()
    }
}

impl Stored {
    /// A key among all records: the kind's number in one byte, then the uid.
    pub fn key(&self) -> Vec<u8> {
        let uid = self.uid().as_bytes();
        let mut key = Vec::with_capacity(uid.len() + 1);
        key.push(self.kind() as u8);
        key.extend_from_slice(uid);
        key
    }

    /// The node that a pod is bound to, or a tombstone waits for, or the uid of a node.
    pub fn node_uid(&self) -> Option<&str> {
        match self {
            Stored::Pod(pod) => Some(pod.node_uid()).filter(|uid| !uid.is_empty()),
            Stored::Node(node) => Some(node.uid()),
            Stored::PodTombstone(tombstone) => Some(&tombstone.node_uid),
            _ => None,
        }
    }
}
