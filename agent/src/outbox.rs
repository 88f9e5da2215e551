//! What the agent has to say and the managers have not yet made durable. Bounded: the newest status per pod, and a
//! limited number of events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use barge_proto::v1::{EventReport, NodeStatus, PodReport, PodStatus, Report, StatusVersion};
use prost::Message;
use tokio::sync::Notify;

mod shorten;

/// Events kept while no manager takes them; beyond that the oldest go.
const EVENTS: usize = 1000;
/// Pods in one report.
const PODS_PER_REPORT: usize = 200;
/// About the bytes of one report.
const REPORT_BYTES: usize = 256 << 10;
/// Events in one report.
const EVENTS_PER_REPORT: usize = 200;
/// Reports sent and not yet acknowledged.
const IN_FLIGHT: usize = 4;

/// Collects reports from the pods and hands them to the session. Shared by reference.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Of this process; higher than that of any process before.
    incarnation: u64,
    state: Mutex<State>,
    ready: Notify,
    /// Told when `State::first` has become empty.
    first_said: Notify,
}

#[derive(Debug, Default)]
struct State {
    sequence: u64,
    /// Statuses of pods that were put here.
    statuses: u64,
    acknowledged: u64,
    pods: BTreeMap<String, Entry<PodReport>>,
    events: VecDeque<Entry<EventReport>>,
    node: Option<Entry<NodeStatus>>,
    dropped_events: u64,
    /// Pods of which nothing has been made durable yet that `first_reports` waits for, with the report that it went out with.
    first: BTreeMap<String, Option<u64>>,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    /// The report it went out with; `None` while it waits.
    sent: Option<u64>,
    /// To be sent by itself, because it was in a report that was refused; or sent so.
    alone: bool,
}

/// What will not be said, because the managers will never take it.
#[derive(Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The status of the pod with this uid.
    Pod(String),
    /// The messages in the status of the pod with this uid. The rest of it goes out again.
    Messages(String),
    /// An event.
    Event,
    /// The status of the node.
    Node,
}

impl<T> Entry<T> {
    fn waiting(value: T) -> Self {
        Self {
            value,
            sent: None,
            alone: false,
        }
    }
}

impl Outbox {
    /// What the process of this incarnation has to say.
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            ..Self::default()
        }
    }

    /// The newest status of a pod replaces an older one that was not acknowledged.
    pub fn pod_status(&self, uid: &str, status: PodStatus) {
        self.put_pod(PodReport {
            uid: uid.to_owned(),
            status: Some(status),
            gone: false,
            version: None,
        });
    }

    /// Says how these pods are, and returns when the managers have made durable that or something newer of each.
    pub async fn first_reports(&self, statuses: Vec<(String, PodStatus)>) {
        let uids = statuses.iter().map(|(uid, _)| (uid.clone(), None));
        self.lock().first = uids.collect();
        for (uid, status) in statuses {
            self.pod_status(&uid, status);
        }
        loop {
            if self.lock().first.is_empty() {
                return;
            }
            self.first_said.notified().await;
        }
    }

    /// Nothing of the pod is left on the node. `status` is how it ended.
    pub fn pod_gone(&self, uid: &str, status: Option<PodStatus>) {
        self.put_pod(PodReport {
            uid: uid.to_owned(),
            status,
            gone: true,
            version: None,
        });
    }

    /// The machine changed.
    pub fn node_status(&self, status: NodeStatus) {
        self.lock().node = Some(Entry::waiting(status));
        self.ready.notify_one();
    }

    /// Something happened. An equal event that still waits is brought up to date instead.
    pub fn event(&self, mut event: EventReport) {
        shorten::event(&mut event);
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
        state.first.values_mut().for_each(|sent| *sent = None);
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
        let mut room = Room::new(sequence, state.has_alone());
        let pods = room.fill(state.pods.values_mut(), PODS_PER_REPORT);
        for report in &pods {
            if let Some(sent) = state.first.get_mut(&report.uid) {
                sent.get_or_insert(sequence);
            }
        }
        let events = room.fill(state.events.iter_mut(), EVENTS_PER_REPORT);
        let node = room.fill(state.node.iter_mut(), 1).pop();
        match pods.len() + events.len() + usize::from(node.is_some()) {
            0 => return None,
            1 => state
                .sent_with(sequence)
                .for_each(|(_, alone)| *alone = true),
            _ => {}
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
        state.first.retain(|_, sent| open(*sent));
        if state.first.is_empty() {
            self.first_said.notify_one();
        }
        self.ready.notify_one();
        gone
    }

    /// The managers will never take the report of this number, or a part of it. What was in it goes out again, each by itself; what was
    /// by itself is dropped, and answered. The status of a pod is said once more without its messages before; and that nothing of a pod is left
    /// is said without its last status then.
    pub fn refused(&self, sequence: u64) -> Option<Dropped> {
        let mut state = self.lock();
        let state = &mut *state;
        self.ready.notify_one();
        if state.sent_with(sequence).any(|(_, alone)| *alone) {
            // What will never be said is not waited for.
            state.first.retain(|_, sent| *sent != Some(sequence));
            self.first_said.notify_one();
            return state.drop_sent(sequence);
        }
        for (sent, alone) in state.sent_with(sequence) {
            (*sent, *alone) = (None, true);
        }
        None
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

    fn put_pod(&self, mut report: PodReport) {
        let mut state = self.lock();
        state.statuses += 1;
        if let Some(status) = &mut report.status {
            shorten::status(status);
            report.version = Some(StatusVersion {
                incarnation: self.incarnation,
                counter: state.statuses,
            });
        }
        let uid = report.uid.clone();
        state.pods.insert(uid, Entry::waiting(report));
        drop(state);
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What went out with a report: the report's number, and whether it was by itself.
    fn sent_with(&mut self, sequence: u64) -> impl Iterator<Item = (&mut Option<u64>, &mut bool)> {
        let pods = self.pods.values_mut().map(|e| (&mut e.sent, &mut e.alone));
        let events = self.events.iter_mut().map(|e| (&mut e.sent, &mut e.alone));
        let node = self.node.iter_mut().map(|e| (&mut e.sent, &mut e.alone));
        let all = pods.chain(events).chain(node);
        all.filter(move |(sent, _)| **sent == Some(sequence))
    }

    /// Whether something waits to be sent by itself.
    fn has_alone(&self) -> bool {
        let pods = self.pods.values().map(|e| (e.sent, e.alone));
        let events = self.events.iter().map(|e| (e.sent, e.alone));
        let node = self.node.iter().map(|e| (e.sent, e.alone));
        let mut all = pods.chain(events).chain(node);
        all.any(|(sent, alone)| alone && sent.is_none())
    }

    /// Drops the only thing that a report had.
    fn drop_sent(&mut self, sequence: u64) -> Option<Dropped> {
        let mut pods = self.pods.iter_mut();
        if let Some((uid, entry)) = pods.find(|(_, entry)| entry.sent == Some(sequence)) {
            let uid = uid.clone();
            if entry.value.status.as_mut().is_some_and(shorten::empty) {
                entry.sent = None;
                return Some(Dropped::Messages(uid));
            }
            match entry.value.gone && entry.value.status.take().is_some() {
                true => (entry.value.version, entry.sent) = (None, None),
                false => drop(self.pods.remove(&uid)),
            }
            return Some(Dropped::Pod(uid));
        }
        let events = self.events.len();
        self.events.retain(|entry| entry.sent != Some(sequence));
        match self.events.len() < events {
            true => Some(Dropped::Event),
            false => self.node.take().map(|_| Dropped::Node),
        }
    }
}

/// What a report has room for.
struct Room {
    sequence: u64,
    bytes: usize,
    /// One thing, of those that are to be sent by themselves.
    alone: bool,
}

impl Room {
    fn new(sequence: u64, alone: bool) -> Self {
        Self {
            sequence,
            bytes: REPORT_BYTES,
            alone,
        }
    }

    /// Takes what waits, as long as there is room; what is larger than that goes with nothing else.
    fn fill<'a, T: Message + Clone + 'a>(
        &mut self,
        entries: impl Iterator<Item = &'a mut Entry<T>>,
        limit: usize,
    ) -> Vec<T> {
        let mut taken = Vec::new();
        for entry in entries.filter(|entry| entry.sent.is_none()) {
            let bytes = entry.value.encoded_len();
            let fits = bytes <= self.bytes || self.bytes == REPORT_BYTES;
            if !fits || taken.len() >= limit {
                break;
            }
            if entry.alone != self.alone {
                continue;
            }
            // One by itself takes all.
            self.bytes = match self.alone {
                true => 0,
                false => self.bytes.saturating_sub(bytes),
            };
            entry.sent = Some(self.sequence);
            taken.push(entry.value.clone());
        }
        taken
    }
}

#[cfg(test)]
mod tests;
