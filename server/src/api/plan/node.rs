//! Applying nodes: machines join by themselves, people label and cordon them.

use barge_proto::v1::{Node, Taint};
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::{
    controllers::{
        nodes,
        taints::{self, NO_EXECUTE, OUT_OF_SERVICE, UNREACHABLE},
    },
    error::ApiError,
};

impl Merge for Node {
    fn merged(
        planning: &mut Planning<'_>,
        new: Self,
        old: Option<&Self>,
    ) -> Result<Self, ApiError> {
        let Some(old) = old else {
            let name = &new.meta().name;
            return Err(ApiError::Precondition(format!(
                "node {name} does not exist, and nodes are not created by apply: `barge-agent run --join` on the machine \
                 makes it join"
            )));
        };
        let mut wanted = new.spec.unwrap_or_default();
        keep_managed(&mut wanted.taints, old)?;
        for taint in &mut wanted.taints {
            if taint.effect == NO_EXECUTE {
                // What pods tolerate for a time is counted from here.
                taint.time_added.get_or_insert(planning.now);
            }
        }
        let mut merged = old.clone();
        merged.metadata = merged_meta(new.metadata, Some(old.meta()));
        let spec = merged.spec.get_or_insert_default();
        spec.unschedulable = wanted.unschedulable;
        spec.taints = wanted.taints;
        // Its deletion has cordoned it: nothing may be placed there while its pods go.
        if old.is_being_deleted() && merged != *old {
            return Err(ApiError::Conflict(format!(
                "node {} is being deleted and cannot be changed: to keep the machine, let it join again when the node is gone",
                old.meta().name
            )));
        }
        Ok(merged)
    }
}

/// A taint that the leader set stays until the leader removes it, whatever is applied. People may only say that the machine of a
/// silent node is off.
fn keep_managed(wanted: &mut Vec<Taint>, old: &Node) -> Result<(), ApiError> {
    let name = &old.meta().name;
    let is_new = |key: &str| wanted.iter().any(|it| it.key == key) && !taints::has(old, key);
    if is_new(UNREACHABLE) {
        let rule = format!(
            "{UNREACHABLE} is set by the leader: leave it out; `barge node lost {name} --confirm` says that the machine of a \
             silent node is off"
        );
        return Err(ApiError::invalid(format!("node/{name}: spec.taints"), rule));
    }
    if is_new(OUT_OF_SERVICE) && nodes::is_heard(old) {
        return Err(ApiError::Precondition(format!(
            "node {name} is heard: it is not lost, and {OUT_OF_SERVICE} is for the machine of a silent node; to keep new pods \
             away, set spec.unschedulable"
        )));
    }
    if let Some(kept) = taints::of(old)
        .iter()
        .find(|it| taints::is(it, UNREACHABLE))
    {
        match wanted.iter_mut().find(|it| taints::is(it, UNREACHABLE)) {
            Some(taint) => taint.clone_from(kept),
            None => wanted.push(kept.clone()),
        }
    }
    Ok(())
}
