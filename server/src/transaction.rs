//! Putting transactions together.

use barge_proto::v1::{
    Change, ObjectMeta, Precondition, RecordRef, RequestRecord, Transaction,
    change::Change as Body, precondition::Must,
};
use barge_state::{Kind, RecordKind};

use crate::clock;

/// A transaction in the making, stamped with time and id when it is built.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    preconditions: Vec<Precondition>,
    changes: Vec<Change>,
    level: u32,
}

impl Draft {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Demands that there is no record of this name.
    pub fn absent<K: Kind>(&mut self, namespace: &str, name: &str) {
        self.must(named::<K>(namespace, name), Must::Absent(true));
    }

    /// Demands that there is a record of this name.
    pub fn exists<K: Kind>(&mut self, namespace: &str, name: &str) {
        self.must(named::<K>(namespace, name), Must::Exists(true));
    }

    /// Demands that this very record is still there, unchanged since it was read.
    pub fn unchanged<K: Kind>(&mut self, record: &K) {
        self.must(by_uid::<K>(record.uid()), Must::Revision(record.revision()));
    }

    /// Demands that the record of that reference is as its metadata says.
    pub fn unchanged_since(&mut self, target: RecordRef, meta: &ObjectMeta) {
        let revision = meta.resource_version.parse().unwrap_or_default();
        self.must(target, Must::Revision(revision));
    }

    fn must(&mut self, target: RecordRef, must: Must) {
        self.preconditions.push(Precondition {
            target: Some(target),
            must: Some(must),
        });
    }

    /// Says that it means something to managers of this feature level only.
    pub fn needs(&mut self, level: u32) {
        self.level = self.level.max(level);
    }

    /// Creates or replaces a record.
    pub fn put<K: Kind>(&mut self, record: K) {
        self.needs(K::KIND.level());
        self.change(Body::Put(record.into_record()));
    }

    /// Replaces a record's status.
    pub fn put_status<K: Kind>(&mut self, record: K) {
        self.change(Body::PutStatus(record.into_record()));
    }

    /// Removes a record.
    pub fn remove<K: Kind>(&mut self, uid: &str) {
        self.change(Body::Remove(by_uid::<K>(uid)));
    }

    /// Adds any other change.
    pub fn change(&mut self, change: Body) {
        self.needs(barge_state::needed(&change));
        self.changes.push(Change {
            change: Some(change),
        });
    }

    /// Stamps it.
    #[must_use]
    pub fn build(self, principal: String, request: Option<RequestRecord>) -> Transaction {
        Transaction {
            id: clock::new_id().as_bytes().to_vec(),
            principal,
            time: Some(clock::now()),
            term: 0,
            preconditions: self.preconditions,
            changes: self.changes,
            request,
            feature_level: self.level,
        }
    }
}

fn named<K: Kind>(namespace: &str, name: &str) -> RecordRef {
    RecordRef {
        kind: number(K::KIND),
        uid: String::new(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn by_uid<K: Kind>(uid: &str) -> RecordRef {
    RecordRef {
        kind: number(K::KIND),
        uid: uid.to_owned(),
        ..RecordRef::default()
    }
}

fn number(kind: RecordKind) -> u32 {
    u32::from(kind as u8)
}
