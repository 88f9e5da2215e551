//! A transaction in progress, with a list of its changes so that `apply` can undo them when it refuses the transaction.

use std::{collections::BTreeSet, mem, sync::Arc};

use barge_proto::v1::{ObjectMeta, OwnerReference, RecordRef, Time};

use super::gone;
use crate::{
    changed::Changed,
    kept::Kept,
    kind::{Kind, RecordKind, Stored},
    level::{LOSS, NODE_TOMBSTONES},
    limits::Limits,
    tables::Tables,
};

/// The tables with the changes that were made so far.
pub struct Work<'a> {
    /// Read them; they are changed by [`Work::write`] and [`Work::delete`] only.
    pub tables: &'a mut Tables,
    /// The transaction's time.
    pub now: Time,
    pub limits: Limits,
    /// Whether removing a bound pod leaves a tombstone: the cluster's feature level is [`LOSS`].
    tombstones: bool,
    /// Whether removing a node leaves one: the level is [`NODE_TOMBSTONES`].
    node_tombstones: bool,
    /// Whether what reaches too many records is marked, and done in slices.
    pub sliced: bool,
    /// Whether the cluster's feature level is [`crate::ORDER`].
    pub ordered: bool,
    /// Answers to requests that are older than this revision are to be forgotten; 0 for none.
    pub forget_requests: u64,
    /// Why Binds were refused, in order.
    pub binds: Vec<String>,
    /// Records that were created; what they refer to has to exist in the end.
    pub created: Vec<(RecordKind, String)>,
    /// Templates that may have lost their last pod.
    pub loose_templates: BTreeSet<String>,
    /// Namespaces that may have lost their last pod.
    pub loose_namespaces: BTreeSet<String>,
    /// Kind and uid of owners that may have lost their last dependant.
    pub loose_owners: BTreeSet<(String, String)>,
    revision: u64,
    changes: Vec<Changed>,
}

impl<'a> Work<'a> {
    pub fn new(
        tables: &'a mut Tables,
        revision: u64,
        time: Option<Time>,
        limits: Limits,
    ) -> Work<'a> {
        let is_at = |level| {
            let mut clusters = tables.clusters.iter();
            clusters.any(|cluster| cluster.feature_level >= level)
        };
        let (tombstones, node_tombstones) = (is_at(LOSS), is_at(NODE_TOMBSTONES));
        Work {
            tables,
            tombstones,
            node_tombstones,
            now: time.unwrap_or_default(),
            limits,
            sliced: false,
            ordered: false,
            forget_requests: 0,
            binds: Vec::new(),
            created: Vec::new(),
            loose_templates: BTreeSet::new(),
            loose_namespaces: BTreeSet::new(),
            loose_owners: BTreeSet::new(),
            revision,
            changes: Vec::new(),
        }
    }

    /// Replaces `before` by `after`, which becomes the next revision.
    pub fn write<K: Kind>(&mut self, before: Option<Arc<K::Kept>>, after: K) {
        let after = self.keep(after);
        self.write_kept::<K>(before, after);
    }

    /// What is kept of a record that is going to be written next.
    pub fn keep<K: Kind>(&mut self, mut record: K) -> Arc<K::Kept> {
        record.meta_mut().resource_version = (self.revision + 1).to_string();
        Arc::new(Kept::keep(record, &mut self.tables.pool))
    }

    /// Replaces `before` by `after`, which was made by [`Work::keep`] just before.
    pub fn write_kept<K: Kind>(&mut self, before: Option<Arc<K::Kept>>, after: Arc<K::Kept>) {
        if let Some(before) = &before
            && before.owners() != after.owners()
        {
            self.loosen(before.owners());
        }
        self.swap(before.map(K::stored), Some(K::stored(after)));
    }

    /// Removes a record, which must be in the tables as it is. A pod that is bound to a node leaves a tombstone; a node takes those
    /// that are left to it along.
    pub fn delete(&mut self, record: Stored) {
        self.delete_confirmed(record.clone());
        match &record {
            Stored::Pod(pod) if self.tombstones => gone::bury(self, pod),
            Stored::Node(node) => {
                gone::forget(self, Kind::uid(node.as_ref()));
                if self.node_tombstones {
                    gone::bury_node(self, node);
                }
            }
            _ => {}
        }
    }

    /// As [`Work::delete`], for a pod of which nothing is left on its node.
    pub fn delete_confirmed(&mut self, record: Stored) {
        if let Stored::Pod(pod) = &record {
            self.loose_templates.insert(pod.template_uid().to_owned());
            self.loose_namespaces.insert(pod.namespace().to_owned());
        }
        self.loosen(record.owners());
        self.swap(Some(record), None);
    }

    /// How many records this transaction may still reach by deleting one.
    pub fn room(&self) -> usize {
        // A pod by itself takes its own template along, whatever was before.
        self.limits.slice.saturating_sub(self.changes.len()).max(1)
    }

    /// What owns this may own nothing any more.
    fn loosen(&mut self, owners: &[OwnerReference]) {
        let owners = owners.iter();
        self.loose_owners
            .extend(owners.map(|owner| (owner.kind.clone(), owner.uid.clone())));
    }

    /// Replaces the metadata of a record, which must be in the tables as it is.
    pub fn write_meta(&mut self, before: Stored, change: impl FnOnce(&mut ObjectMeta)) {
        let revision = self.revision + 1;
        let after = before.with_meta(&mut self.tables.pool, |meta| {
            change(meta);
            meta.resource_version = revision.to_string();
        });
        self.loosen(before.owners());
        self.swap(Some(before), Some(after));
    }

    fn swap(&mut self, before: Option<Stored>, after: Option<Stored>) {
        let template = match before.as_ref().or(after.as_ref()) {
            Some(Stored::Pod(pod)) => self.tables.revisions.by_uid(pod.template_uid()).cloned(),
            _ => None,
        };
        self.tables.swap(before.as_ref(), after.as_ref());
        self.revision += 1;
        self.changes.push(Changed {
            revision: self.revision,
            before,
            after,
            template,
        });
    }

    /// The record that a reference names; see [`crate::State::find`].
    pub fn find(&self, target: &RecordRef) -> Option<Stored> {
        find(self.tables, target)
    }

    /// The revision, the changes and the answers to Binds.
    pub fn finish(self) -> (u64, Vec<Changed>, Vec<String>) {
        (self.revision, self.changes, self.binds)
    }

    /// The revision so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes everything back, and tells what it was.
    pub fn undo(mut self) -> Vec<Changed> {
        let changes = mem::take(&mut self.changes);
        for change in changes.iter().rev() {
            self.tables
                .swap(change.after.as_ref(), change.before.as_ref());
        }
        changes
    }
}

/// The record that a reference names, by uid or else by name; where both are given both have to fit.
pub fn find(tables: &Tables, target: &RecordRef) -> Option<Stored> {
    let kind = RecordKind::from_number(target.kind)?;
    if target.uid.is_empty() {
        return tables.find_name(kind, &target.namespace, &target.name);
    }
    let found = tables.find_uid(kind, &target.uid)?;
    let fits = target.name.is_empty()
        || (target.namespace == found.namespace() && target.name == found.name());
    fits.then_some(found)
}
