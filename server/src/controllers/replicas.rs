//! Pods in numbers, for every owner that keeps some: Deployments and ReplicaSets.
//!
//! An owner's plan says how many pods of a template there should be; this makes the pods that are missing and ends those that are
//! missed least.

pub mod claims;
pub mod group;
pub mod lost;
pub mod moves;
pub mod order;

use super::{
    plan::{MAX_BATCH, Plan},
    pods,
    stamp::Stamp,
};
use barge_state::PackedPod;
use std::{sync::Arc, time::Duration};

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

/// The most names that one event tells.
const NAMES: usize = 5;

/// "Created pod: web-x2b7k", with many "Created 500 pods: …".
pub fn told(what: &str, names: &[String]) -> String {
    match names {
        [only] => format!("{what} pod: {only}"),
        _ => {
            let shown = names[..names.len().min(NAMES)].join(", ");
            let more = if names.len() > NAMES { ", …" } else { "" };
            format!("{what} {} pods: {shown}{more}", names.len())
        }
    }
}

/// A count for the API.
pub fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
