//! Pods in numbers, for every owner that keeps some: Deployments and ReplicaSets.
//!
//! An owner's plan says how many pods of a template there should be; this makes the pods that are missing and ends those that are
//! missed least.

pub mod group;
pub mod lost;
pub mod moves;
pub mod order;

use super::{
    Name,
    plan::{MAX_BATCH, Plan},
    pods,
    stamp::Stamp,
};
use barge_state::{PackedPod, Stored};
use std::{sync::Arc, time::Duration};

/// The owner of this kind that a record has.
pub fn owner(record: &Stored, kind: &str) -> Option<Name> {
    let mut owners = record.owners().iter();
    let owner = owners.find(|owner| owner.kind == kind)?;
    Some(Name {
        namespace: record.namespace().to_owned(),
        name: owner.name.clone(),
    })
}

/// Ends pods that have finished; as they no longer count as live, the plan makes others.
pub fn replace_finished(owned: &[&Arc<PackedPod>], stamp: &Stamp, plan: &mut Plan) {
    for pod in owned {
        if !pods::is_finished(pod) || pods::is_terminating(pod) {
            continue;
        }
        match group::held_for(pod, &stamp.now) {
            Some(wait) => plan.look_again(wait),
            None if plan.draft.changes().len() < MAX_BATCH => {
                plan.draft.terminate(pod.uid(), "Replaced");
            }
            None => plan.look_again(Duration::ZERO),
        }
    }
}

/// A count of the API, which validation keeps from being negative.
pub fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// A count for the API.
pub fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
