//! What the agent has to say and the managers have not yet made durable. Bounded: the newest status per pod, and a
//! limited number of events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use barge_proto::v1::{EventReport, NodeStatus, PodReport, PodStatus, Report};
use tokio::sync::Notify;

/// Events kept while no manager takes them; beyond that the oldest go.
const EVENTS: usize = 1000;
/// Pods in one report.
const PODS_PER_REPORT: usize = 200;
/// Events in one report.
const EVENTS_PER_REPORT: usize = 200;
/// Reports sent and not yet acknowledged.
const IN_FLIGHT: usize = 4;

/// Collects reports from the pods and hands them to the session. Shared by reference.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    sequence: u64,
    acknowledged: u64,
    pods: BTreeMap<String, Entry<PodReport>>,
    events: VecDeque<Entry<EventReport>>,
    node: Option<Entry<NodeStatus>>,
    dropped_events: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    /// The report it went out with; `None` while it waits.
    sent: Option<u64>,
}

impl<T> Entry<T> {
    fn waiting(value: T) -> Self {
        Self { value, sent: None }
    }
}

impl Outbox {
    /// The newest status of a pod replaces an older one that was not acknowledged.
    pub fn pod_status(&self, uid: &str, status: PodStatus) {
        self.put_pod(PodReport {
            uid: uid.to_owned(),
            status: Some(status),
            gone: false,
        });
    }

    /// Nothing of the pod is left on the node. `status` is how it ended.
    pub fn pod_gone(&self, uid: &str, status: Option<PodStatus>) {
        self.put_pod(PodReport {
            uid: uid.to_owned(),
            status,
            gone: true,
        });
    }

    /// The machine changed.
    pub fn node_status(&self, status: NodeStatus) {
        self.lock().node = Some(Entry::waiting(status));
        self.ready.notify_one();
    }

    /// Something happened. An equal event that still waits is brought up to date instead.
    pub fn event(&self, event: EventReport) {
        let mut state = self.lock();
        let same = state.events.iter_mut().find(|entry| {
            entry.sent.is_none()
                && entry.value.involved_object == event.involved_object
                && entry.value.reason == event.reason
                && entry.value.message == event.message
        });
        if let Some(entry) = same {
            entry.value.time = event.time;
            return;
        }
        if state.events.len() >= EVENTS {
            state.events.pop_front();
            state.dropped_events += 1;
        }
        state.events.push_back(Entry::waiting(event));
        drop(state);
        self.ready.notify_one();
    }

    /// A new session: what was not acknowledged is to be sent again.
    pub fn restart(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        state.acknowledged = state.sequence;
        state.pods.values_mut().for_each(|entry| entry.sent = None);
        state.events.iter_mut().for_each(|entry| entry.sent = None);
        if let Some(entry) = &mut state.node {
            entry.sent = None;
        }
        self.ready.notify_one();
    }

    /// The next report, when there is something to say and few enough are on their way.
    pub fn take(&self) -> Option<Report> {
        let mut state = self.lock();
        let in_flight = state.sequence.saturating_sub(state.acknowledged);
        if in_flight >= IN_FLIGHT as u64 {
            return None;
        }
        let state = &mut *state;
        let sequence = state.sequence + 1;
        let pods = send(state.pods.values_mut(), PODS_PER_REPORT, sequence);
        let events = send(state.events.iter_mut(), EVENTS_PER_REPORT, sequence);
        let node = send(state.node.iter_mut(), 1, sequence).pop();
        if pods.is_empty() && events.is_empty() && node.is_none() {
            return None;
        }
        if state.dropped_events > 0 {
            tracing::warn!(
                events = state.dropped_events,
                "events were dropped while no manager took them"
            );
            state.dropped_events = 0;
        }
        state.sequence = sequence;
        Some(Report {
            sequence,
            pods,
            events,
            node,
        })
    }

    /// The managers have made durable all reports up to this one. Answers the pods that are known to be gone by that.
    pub fn acknowledge(&self, sequence: u64) -> Vec<String> {
        let mut state = self.lock();
        let state = &mut *state;
        state.acknowledged = state.acknowledged.max(sequence.min(state.sequence));
        let open = |sent: Option<u64>| sent.is_none_or(|sent| sent > sequence);
        let mut gone = Vec::new();
        state.pods.retain(|uid, entry| {
            let keep = open(entry.sent);
            if !keep && entry.value.gone {
                gone.push(uid.clone());
            }
            keep
        });
        state.events.retain(|entry| open(entry.sent));
        state.node.take_if(|entry| !open(entry.sent));
        self.ready.notify_one();
        gone
    }

    /// Whether anything is not acknowledged yet.
    pub fn is_waiting(&self) -> bool {
        let state = self.lock();
        !state.pods.is_empty() || !state.events.is_empty() || state.node.is_some()
    }

    /// Wakes whoever waits in `ready`.
    pub fn poke(&self) {
        self.ready.notify_one();
    }

    /// Returns once `take` may have something.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    fn put_pod(&self, report: PodReport) {
        self.lock()
            .pods
            .insert(report.uid.clone(), Entry::waiting(report));
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send<'a, T: Clone + 'a>(
    entries: impl Iterator<Item = &'a mut Entry<T>>,
    limit: usize,
    sequence: u64,
) -> Vec<T> {
    entries
        .filter(|entry| entry.sent.is_none())
        .take(limit)
        .map(|entry| {
            entry.sent = Some(sequence);
            entry.value.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn phase(phase: &str) -> PodStatus {
        PodStatus {
            phase: phase.into(),
            ..Default::default()
        }
    }

    fn phases(report: &Report) -> Vec<&str> {
        report
            .pods
            .iter()
            .map(|pod| pod.status.as_ref().map_or("", |s| s.phase.as_str()))
            .collect()
    }

    #[test]
    fn only_the_newest_status_is_kept_and_an_old_ack_does_not_drop_a_newer_one() {
        let outbox = Outbox::default();
        outbox.pod_status("a", phase("Pending"));
        outbox.pod_status("a", phase("Running"));
        let first = outbox.take().unwrap();
        assert_eq!(phases(&first), ["Running"]);
        assert!(outbox.take().is_none());
        outbox.pod_status("a", phase("Failed"));
        outbox.acknowledge(first.sequence);
        let second = outbox.take().unwrap();
        assert_eq!(phases(&second), ["Failed"]);
        assert!(second.sequence > first.sequence);
        outbox.acknowledge(second.sequence);
        outbox.restart();
        assert!(outbox.take().is_none());
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again() {
        let outbox = Outbox::default();
        outbox.pod_gone("a", None);
        outbox.node_status(NodeStatus::default());
        let first = outbox.take().unwrap();
        outbox.restart();
        let again = outbox.take().unwrap();
        assert_eq!(again.pods, first.pods);
        assert!(again.node.is_some());
        assert_eq!(outbox.acknowledge(again.sequence), ["a"]);
        outbox.restart();
        assert!(outbox.take().is_none());
    }

    #[test]
    fn events_are_bounded_and_reports_in_flight_too() {
        let outbox = Outbox::default();
        for number in 0..EVENTS + 10 {
            outbox.event(EventReport {
                message: number.to_string(),
                ..Default::default()
            });
        }
        let mut last = 0;
        for _ in 0..IN_FLIGHT {
            last = outbox.take().unwrap().sequence;
        }
        assert!(outbox.take().is_none());
        outbox.acknowledge(last);
        let rest = outbox.take().unwrap();
        assert_eq!(
            rest.events.last().unwrap().message,
            (EVENTS + 9).to_string()
        );
        assert_eq!(rest.events.len(), EVENTS - IN_FLIGHT * EVENTS_PER_REPORT);
    }
}
