//! A Deployment's status, with Kubernetes' conditions and reasons.

use super::budget::Budget;
use crate::controllers::{
    conditions,
    replicas::{group::Count, number},
    stamp,
};
use barge_proto::v1::{Condition, Deployment, DeploymentSpec, DeploymentStatus, Time};
use barge_state::Kind;
use std::time::Duration;

/// The condition that says whether a rollout moves.
const PROGRESSING: &str = "Progressing";
/// The condition that says whether enough pods serve.
const AVAILABLE: &str = "Available";
/// The condition of a Deployment that is to roll with its configuration, while something of that is missing.
const CONFIGURED: &str = "ConfigurationFound";
/// The reason of Progressing once a rollout is through.
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const WAITING: &str = "WaitingForLostPods";
const PAUSED: &str = "DeploymentPaused";
/// Seconds without progress until a rollout counts as failed, when the Deployment doesn't say.
const DEFAULT_DEADLINE: i32 = 600;

/// What the status is made from.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Live pods of the template's revision, and how many are ready.
    pub new: Count,
    /// Live pods of all revisions.
    pub all: Count,
    /// Of all, those that are ready.
    pub ready: usize,
    /// The newest revision's name.
    pub revision: &'a str,
    /// When this plan made the template the newest revision: the reason for Progressing.
    pub begun: Option<Begun>,
    /// What the pods need and is not there, of a Deployment that is to roll with it.
    pub missing: Option<&'a str>,
    /// Lost pods of earlier revisions that have to end before any of the newest one begins.
    pub waits_for: usize,
}

/// How a rollout began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// With a template that is new.
    Created,
    /// With one that is in the history.
    Found,
}

/// The status as it should be, and how long until a deadline would change it.
pub fn status(
    deployment: &Deployment,
    budget: &Budget,
    observed: &Observed<'_>,
    now: Time,
) -> (DeploymentStatus, Option<Duration>) {
    let empty = DeploymentStatus::default();
    let old = deployment.status.as_ref().unwrap_or(&empty);
    let mut status = DeploymentStatus {
        observed_generation: deployment.meta().generation,
        replicas: number(observed.all.total),
        updated_replicas: number(observed.new.total),
        ready_replicas: number(observed.ready),
        available_replicas: number(observed.all.available),
        // As Kubernetes counts: against the pods that should be there, also while they are still
        // missing.
        unavailable_replicas: number(
            observed
                .all
                .total
                .max(budget.replicas)
                .saturating_sub(observed.all.available),
        ),
        conditions: old.conditions.clone(),
    };
    let enough = observed.all.available >= budget.min_available();
    let (value, reason, message) = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    conditions::set(
        &mut status.conditions,
        AVAILABLE,
        value,
        reason,
        message,
        now,
    );
    match observed.missing {
        Some(missing) => {
            let message = format!(
                "{missing} does not exist, and the pods need it: no change of configuration rolls them until it is there"
            );
            let conditions = &mut status.conditions;
            conditions::set(conditions, CONFIGURED, "False", "NotFound", &message, now);
        }
        None => status.conditions.retain(|it| it.r#type != CONFIGURED),
    }
    let empty = DeploymentSpec::default();
    let spec = deployment.spec.as_ref().unwrap_or(&empty);
    let again = progress(spec, budget, observed, old, &mut status, now);
    (status, again)
}

fn progress(
    spec: &DeploymentSpec,
    budget: &Budget,
    observed: &Observed<'_>,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    now: Time,
) -> Option<Duration> {
    let revision = observed.revision;
    let current = conditions::find(&old.conditions, PROGRESSING);
    let reason = current.map_or("", |condition| &condition.reason);
    let progressed = moved(old, status);
    let conditions = &mut status.conditions;
    if spec.paused {
        let message = "Deployment is paused";
        conditions::set(conditions, PROGRESSING, "Unknown", PAUSED, message, now);
        return None;
    }
    if reason == PAUSED {
        // The time that it was paused doesn't count against the deadline.
        let message = "Deployment is resumed";
        conditions::set(
            conditions,
            PROGRESSING,
            "Unknown",
            "DeploymentResumed",
            message,
            now,
        );
        return Some(Duration::ZERO);
    }
    match observed.begun {
        Some(Begun::Created) => {
            let message = format!("Created new revision \"{revision}\"");
            mark(conditions, "True", "NewReplicaSetCreated", &message, now);
            return Some(deadline(spec));
        }
        Some(Begun::Found) => {
            let message = format!("Found earlier revision \"{revision}\"");
            mark(conditions, "True", "FoundNewReplicaSet", &message, now);
            return Some(deadline(spec));
        }
        None => {}
    }
    if reason == COMPLETE && status.replicas == status.updated_replicas {
        // A scale or a pod that fails later is not a rollout.
        return None;
    }
    let wanted = number(budget.replicas);
    if status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
    {
        let message = format!("Revision \"{revision}\" has successfully progressed.");
        mark(conditions, "True", COMPLETE, &message, now);
        return None;
    }
    if progressed {
        let message = format!("Revision \"{revision}\" is progressing.");
        mark(conditions, "True", "ReplicaSetUpdated", &message, now);
        return Some(deadline(spec));
    }
    if reason == TIMED_OUT || reason == COMPLETE {
        return None;
    }
    if observed.waits_for > 0 {
        let message = format!(
            "Revision \"{revision}\" waits for {} pods of earlier ones that may still run on lost nodes. Once such a machine is off, \
             `barge node lost NODE --confirm` goes on without them.",
            observed.waits_for
        );
        conditions::set(conditions, PROGRESSING, "True", WAITING, &message, now);
    }
    let current = conditions::find(conditions, PROGRESSING);
    let since = current.and_then(|condition| condition.last_update_time)?;
    let left = deadline(spec).saturating_sub(stamp::age(&now, &since));
    if left.is_zero() {
        let message = format!("Revision \"{revision}\" has timed out progressing.");
        conditions::set(conditions, PROGRESSING, "False", TIMED_OUT, &message, now);
        return None;
    }
    Some(left)
}

/// Sets Progressing and, unlike an ordinary condition, its time even when nothing else changes: it
/// is what the deadline counts from.
fn mark(conditions: &mut Vec<Condition>, status: &str, reason: &str, message: &str, now: Time) {
    conditions::set(conditions, PROGRESSING, status, reason, message, now);
    for condition in conditions {
        if condition.r#type == PROGRESSING {
            condition.last_update_time = Some(now);
        }
    }
}

fn moved(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let outdated = |status: &DeploymentStatus| status.replicas - status.updated_replicas;
    new.updated_replicas > old.updated_replicas
        || outdated(new) < outdated(old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn deadline(spec: &DeploymentSpec) -> Duration {
    let seconds = spec.progress_deadline_seconds.unwrap_or(DEFAULT_DEADLINE);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
