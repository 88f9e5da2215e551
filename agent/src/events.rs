//! What happened to objects on this node, for `barge events`: deduplicated and limited per object.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use barge_proto::v1::{EventReport, Node, ObjectReference, Pod, Service};

use crate::{
    clock::{Clock, to_time},
    outbox::Outbox,
};

/// Events an object may have at once …
const BURST: u32 = 25;
/// … and how long until it may have another, in milliseconds.
const REFILL_MS: i64 = 60_000;
/// Objects remembered; beyond that the longest silent is forgotten.
const OBJECTS: usize = 4096;

/// Whether an event is worth somebody's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    outbox: Arc<Outbox>,
    clock: Arc<dyn Clock>,
    buckets: Arc<Mutex<HashMap<String, Bucket>>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    updated_ms: i64,
}

impl Recorder {
    /// A recorder that reports through `outbox`.
    pub fn new(outbox: Arc<Outbox>, clock: Arc<dyn Clock>) -> Self {
        Self {
            outbox,
            clock,
            buckets: Arc::default(),
        }
    }

    /// Something happened to an object.
    pub fn record(
        &self,
        object: ObjectReference,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        let now = self.clock.now_ms();
        let message = message.into();
        tracing::debug!(
            kind = object.kind,
            name = object.name,
            reason,
            message,
            "event"
        );
        if !self.allow(&object.uid, now) {
            return;
        }
        self.outbox.event(EventReport {
            involved_object: Some(object),
            r#type: match severity {
                Severity::Normal => "Normal".into(),
                Severity::Warning => "Warning".into(),
            },
            reason: reason.to_owned(),
            message,
            time: Some(to_time(now)),
        });
    }

    fn allow(&self, uid: &str, now: i64) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= OBJECTS && !buckets.contains_key(uid) {
            let oldest = buckets
                .iter()
                .min_by_key(|(_, bucket)| bucket.updated_ms)
                .map(|(uid, _)| uid.clone());
            oldest.and_then(|uid| buckets.remove(&uid));
        }
        buckets
            .entry(uid.to_owned())
            .or_insert(Bucket {
                tokens: BURST,
                updated_ms: now,
            })
            .take(now)
    }
}

impl Bucket {
    fn take(&mut self, now: i64) -> bool {
        let refills = now.saturating_sub(self.updated_ms).max(0) / REFILL_MS;
        if refills > 0 {
            let refills = u32::try_from(refills).unwrap_or(BURST);
            self.tokens = self.tokens.saturating_add(refills).min(BURST);
            self.updated_ms = now;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

/// A pod as events refer to it.
pub fn pod_reference(pod: &Pod) -> ObjectReference {
    reference("Pod", pod.metadata.as_ref())
}

/// A node as events refer to it.
pub fn node_reference(node: &Node) -> ObjectReference {
    reference("Node", node.metadata.as_ref())
}

/// A Service as events refer to it.
pub fn service_reference(service: &Service) -> ObjectReference {
    reference("Service", service.metadata.as_ref())
}

fn reference(kind: &str, meta: Option<&barge_proto::v1::ObjectMeta>) -> ObjectReference {
    ObjectReference {
        kind: kind.to_owned(),
        api_version: "v1".to_owned(),
        namespace: meta.map(|m| m.namespace.clone()).unwrap_or_default(),
        name: meta.map(|m| m.name.clone()).unwrap_or_default(),
        uid: meta.map(|m| m.uid.clone()).unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::TokioClock;

    #[tokio::test(start_paused = true)]
    async fn one_object_cannot_flood_and_equal_events_are_one() {
        let outbox = Arc::new(Outbox::default());
        let recorder = Recorder::new(outbox.clone(), Arc::new(TokioClock::starting_at(0)));
        let object = |uid: &str| ObjectReference {
            uid: uid.into(),
            ..Default::default()
        };
        for number in 0..BURST + 10 {
            recorder.record(
                object("a"),
                Severity::Warning,
                "BackOff",
                number.to_string(),
            );
        }
        for _ in 0..3 {
            recorder.record(object("b"), Severity::Normal, "Pulled", "image x");
        }
        let events = outbox.take().unwrap().events;
        assert_eq!(events.len(), BURST as usize + 1);
        tokio::time::advance(std::time::Duration::from_millis(REFILL_MS as u64)).await;
        recorder.record(object("a"), Severity::Warning, "BackOff", "later");
        assert_eq!(outbox.take().unwrap().events[0].message, "later");
    }
}
