//! Pods that run here and that the managers do not know: neither assigned nor deleted. They run on, and people are told.
//!
//! This is so after the managers were restored from a backup that is older than a pod, and when this node lost its last assignment
//! or joined anew. Only a recorded deletion or a person ends them.

use std::collections::{BTreeMap, BTreeSet};

use barge_proto::v1::Condition;
use tokio::sync::watch;

use crate::{
    desired::Desired,
    events::{Recorder, Severity, node_reference},
    runtime::{ContainerState, Inventory},
};

/// Events in one session; the condition counts them all.
const EVENTS: usize = 20;
/// Of the condition's message, in bytes; the names that do not fit are counted.
const LONGEST_MESSAGE: usize = 768;

/// Namespace and name of each unknown pod, by its uid.
pub type Unknown = BTreeMap<String, String>;

/// All unknown pods: those that the last full set lacked, and those of which only the runtime knows.
pub fn unknown(desired: &Desired, inventory: &Inventory) -> Unknown {
    let mut all = strangers(desired, inventory);
    all.extend(unlisted(desired));
    all
}

/// Pods whose specification is known here.
fn unlisted(desired: &Desired) -> impl Iterator<Item = (String, String)> {
    desired.unknown.iter().map(|uid| {
        let meta = desired.pods.get(uid).and_then(|pod| pod.metadata.as_ref());
        let name = meta.map(|meta| format!("{}/{}", meta.namespace, meta.name));
        (uid.clone(), name.unwrap_or_default())
    })
}

/// Pods of which only the runtime knows. Those of which no container ever ran are leftovers of an interrupted start.
fn strangers(desired: &Desired, inventory: &Inventory) -> Unknown {
    let ran = inventory
        .containers
        .iter()
        .filter(|container| container.state != ContainerState::Created)
        .map(|container| &container.pod_uid)
        .filter(|uid| !desired.pods.contains_key(*uid) && !desired.deleted.contains(*uid));
    ran.map(|uid| {
        let mut sandboxes = inventory.sandboxes.iter();
        let name = sandboxes
            .find(|sandbox| sandbox.pod_uid == *uid)
            .map(|sandbox| format!("{}/{}", sandbox.namespace, sandbox.name));
        (uid.clone(), name.unwrap_or_default())
    })
    .collect()
}

/// Tells of unknown pods: the node's condition through a channel, and an event for each pod in each session.
pub struct Teller {
    known: watch::Sender<Unknown>,
    recorder: Recorder,
    strangers: Unknown,
    /// The full set that the events are about.
    epoch: u64,
    told: BTreeSet<String>,
}

impl Teller {
    /// Tells through these.
    pub fn new(known: watch::Sender<Unknown>, recorder: Recorder) -> Self {
        Self {
            known,
            recorder,
            strangers: Unknown::new(),
            epoch: 0,
            told: BTreeSet::new(),
        }
    }

    /// The runtime was listed. Before the first full set nobody can say what is unknown.
    pub fn listed(&mut self, desired: &Desired, inventory: &Inventory) {
        if desired.epoch > 0 {
            self.strangers = strangers(desired, inventory);
        }
        self.tell(desired);
    }

    /// Nothing is left of a pod.
    pub fn ended(&mut self, uid: &str, desired: &Desired) {
        self.strangers.remove(uid);
        self.tell(desired);
    }

    /// Tells what changed.
    pub fn tell(&mut self, desired: &Desired) {
        self.strangers
            .retain(|uid, _| !desired.pods.contains_key(uid) && !desired.deleted.contains(uid));
        let mut all = self.strangers.clone();
        all.extend(unlisted(desired));
        if desired.epoch != self.epoch {
            self.epoch = desired.epoch;
            self.told.clear();
        }
        if let Some(node) = desired.node().filter(|_| desired.epoch > 0) {
            for (uid, name) in &all {
                if self.told.len() < EVENTS && self.told.insert(uid.clone()) {
                    let message = format!(
                        "Pod {name} ({uid}) runs on this node, and the cluster knows neither it nor its deletion: it runs on. To end it, stop \
                         barge-agent on the node, run \"barge-agent forget-pods {uid}\", and start it again"
                    );
                    let node = node_reference(node);
                    self.recorder
                        .record(node, Severity::Warning, "UnknownPod", message);
                }
            }
        }
        self.known.send_if_modified(|known| {
            let changed = *known != all;
            *known = all;
            changed
        });
    }
}

/// The node's condition `UnknownPods`, without its time.
pub fn condition(unknown: &Unknown) -> Condition {
    let (status, reason) = match unknown.is_empty() {
        true => ("False", "AllPodsAreKnown"),
        false => ("True", "PodsAreUnknown"),
    };
    Condition {
        r#type: "UnknownPods".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message(unknown),
        ..Condition::default()
    }
}

fn message(unknown: &Unknown) -> String {
    let mut message = String::new();
    for (told, (uid, name)) in unknown.iter().enumerate() {
        let next = format!("{name} ({uid})");
        if message.len() + next.len() > LONGEST_MESSAGE {
            return format!("{message} and {} more", unknown.len() - told);
        }
        if told > 0 {
            message.push_str(", ");
        }
        message.push_str(&next);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_names_pods_and_counts_the_rest() {
        let none = condition(&Unknown::new());
        assert_eq!((none.status.as_str(), none.message.as_str()), ("False", ""));
        let many: Unknown = (10..60)
            .map(|number| (format!("uid-{number}"), format!("default/web-{number}")))
            .collect();
        let some = condition(&many);
        assert_eq!(some.status, "True");
        let begin = "default/web-10 (uid-10), default/web-11 (uid-11), ";
        assert!(some.message.starts_with(begin), "{}", some.message);
        assert!(some.message.ends_with(" more"), "{}", some.message);
        assert!(some.message.len() < LONGEST_MESSAGE + 20);
        let named = some.message.matches('(').count();
        let counted = format!("and {} more", many.len() - named);
        assert!(some.message.ends_with(&counted), "{}", some.message);
    }
}
