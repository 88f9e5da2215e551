//! ReplicaSets that people apply: so many pods of a template.
//!
//! Its pods are those that it made, and those that it adopted; see [`claims`]. Pods that run stay as they are when the template changes, and new ones are made from the new template. So a ReplicaSet owns, as
//! records, the template that new pods are made from and those that it still has pods of.

#[cfg(test)]
mod tests;

use super::{
    Controller, Name,
    plan::{self, MAX_BATCH, Plan, Severity, controller_reference, is_going, object_reference},
    replicas::{
        self,
        claims::{self, Claims, Labelled, is_controlled},
        count,
        group::{Group, Step},
        lost,
        moves::Moves,
        number, told,
    },
    stamp::Stamp,
};
use barge_proto::{
    selector::{Labels, Selector},
    v1::{
        ObjectMeta, ObjectReference, PodRecord, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus,
        Revision,
    },
};
use barge_state::{Changed, Kind, PackedPod, RecordKind, State, labels_of};
use std::{sync::Arc, time::Duration};

/// As in a manifest, and in owner references.
const KIND: &str = "ReplicaSet";
const API_VERSION: &str = "apps/v1";

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

    fn dirtied(&self, state: &State, changed: &Changed, dirty: &mut dyn FnMut(Name)) {
        let Some(record) = changed.record() else {
            return;
        };
        match record.kind() {
            RecordKind::ReplicaSet => dirty(Name {
                namespace: record.namespace().to_owned(),
                name: record.name().to_owned(),
            }),
            _ => {
                claims::owners(changed, KIND, dirty);
                if let Some(pod) = claims::found_alone(changed) {
                    selecting(state, pod, dirty);
                }
            }
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
        claims::let_go(state, set.meta(), &mut plan);
        return plan;
    }
    let owned = state.owned::<PodRecord>(set.uid());
    let owned: Vec<_> = owned.filter(|pod| is_controlled(pod, set.uid())).collect();
    let claims = claims(state, set, spec, &owned);
    if !claims.is_empty() {
        claim(set, &claims, stamp, &mut plan);
        return plan;
    }
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

/// The ReplicaSets that select a pod.
fn selecting(state: &State, pod: &PackedPod, dirty: &mut dyn FnMut(Name)) {
    let labels = state.labels(pod);
    for set in state.list::<ReplicaSet>(Some(pod.namespace())) {
        let selector = set.spec.as_ref().and_then(selector);
        if selector.is_some_and(|selector| selector.matches(&labels)) {
            dirty(Name::of(set.meta()));
        }
    }
}

/// What it selects; `None` when that is nothing.
fn selector(spec: &ReplicaSetSpec) -> Option<Selector> {
    // Validation let in nothing that is none, and none that selects everything.
    Selector::try_from(spec.selector.as_ref()?).ok()
}

/// Pods that are not with this ReplicaSet and belong to it, and the other way round.
fn claims<'a>(
    state: &'a State,
    set: &ReplicaSet,
    spec: &ReplicaSetSpec,
    owned: &[&'a Arc<PackedPod>],
) -> Claims<'a> {
    // Pods whose own template is not selected would be released and made anew without end; validation lets in no such template.
    let selector = selector(spec).filter(|it| it.matches(labels_of(spec.template.as_ref())));
    let Some(selector) = selector else {
        return Claims::default();
    };
    let selects = |_: &Revision, labels: &Labels| selector.matches(labels);
    Claims::find(state, set.meta(), owned, selects, |_| true)
}

/// Takes the pods to where they belong. What there is to be made or ended is seen afterwards.
fn claim(set: &ReplicaSet, claims: &Claims<'_>, stamp: &mut Stamp, plan: &mut Plan) {
    let reference = controller_reference(API_VERSION, KIND, set.meta());
    let [released, adopted] = claims.make(&reference, plan);
    if !released.is_empty() {
        let why = "the selector does not select their labels";
        let message = format!("{}: {why}", told("Released", &released));
        tell(set, "ReleasedPod", message, stamp, plan);
    }
    if !adopted.is_empty() {
        tell(set, "AdoptedPod", told("Adopted", &adopted), stamp, plan);
    }
    plan.draft.same(set);
    plan.draft.same_generation(set);
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
        let wanted = labels_of(self.spec.template.as_ref());
        let mut full = Labelled::new(self.state, |_: &Revision, labels: &Labels| {
            let mut wanted = wanted.iter();
            wanted.all(|(key, value)| labels.get(key) == Some(value))
        });
        let labeled = self.group.pods.iter();
        let labeled = labeled.filter(|pod| full.fits(pod));
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

fn tell(set: &ReplicaSet, reason: &str, message: String, stamp: &mut Stamp, plan: &mut Plan) {
    let about = object_reference(API_VERSION, KIND, set.meta());
    let component = "replicaset-controller";
    let severity = Severity::Normal;
    let event = plan::event(stamp, component, about, severity, reason, message);
    plan.draft.event(event);
}
