//! The leader's side of reports: what an agent may change, and how that becomes a transaction.

use barge_proto::v1::{
    Event, EventReport, EventSource, Node, NodeRelay, NodeStatus, ObjectMeta, ObjectReference,
    PodGone, PodRecord, PodTombstone, Report, change::Change as Body,
};
use barge_state::{Kind as _, LOSS, State};

use crate::{clock, transaction::Draft};

/// What condition the managers set from heartbeats, so that no agent sets it itself.
const READY: &str = "Ready";
/// A sentence for people, not a log.
const MAX_MESSAGE: usize = 1024;
/// In one report; a busy node has some tens.
const MAX_EVENTS: usize = 256;
/// Events of nodes have no namespace of their own.
const DEFAULT_NAMESPACE: &str = "default";

/// Adds what a node reported to a transaction, as far as it is the node's to say: its own status, the status of pods
/// that are bound to it, and events about these. Anything else is left out, because a report may also be late.
pub fn plan(state: &State, relay: &NodeRelay, draft: &mut Draft) {
    let Some(report) = &relay.report else {
        return;
    };
    let Some(node) = state.by_uid::<Node>(&relay.node_uid) else {
        tracing::debug!(node = relay.node_uid, "report of a node that is gone");
        return;
    };
    if let Some(status) = &report.node {
        draft.put_status(Node {
            metadata: identity(&**node),
            status: Some(merge(node, status)),
            ..Node::default()
        });
    }
    pods(state, node, report, draft);
    for event in report.events.iter().take(MAX_EVENTS) {
        if let Some(event) = allowed(state, node, event) {
            draft.change(Body::RecordEvent(event));
        }
    }
}

fn pods(state: &State, node: &Node, report: &Report, draft: &mut Draft) {
    for pod in &report.pods {
        let record = state
            .by_uid::<PodRecord>(&pod.uid)
            .filter(|record| record.node_uid() == node.uid());
        match (record, &pod.status) {
            (Some(record), Some(status)) => draft.put_status(PodRecord {
                metadata: identity(&**record),
                status: Some(status.clone()),
                ..PodRecord::default()
            }),
            (Some(_), None) => {}
            (None, _) => tracing::debug!(
                node = node.meta().name,
                pod = pod.uid,
                gone = pod.gone,
                "report of a pod that is not bound to the node"
            ),
        }
        if pod.gone {
            gone(state, node, &pod.uid, record.is_some(), draft);
        }
    }
}

/// The agent confirms that nothing of a pod is left: its record goes, or the tombstone that was waiting for this.
fn gone(state: &State, node: &Node, uid: &str, is_bound: bool, draft: &mut Draft) {
    if state.feature_level() < LOSS {
        // Some manager may not know the change; there are no tombstones either.
        if is_bound {
            draft.remove::<PodRecord>(uid);
        }
        return;
    }
    let has_tombstone = state
        .by_uid::<PodTombstone>(uid)
        .is_some_and(|tombstone| tombstone.node_uid == node.uid());
    if is_bound || has_tombstone {
        draft.needs(LOSS);
        draft.change(Body::PodGone(PodGone {
            uid: uid.to_owned(),
            node_uid: node.uid().to_owned(),
        }));
    }
}

/// The agent says what the machine is; the managers, whether it is ready.
fn merge(node: &Node, reported: &NodeStatus) -> NodeStatus {
    let known = node.status.clone().unwrap_or_default();
    let mut status = reported.clone();
    status.conditions.retain(|c| c.r#type != READY);
    status.conditions.extend(
        known
            .conditions
            .into_iter()
            .filter(|condition| condition.r#type == READY),
    );
    if status.addresses.is_empty() {
        status.addresses = known.addresses;
    }
    status
}

fn allowed(state: &State, node: &Node, report: &EventReport) -> Option<Event> {
    let about = report.involved_object.as_ref()?;
    let pod = state
        .by_uid::<PodRecord>(&about.uid)
        .filter(|pod| pod.node_uid() == node.uid());
    let (kind, meta) = match pod {
        Some(pod) => ("Pod", identity(&**pod)?),
        None if about.uid == node.uid() => ("Node", identity(node)?),
        None => return None,
    };
    let namespace = if meta.namespace.is_empty() {
        DEFAULT_NAMESPACE
    } else {
        &meta.namespace
    };
    let uid = clock::new_uid();
    let short: String = uid.chars().filter(|c| *c != '-').take(12).collect();
    let at = report.time.unwrap_or_else(clock::now);
    Some(Event {
        metadata: Some(ObjectMeta {
            name: format!("{}.{short}", meta.name),
            namespace: namespace.to_owned(),
            uid,
            ..ObjectMeta::default()
        }),
        involved_object: Some(ObjectReference {
            kind: kind.to_owned(),
            api_version: "v1".to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            field_path: about.field_path.clone(),
            ..ObjectReference::default()
        }),
        reason: cut(&report.reason, 128),
        message: cut(&report.message, MAX_MESSAGE),
        source: Some(EventSource {
            component: "barge-agent".to_owned(),
            host: node.meta().name.clone(),
        }),
        first_timestamp: Some(at),
        last_timestamp: Some(at),
        count: 1,
        r#type: if report.r#type == "Warning" {
            "Warning".to_owned()
        } else {
            "Normal".to_owned()
        },
        ..Event::default()
    })
}

fn identity(record: &impl barge_state::Kept) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: record.name().to_owned(),
        namespace: record.namespace().to_owned(),
        uid: record.uid().to_owned(),
        ..ObjectMeta::default()
    })
}

fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
