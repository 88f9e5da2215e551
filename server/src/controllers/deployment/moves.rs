//! Makes the moves of a rollout's step, of all revisions.

use super::{groups::Groups, rollout::Steps};
use crate::controllers::{
    plan::{self, MAX_BATCH, Plan, Severity, controller_reference, object_reference},
    replicas::{
        group::{Group, Step},
        moves::Moves,
    },
    stamp::Stamp,
};
use barge_proto::v1::{Deployment, Revision};
use barge_state::{Kind, State};
use std::time::Duration;

/// Adds the changes to the plan; it is asked for again when there is no room for all. New pods are made only once all that have to go
/// are among the changes: the limit of pods was counted with those gone.
pub fn make(
    state: &State,
    deployment: &Deployment,
    groups: &Groups<'_>,
    newest: &Revision,
    steps: &Steps,
    stamp: &mut Stamp,
    plan: &mut Plan,
) {
    let owner = deployment.meta();
    let reference = controller_reference("apps/v1", "Deployment", owner);
    let min_ready = deployment
        .spec
        .as_ref()
        .map_or(0, |it| it.min_ready_seconds);
    let room = MAX_BATCH.saturating_sub(plan.draft.changes().len());
    let mut moves = Moves::new(state, deployment, reference, min_ready, room);
    let old = groups.old.iter().zip(&steps.old);
    let all: Vec<(&Group<'_>, &Step)> = std::iter::once((&groups.new, &steps.new))
        .chain(old)
        .collect();
    let mut complete = true;
    for (group, step) in &all {
        let ended = moves.end(group, step, stamp, plan);
        complete &= ended.complete;
        if !ended.names.is_empty() {
            let to = group.count.total - ended.names.len();
            scaled(deployment, "down", group, newest, to, stamp, plan);
        }
    }
    if complete {
        for (group, step) in &all {
            let revision = group.revision.map_or(newest, |revision| revision);
            let base = &revision.meta().name;
            let made = moves.create(revision, base, step, stamp, plan);
            complete &= made.complete;
            if !made.names.is_empty() {
                let to = group.count.total + made.names.len();
                scaled(deployment, "up", group, newest, to, stamp, plan);
            }
        }
    }
    if !complete {
        plan.look_again(Duration::ZERO);
    }
}

fn scaled(
    deployment: &Deployment,
    direction: &str,
    group: &Group<'_>,
    newest: &Revision,
    to: usize,
    stamp: &mut Stamp,
    plan: &mut Plan,
) {
    let revision = group.revision.map_or(newest, |revision| revision);
    let name = &revision.meta().name;
    let from = group.count.total;
    let about = object_reference("apps/v1", "Deployment", deployment.meta());
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
