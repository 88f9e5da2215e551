//! Turns the step of a rollout into changes: names the pods to make, and picks those to end.

use super::{
    groups::{Group, Groups},
    order::{self, Number},
    rollout::{Step, Steps},
};
use crate::controllers::{
    plan::{self, Plan, Severity, controller_reference, object_reference},
    stamp::Stamp,
};
use barge_proto::v1::{Deployment, ObjectMeta, PodRecord, PodStatus, Revision};
use barge_state::{Kind, State};
use std::{collections::BTreeSet, time::Duration};

/// As Kubernetes cuts generated names, so that they still are host names.
const MAX_BASE: usize = 57;

/// Makes the changes of a rollout's step, at most `room` of them; the plan is asked for again when
/// that is not all.
pub struct Moves<'a> {
    /// Whose pods they are.
    pub deployment: &'a Deployment,
    /// The state that names must not be taken in.
    pub state: &'a State,
    /// Pods that may still be made or ended by this transaction.
    pub room: usize,
    /// Names given out by this plan.
    taken: BTreeSet<String>,
    /// Which of the Deployment's plans that make pods this is, once it makes some.
    number: Option<u64>,
}

impl<'a> Moves<'a> {
    /// With room for that many pods.
    pub fn new(state: &'a State, deployment: &'a Deployment, room: usize) -> Self {
        Self {
            deployment,
            state,
            room,
            taken: BTreeSet::new(),
            number: None,
        }
    }

    /// Adds the changes to the plan. New pods are made only once all that have to go are among the
    /// changes: the limit of pods was counted with those gone.
    pub fn make(
        mut self,
        groups: &Groups<'_>,
        newest: &Revision,
        steps: &Steps,
        stamp: &mut Stamp,
        plan: &mut Plan,
    ) {
        let all = || {
            let old = groups.old.iter().zip(&steps.old);
            std::iter::once((&groups.new, &steps.new)).chain(old)
        };
        let mut complete = true;
        for (group, step) in all() {
            complete &= self.end(group, newest, step, stamp, plan);
        }
        if complete {
            for (group, step) in all() {
                let revision = group.revision.map_or(newest, |revision| revision);
                complete &= self.create(group, revision, step, stamp, plan);
            }
        }
        if !complete {
            plan.look_again(Duration::ZERO);
        }
    }

    /// Returns whether there was room for all.
    fn end(
        &mut self,
        group: &Group<'_>,
        newest: &Revision,
        step: &Step,
        stamp: &mut Stamp,
        plan: &mut Plan,
    ) -> bool {
        let wanted = step.end_unavailable + step.end_available;
        if wanted == 0 {
            return true;
        }
        let min_ready = self.min_ready_seconds();
        let unavailable = step.end_unavailable.min(self.room);
        let number = Number {
            unavailable,
            available: step.end_available.min(self.room - unavailable),
        };
        let mut ended = 0;
        for pod in order::least_missed(&group.pods, number, min_ready, &stamp.now) {
            plan.draft.terminate(pod.uid(), "");
            ended += 1;
        }
        self.room -= ended;
        let revision = group.revision.map_or(newest, |revision| revision);
        self.scaled(
            "down",
            revision,
            group,
            group.count.total - ended,
            stamp,
            plan,
        );
        ended == wanted
    }

    /// Returns whether there was room for all.
    fn create(
        &mut self,
        group: &Group<'_>,
        revision: &Revision,
        step: &Step,
        stamp: &mut Stamp,
        plan: &mut Plan,
    ) -> bool {
        if step.create == 0 {
            return true;
        }
        let number = step.create.min(self.room);
        if number > 0 && self.number.is_none() {
            let salt = stamp.salt();
            self.number = plan
                .draft
                .made::<PodRecord, _>(self.state, self.deployment, salt);
        }
        for _ in 0..number {
            let pod = self.pod(revision, stamp);
            plan.draft.put(pod);
        }
        self.room -= number;
        if number > 0 {
            let total = group.count.total + number;
            self.scaled("up", revision, group, total, stamp, plan);
        }
        number == step.create
    }

    fn pod(&mut self, revision: &Revision, stamp: &mut Stamp) -> PodRecord {
        let owner = self.deployment.meta();
        let base = cut(&revision.meta().name);
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
                owner_references: vec![controller_reference("apps/v1", "Deployment", owner)],
                ..ObjectMeta::default()
            }),
            template_uid: revision.uid().to_owned(),
            status: Some(PodStatus {
                phase: "Pending".to_owned(),
                ..PodStatus::default()
            }),
            ..PodRecord::default()
        }
    }

    fn scaled(
        &self,
        direction: &str,
        revision: &Revision,
        group: &Group<'_>,
        to: usize,
        stamp: &mut Stamp,
        plan: &mut Plan,
    ) {
        let name = &revision.meta().name;
        let from = group.count.total;
        let about = object_reference("apps/v1", "Deployment", self.deployment.meta());
        let message = format!("Scaled {direction} revision {name} from {from} to {to}");
        let event = plan::event(
            stamp,
            "deployment-controller",
            about,
            Severity::Normal,
            "ScalingReplicaSet",
            message,
        );
        plan.draft.event(event);
    }

    fn min_ready_seconds(&self) -> i32 {
        self.deployment
            .spec
            .as_ref()
            .map_or(0, |spec| spec.min_ready_seconds)
    }
}

/// The start of a name that leaves room for an ending, and doesn't end in a hyphen or a dot.
fn cut(base: &str) -> &str {
    let end = base.len().min(MAX_BASE);
    // Names are ASCII; one that isn't stays whole rather than being cut in a character.
    base.get(..end).unwrap_or(base).trim_end_matches(['-', '.'])
}
