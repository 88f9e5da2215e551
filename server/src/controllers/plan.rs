//! The parts of a controller's plan.

use super::stamp::Stamp;
use crate::store::transaction::Draft;
use barge_proto::v1::{
    Event, EventSource, Namespace, ObjectMeta, ObjectReference, OwnerReference, RecordRef,
};
use barge_state::{Kind, PackedPod, State};
use std::time::Duration;

/// At most this many pods are created, ended or bound by one transaction, so that a large
/// Deployment neither holds up the log nor makes an entry that is too large to send.
pub const MAX_BATCH: usize = 500;

/// What one look at the state says should be done. The default is nothing.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Plan {
    /// The changes, applied all or none, and what must still hold then.
    pub draft: Draft,
    /// When to look again even though nothing has changed: a deadline, or (zero) the next batch.
    pub again: Option<Duration>,
}

impl Plan {
    /// Asks for another look after that time, or earlier.
    pub fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |other| other.min(after)));
    }
}

/// Whether an object is being deleted, by itself or with its namespace: nothing is made for it any more.
pub fn is_going(state: &State, meta: &ObjectMeta) -> bool {
    let namespace = state.get::<Namespace>("", &meta.namespace);
    let ends = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
    ends(meta) || namespace.is_some_and(|namespace| ends(namespace.meta()))
}

/// Names a record.
pub fn reference<K: barge_state::Kept>(record: &K) -> RecordRef {
    RecordRef {
        kind: K::Message::KIND.number(),
        uid: record.uid().to_owned(),
        namespace: record.namespace().to_owned(),
        name: record.name().to_owned(),
    }
}

/// A reference to an object, for events and endpoints.
pub fn object_reference(api_version: &str, kind: &str, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}

/// A reference to a pod, without unpacking it.
pub fn pod_reference(pod: &PackedPod) -> ObjectReference {
    ObjectReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        ..ObjectReference::default()
    }
}

/// The reference from what a controller made to the object it was made for.
pub fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The ordinary course of things.
    Normal,
    /// Something for a person to look at.
    Warning,
}

/// An event about an object, seen once, now. The state gives it its name and namespace.
pub fn event(
    stamp: &mut Stamp,
    component: &str,
    about: ObjectReference,
    severity: Severity,
    reason: &str,
    message: String,
) -> Event {
    Event {
        metadata: Some(ObjectMeta {
            uid: stamp.uid(),
            ..ObjectMeta::default()
        }),
        involved_object: Some(about),
        reason: reason.to_owned(),
        message,
        source: Some(EventSource {
            component: component.to_owned(),
            host: String::new(),
        }),
        first_timestamp: Some(stamp.now),
        last_timestamp: Some(stamp.now),
        count: 1,
        r#type: match severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
        .to_owned(),
        ..Event::default()
    }
}
