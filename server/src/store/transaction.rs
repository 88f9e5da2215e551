//! Builds transactions.

use barge_proto::v1::{
    Change, Event, Made, ObjectMeta, Precondition, RecordRef, RequestRecord, TerminatePod, Time,
    Transaction, change::Change as Body, precondition::Must,
};
use barge_state::{Kind, ORDER, RecordKind, State, made::next_plan};

use crate::runtime::clock;

/// A transaction in the making, of a client's request or of a loop of the leader. It knows which feature level it needs; time and id are
/// stamped when it is built.
#[derive(Debug, Clone, Default, PartialEq)]
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

    /// What it changes.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether it is applied whatever the state is.
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        self.preconditions.is_empty()
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

    /// Demands that the record of this name is still this one, however it changed.
    pub fn same<K: Kind>(&mut self, record: &K) {
        self.must(by_name(record), Must::Uid(record.uid().to_owned()));
    }

    /// Demands that the record of this name still has this generation: its wanted state did not change.
    pub fn same_generation<K: Kind>(&mut self, record: &K) {
        self.must(by_name(record), Must::Generation(record.meta().generation));
    }

    /// Demands that the record of that reference is as its metadata says.
    pub fn unchanged_since(&mut self, target: RecordRef, meta: &ObjectMeta) {
        let revision = meta.resource_version.parse().unwrap_or_default();
        self.must(target, Must::Revision(revision));
    }

    /// Demands that the latest records of kind `K` that a plan made for this owner are those in `state`, or that none are left. Returns
    /// the plan after that, with a random `salt`; [`barge_state::made::made_uid`] puts it into the uids of what it makes. While not all managers
    /// understand that, it demands nothing and returns None.
    #[must_use]
    pub fn made<K: Kind, O: Kind>(&mut self, state: &State, owner: &O, salt: u16) -> Option<u64> {
        if state.feature_level() < ORDER {
            return None;
        }
        let plan = state.latest_plan::<K>(owner.uid());
        let kind = number(K::KIND);
        self.must(by_uid::<O>(owner.uid()), Must::Made(Made { kind, plan }));
        Some(next_plan(plan, salt))
    }

    fn must(&mut self, target: RecordRef, must: Must) {
        self.needs(barge_state::demanded(&must));
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

    /// Ends a pod with its own grace period.
    pub fn terminate(&mut self, uid: &str, reason: &str) {
        self.change(Body::TerminatePod(TerminatePod {
            uid: uid.to_owned(),
            grace_period_seconds: None,
            reason: reason.to_owned(),
        }));
    }

    /// Records an event.
    pub fn event(&mut self, event: Event) {
        self.change(Body::RecordEvent(event));
    }

    /// Adds any other change.
    pub fn change(&mut self, change: Body) {
        self.needs(barge_state::needed(&change));
        self.changes.push(Change {
            change: Some(change),
        });
    }

    /// Stamps it, for a client's request.
    #[must_use]
    pub fn build(self, principal: String, request: Option<RequestRecord>) -> Transaction {
        let id = clock::new_id().as_bytes().to_vec();
        Transaction {
            request,
            ..self.build_at(principal, id, clock::now(), 0)
        }
    }

    /// Stamps it, for a leader's loop: it is refused in any other term, unless that is 0.
    #[must_use]
    pub fn build_at(self, principal: String, id: Vec<u8>, time: Time, term: u64) -> Transaction {
        Transaction {
            id,
            principal,
            time: Some(time),
            term,
            preconditions: self.preconditions,
            changes: self.changes,
            request: None,
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

fn by_name<K: Kind>(record: &K) -> RecordRef {
    let meta = record.meta();
    named::<K>(&meta.namespace, &meta.name)
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
