//! ReplicaSets that people apply: so many pods of a template.
//!
//! Pods that run stay as they are when the template changes, and new ones are made from the new template. So a ReplicaSet owns, as
//! records, the template that new pods are made from and those that it still has pods of.

#[cfg(test)]
mod tests;

use super::{
    Controller, Name,
    plan::{self, MAX_BATCH, Plan, Severity, controller_reference, is_going, object_reference},
    replicas::{
        self, count,
        group::{Group, Step},
        lost,
        moves::Moves,
        number,
    },
    stamp::Stamp,
};
use barge_proto::v1::{
    ObjectMeta, ObjectReference, PodRecord, PodTemplateSpec, ReplicaSet, ReplicaSetSpec,
    ReplicaSetStatus, Revision,
};
use barge_state::{Changed, Kind, PackedPod, RecordKind, State};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// As in a manifest, and in owner references.
const KIND: &str = "ReplicaSet";
const API_VERSION: &str = "apps/v1";
/// The most names that one event tells.
const NAMES: usize = 5;

/// The controller of ReplicaSets.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplicaSets;

impl Controller for ReplicaSets {
    type Key = Name;
    const NAME: &'static str = "replicaset";
    const KINDS: &'static [RecordKind] = &[
        RecordKind::ReplicaSet,
        RecordKind::Pod,
        RecordKind::Revision,
    ];

    fn all(&self, state: &State) -> Vec<Name> {
        let sets = state.list::<ReplicaSet>(None);
        sets.map(|set| Name::of(set.meta())).collect()
    }

    fn dirtied(&self, _: &State, changed: &Changed, dirty: &mut dyn FnMut(Name)) {
        let Some(record) = changed.record() else {
            return;
        };
        match record.kind() {
            RecordKind::ReplicaSet => dirty(Name {
                namespace: record.namespace().to_owned(),
                name: record.name().to_owned(),
            }),
            _ => replicas::owner(record, KIND).into_iter().for_each(dirty),
        }
    }

    fn plan(&self, state: &State, key: &Name, stamp: &mut Stamp) -> Plan {
        plan(state, key, stamp)
    }

    fn concerned(&self, state: &State, key: &Name) -> Option<ObjectReference> {
        let set = state.get::<ReplicaSet>(&key.namespace, &key.name)?;
        Some(object_reference(API_VERSION, KIND, set.meta()))
    }
}

/// What should be done for a ReplicaSet now.
pub fn plan(state: &State, key: &Name, stamp: &mut Stamp) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = state.get::<ReplicaSet>(&key.namespace, &key.name) else {
        return plan;
    };
    let Some(spec) = &set.spec else {
        return plan;
    };
    if is_going(state, set.meta()) {
        return plan;
    }
    let owned = state.owned::<PodRecord>(set.uid());
    let owned: Vec<_> = owned.filter(|pod| is_controlled(pod, set.uid())).collect();
    replicas::replace_finished(&owned, stamp, &mut plan);
    let observed = Observed {
        state,
        set,
        spec,
        templates: state.owned::<Revision>(set.uid()).collect(),
        group: Group::of(owned.iter().copied(), spec.min_ready_seconds, &stamp.now),
        owned,
    };
    let newest = observed.newest(stamp, &mut plan);
    observed.scale(&newest, stamp, &mut plan);
    observed.forget_old(&newest, &mut plan);
    let status = observed.status();
    if set.status.as_ref() != Some(&status) {
        plan.draft.put_status(ReplicaSet {
            metadata: set.metadata.clone(),
            status: Some(status),
            ..ReplicaSet::default()
        });
    }
    if let Some(wait) = observed.group.next_available {
        plan.look_again(wait);
    }
    if !plan.draft.is_empty() {
        plan.draft.same(&**set);
        plan.draft.same_generation(&**set);
    }
    plan
}

/// Whether it is this owner's pod, and not only to end with it.
fn is_controlled(pod: &PackedPod, owner: &str) -> bool {
    let mut owners = pod.owners().iter();
    owners.any(|it| it.uid == owner && it.controller == Some(true))
}

/// A ReplicaSet, and what there is of it.
struct Observed<'a> {
    state: &'a State,
    set: &'a ReplicaSet,
    spec: &'a ReplicaSetSpec,
    /// That pods of it are or were made from.
    templates: Vec<&'a Arc<Revision>>,
    /// Its pods.
    owned: Vec<&'a Arc<PackedPod>>,
    /// Of these, the live ones.
    group: Group<'a>,
}

impl Observed<'_> {
    /// The template that new pods are made from, which is written when there is none like it.
    fn newest(&self, stamp: &mut Stamp, plan: &mut Plan) -> Revision {
        let mut known = self.templates.iter();
        if let Some(found) = known.find(|it| it.template == self.spec.template) {
            return Revision::clone(found);
        }
        let owner = self.set.meta();
        let uid = stamp.uid();
        let numbers = self.templates.iter().map(|it| it.number);
        let new = Revision {
            metadata: Some(ObjectMeta {
                // Nobody looks for it by name.
                name: uid.clone(),
                namespace: owner.namespace.clone(),
                uid,
                owner_references: vec![controller_reference(API_VERSION, KIND, owner)],
                ..ObjectMeta::default()
            }),
            number: numbers.max().unwrap_or(0) + 1,
            template: self.spec.template.clone(),
            status: None,
        };
        plan.draft.put(new.clone());
        new
    }

    /// Makes the pods that are missing, or ends those that are too many, and removes lost ones whose place is taken.
    fn scale(&self, newest: &Revision, stamp: &mut Stamp, plan: &mut Plan) {
        let owner = self.set.meta();
        let reference = controller_reference(API_VERSION, KIND, owner);
        let (set, min_ready) = (self.set, self.spec.min_ready_seconds);
        let wanted = count(self.spec.replicas.unwrap_or(1));
        let mut moves = Moves::new(self.state, set, reference, min_ready, room(plan));
        let mut step = Step::to(wanted, self.group.count);
        step.hold(self.group.held);
        let ended = moves.end(&self.group, &step, stamp, plan);
        let made = moves.create(newest, &owner.name, &step, stamp, plan);
        for (reason, what, moved) in [
            ("SuccessfulDelete", "Deleted", &ended),
            ("SuccessfulCreate", "Created", &made),
        ] {
            if !moved.names.is_empty() {
                tell(set, reason, told(what, &moved.names), stamp, plan);
            }
            if !moved.complete {
                plan.look_again(Duration::ZERO);
            }
        }
        lost::remove_replaced(&self.owned, wanted, self.group.ready, room(plan), plan);
    }

    /// Removes templates that nothing is made from any more.
    fn forget_old(&self, newest: &Revision, plan: &mut Plan) {
        for old in &self.templates {
            if old.uid() != newest.uid() && self.state.pods_of(old.uid()).next().is_none() {
                plan.draft.remove::<Revision>(old.uid());
            }
        }
    }

    fn status(&self) -> ReplicaSetStatus {
        // Labels are the template's: they are compared once per template.
        let newest = self.spec.template.as_ref();
        let full: BTreeSet<_> = self
            .templates
            .iter()
            .filter(|it| has_labels(it.template.as_ref(), newest))
            .map(|it| it.uid())
            .collect();
        let labeled = self.group.pods.iter();
        let labeled = labeled.filter(|pod| full.contains(pod.template_uid()));
        ReplicaSetStatus {
            replicas: number(self.group.count.total),
            fully_labeled_replicas: number(labeled.count()),
            observed_generation: self.set.meta().generation,
            ready_replicas: number(self.group.ready),
            available_replicas: number(self.group.count.available),
            conditions: Vec::new(),
        }
    }
}

/// Changes that a plan may still make.
fn room(plan: &Plan) -> usize {
    MAX_BATCH.saturating_sub(plan.draft.changes().len())
}

/// "Created pod: web-x2b7k", with many "Created 500 pods: …".
fn told(what: &str, names: &[String]) -> String {
    match names {
        [only] => format!("{what} pod: {only}"),
        _ => {
            let shown = names[..names.len().min(NAMES)].join(", ");
            let more = if names.len() > NAMES { ", …" } else { "" };
            format!("{what} {} pods: {shown}{more}", names.len())
        }
    }
}

fn tell(set: &ReplicaSet, reason: &str, message: String, stamp: &mut Stamp, plan: &mut Plan) {
    let about = object_reference(API_VERSION, KIND, set.meta());
    let component = "replicaset-controller";
    let severity = Severity::Normal;
    let event = plan::event(stamp, component, about, severity, reason, message);
    plan.draft.event(event);
}

/// Whether pods of a template have all the labels of another.
fn has_labels(template: Option<&PodTemplateSpec>, of: Option<&PodTemplateSpec>) -> bool {
    let labels = |it: Option<&PodTemplateSpec>| {
        let metadata = it.and_then(|it| it.metadata.as_ref());
        metadata.map(|it| it.labels.clone()).unwrap_or_default()
    };
    let has = labels(template);
    labels(of)
        .iter()
        .all(|(key, value)| has.get(key) == Some(value))
}
