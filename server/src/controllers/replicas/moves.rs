//! Turns steps into changes: names the pods to make, and picks those to end.

use super::{
    group::{Group, Step},
    order::{self, Number},
};
use crate::controllers::{plan::Plan, stamp::Stamp};
use barge_proto::v1::{ObjectMeta, OwnerReference, PodRecord, PodStatus, Revision};
use barge_state::{Kind, State};
use std::collections::BTreeSet;

/// As Kubernetes cuts generated names, so that they still are host names.
const MAX_BASE: usize = 57;

/// Pods that a step made or ended.
#[derive(Debug, Default)]
pub struct Moved {
    /// Their names.
    pub names: Vec<String>,
    /// Whether that was all of the step.
    pub complete: bool,
}

/// Makes the changes of an owner's steps, at most `room` of them.
pub struct Moves<'a, O> {
    /// Whose pods they are.
    owner: &'a O,
    /// The reference of its pods to it.
    reference: OwnerReference,
    /// Seconds that a pod must be ready before it counts as available.
    min_ready_seconds: i32,
    /// The state that names must not be taken in.
    state: &'a State,
    /// Pods that may still be made or ended by this transaction.
    room: usize,
    /// Names given out by this plan.
    taken: BTreeSet<String>,
    /// Which of the owner's plans that make pods this is, once it makes some.
    number: Option<u64>,
}

impl<'a, O: Kind> Moves<'a, O> {
    /// With room for that many pods.
    pub fn new(
        state: &'a State,
        owner: &'a O,
        reference: OwnerReference,
        min_ready_seconds: i32,
        room: usize,
    ) -> Self {
        Self {
            owner,
            reference,
            min_ready_seconds,
            state,
            room,
            taken: BTreeSet::new(),
            number: None,
        }
    }

    /// Ends the pods of a group that are missed least.
    pub fn end(&mut self, group: &Group<'_>, step: &Step, stamp: &Stamp, plan: &mut Plan) -> Moved {
        let wanted = step.end_unavailable + step.end_available;
        let unavailable = step.end_unavailable.min(self.room);
        let number = Number {
            unavailable,
            available: step.end_available.min(self.room - unavailable),
        };
        if wanted == 0 {
            return Moved::nothing();
        }
        let picked = order::least_missed(&group.pods, number, self.min_ready_seconds, &stamp.now);
        let names: Vec<_> = picked.iter().map(|pod| pod.name().to_owned()).collect();
        for pod in picked {
            plan.draft.terminate(pod.uid(), "");
        }
        self.room -= names.len();
        Moved {
            complete: names.len() == wanted,
            names,
        }
    }

    /// Makes pods of a template, whose names begin with `base`.
    pub fn create(
        &mut self,
        template: &Revision,
        base: &str,
        step: &Step,
        stamp: &mut Stamp,
        plan: &mut Plan,
    ) -> Moved {
        let number = step.create.min(self.room);
        if number > 0 && self.number.is_none() {
            let salt = stamp.salt();
            self.number = plan
                .draft
                .made::<PodRecord, _>(self.state, self.owner, salt);
        }
        let mut names = Vec::with_capacity(number);
        for _ in 0..number {
            let pod = self.pod(template, cut(base), stamp);
            names.push(pod.meta().name.clone());
            plan.draft.put(pod);
        }
        self.room -= number;
        Moved {
            names,
            complete: number == step.create,
        }
    }

    fn pod(&mut self, template: &Revision, base: &str, stamp: &mut Stamp) -> PodRecord {
        let owner = self.owner.meta();
        let name = loop {
            let name = format!("{base}-{}", stamp.suffix());
            // Ends: no namespace has 27^5 pods of one revision.
            let known = self.state.get::<PodRecord>(&owner.namespace, &name);
            if known.is_none() && self.taken.insert(name.clone()) {
                break name;
            }
        };
        PodRecord {
            metadata: Some(ObjectMeta {
                name,
                namespace: owner.namespace.clone(),
                uid: stamp.made_uid(self.number),
                owner_references: vec![self.reference.clone()],
                ..ObjectMeta::default()
            }),
            template_uid: template.uid().to_owned(),
            status: Some(PodStatus {
                phase: "Pending".to_owned(),
                ..PodStatus::default()
            }),
            ..PodRecord::default()
        }
    }
}

impl Moved {
    /// By a step without anything of that.
    fn nothing() -> Self {
        Self {
            names: Vec::new(),
            complete: true,
        }
    }
}

/// The start of a name that leaves room for an ending, and doesn't end in a hyphen or a dot.
fn cut(base: &str) -> &str {
    let end = base.len().min(MAX_BASE);
    // Names are ASCII; one that isn't stays whole rather than being cut in a character.
    base.get(..end).unwrap_or(base).trim_end_matches(['-', '.'])
}
