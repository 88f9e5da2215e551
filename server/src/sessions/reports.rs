//! Turns agents' reports into transactions at the leader, and checks that an agent changes only its own node and pods.

use std::sync::Arc;

use barge_proto::v1::{
    Event, EventReport, EventSource, Node, NodeRelay, NodeStatus, ObjectMeta, ObjectReference,
    PodGone, PodRecord, PodTombstone, Report, ReportPod, change::Change as Body,
};
use barge_state::{Kind as _, LOSS, ORDER, PackedPod, State};
use prost::Message;

use crate::{runtime::clock, store::transaction::Draft};

/// What condition the managers set from heartbeats, so that no agent sets it itself.
const READY: &str = "Ready";
/// A sentence for people, not a log.
const MAX_MESSAGE: usize = 1024;
/// Of a uid that is quoted.
const MAX_UID: usize = 64;
/// In one report; a busy node has some tens.
const MAX_EVENTS: usize = 256;
/// Bytes of one report: the transaction that it becomes fits into an entry of the log with room to spare.
const MAX_REPORT: usize = 1 << 20;
/// Bytes of the status of one pod or node, and of one event. Agents shorten what is for people long before.
const MAX_POD_STATUS: usize = 64 << 10;
const MAX_NODE_STATUS: usize = 128 << 10;
const MAX_EVENT: usize = 32 << 10;
/// Events of nodes have no namespace of their own.
const DEFAULT_NAMESPACE: &str = "default";

/// Why a report can never be taken, as a sentence that names the field; absent when it can.
#[must_use]
pub fn unacceptable(report: &Report) -> Option<String> {
    let too_large = |field: String, bytes: usize, most: usize| {
        (bytes > most).then(|| format!("{field} has {bytes} bytes, at most {most} are taken"))
    };
    let node = report.node.as_ref().map_or(0, Message::encoded_len);
    let mut pods = report.pods.iter().enumerate().filter_map(|(at, pod)| {
        let bytes = pod.status.as_ref().map_or(0, Message::encoded_len);
        let field = format!("pods[{at}].status of pod {}", cut(&pod.uid, MAX_UID));
        too_large(field, bytes, MAX_POD_STATUS)
    });
    let mut events = report.events.iter().enumerate().filter_map(|(at, event)| {
        too_large(format!("events[{at}]"), event.encoded_len(), MAX_EVENT)
    });
    pods.next()
        .or_else(|| events.next())
        .or_else(|| too_large("node".to_owned(), node, MAX_NODE_STATUS))
        .or_else(|| too_large("the report".to_owned(), report.encoded_len(), MAX_REPORT))
}

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
    let ordered = state.feature_level() >= ORDER;
    for pod in &report.pods {
        match &pod.status {
            // `apply` decides whether the pod is the node's, and which status is newer.
            Some(status) if ordered => draft.change(Body::ReportPod(ReportPod {
                uid: pod.uid.clone(),
                node_uid: node.uid().to_owned(),
                status: Some(status.clone()),
                version: pod.version,
            })),
            Some(status) => {
                if let Some(record) = bound(state, node, &pod.uid) {
                    draft.put_status(PodRecord {
                        metadata: identity(record),
                        status: Some(status.clone()),
                        ..PodRecord::default()
                    });
                }
            }
            None => {}
        }
        if pod.gone {
            gone(state, node, &pod.uid, draft);
        }
    }
}

/// A pod, if it is bound to a node.
fn bound<'a>(state: &'a State, node: &Node, uid: &str) -> Option<&'a PackedPod> {
    let record = state.by_uid::<PodRecord>(uid).map(Arc::as_ref);
    record.filter(|record| record.node_uid() == node.uid())
}

/// The agent confirms that nothing of a pod is left: its record goes, or the tombstone that was waiting for this.
fn gone(state: &State, node: &Node, uid: &str, draft: &mut Draft) {
    let is_bound = bound(state, node, uid).is_some();
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
    let (kind, meta) = match bound(state, node, &about.uid) {
        Some(pod) => ("Pod", identity(pod)?),
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
            field_path: cut(&about.field_path, MAX_MESSAGE),
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
