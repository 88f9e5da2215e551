//! Which revision a template is, and which revisions are history.

use super::configuration::{DIGEST, digest_of, without_digest};
use crate::controllers::{
    plan::{Plan, controller_reference},
    replicas::count,
    stamp::{NAME_ALPHABET, Stamp},
};
use barge_proto::v1::{Deployment, ObjectMeta, PodTemplateSpec, ReplicaSet, Revision};
use barge_state::{Kind, REPLICA_SETS, State};

pub use barge_state::HASH_LABEL;
use prost::Message;
use std::sync::Arc;

/// Old revisions that are kept when the Deployment doesn't say.
const DEFAULT_HISTORY: i32 = 10;

/// The template that the Deployment's pods are to be made from, without our label.
pub fn wanted(deployment: &Deployment, digest: Option<String>) -> PodTemplateSpec {
    let mut template = template(deployment);
    if let Some(digest) = digest {
        let metadata = template.metadata.get_or_insert_default();
        metadata.annotations.insert(DIGEST.to_owned(), digest);
    }
    template
}

/// The revision that the template is, among those that its Deployment owns: equal but for the label
/// that we add.
pub fn matching<'a>(
    wanted: &PodTemplateSpec,
    revisions: &[&'a Arc<Revision>],
) -> Option<&'a Arc<Revision>> {
    revisions
        .iter()
        .rev()
        .find(|revision| {
            revision
                .template
                .as_ref()
                .is_some_and(|template| without_hash(template) == *wanted)
        })
        .copied()
}

/// Makes a template the Deployment's newest revision: an equal old one is numbered anew,
/// otherwise one is made. `revisions` are those it owns, oldest first.
pub fn make_newest(
    state: &State,
    deployment: &Deployment,
    wanted: PodTemplateSpec,
    revisions: &[&Arc<Revision>],
    stamp: &mut Stamp,
    plan: &mut Plan,
) -> Revision {
    let number = revisions.last().map_or(0, |newest| newest.number) + 1;
    let revision = match matching(&wanted, revisions) {
        Some(old) => Revision {
            number,
            ..Revision::clone(old)
        },
        None => {
            let new = new(state, deployment, wanted, number, stamp);
            if state.feature_level() >= REPLICA_SETS {
                // It is shown as a ReplicaSet of that name.
                let meta = new.meta();
                plan.draft.absent::<ReplicaSet>(&meta.namespace, &meta.name);
            }
            new
        }
    };
    plan.draft.put(revision.clone());
    revision
}

fn new(
    state: &State,
    deployment: &Deployment,
    mut template: PodTemplateSpec,
    number: i64,
    stamp: &mut Stamp,
) -> Revision {
    let owner = deployment.meta();
    let hash = free_hash(state, owner, &template);
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.insert(HASH_LABEL.to_owned(), hash.clone());
    Revision {
        metadata: Some(ObjectMeta {
            name: format!("{}-{hash}", owner.name),
            namespace: owner.namespace.clone(),
            uid: stamp.uid(),
            labels: metadata.labels.clone(),
            owner_references: vec![controller_reference("apps/v1", "Deployment", owner)],
            ..ObjectMeta::default()
        }),
        number,
        template: Some(template),
        status: None,
    }
}

/// A hash of the template whose name nobody has: another template may have the same hash, and a
/// Deployment of the same name that was deleted may have left pods that still end, and with them
/// their revision.
fn free_hash(state: &State, owner: &ObjectMeta, template: &PodTemplateSpec) -> String {
    let encoded = template.encode_to_vec();
    let mut attempt = 0_u64;
    loop {
        let hash = hash(&encoded, attempt);
        let name = format!("{}-{hash}", owner.name);
        let is_set = state.get::<ReplicaSet>(&owner.namespace, &name).is_some();
        if !is_set && state.get::<Revision>(&owner.namespace, &name).is_none() {
            return hash;
        }
        // Ends: there are more hashes than records.
        attempt += 1;
    }
}

/// FNV-1a in Kubernetes' alphabet for names. Maps are encoded in order, so equal templates have
/// equal hashes.
fn hash(encoded: &[u8], attempt: u64) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let salt = attempt.to_le_bytes();
    // Attempt 0 adds nothing but zeros.
    let mut hash = encoded.iter().chain(&salt).fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    // Fold the high bits in: FNV's low ones are its weakest, and they come first below.
    hash ^= hash >> 32;
    (0..10)
        .map(|_| {
            let digit = usize::try_from(hash % 27).unwrap_or(0);
            hash /= 27;
            char::from(NAME_ALPHABET[digit])
        })
        .collect()
}

/// Forgets the oldest revisions without pods beyond the limit; `used` says of a uid
/// whether the revision has pods or is the newest. Of revisions that differ only by the digest of their configuration the latest stays: nothing goes back to
/// the others.
pub fn forget_old(
    deployment: &Deployment,
    revisions: &[&Arc<Revision>],
    used: impl Fn(&str) -> bool,
    plan: &mut Plan,
) {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(DEFAULT_HISTORY);
    let mut history = Vec::new();
    for (index, revision) in revisions.iter().enumerate() {
        if used(revision.uid()) {
            continue;
        }
        let later = &revisions[index + 1..];
        if later.iter().any(|later| differ_by_digest(revision, later)) {
            plan.draft.remove::<Revision>(revision.uid());
        } else {
            history.push(revision);
        }
    }
    let excess = history.len().saturating_sub(count(limit));
    for revision in history.into_iter().take(excess) {
        plan.draft.remove::<Revision>(revision.uid());
    }
}

/// Whether two revisions are one template as it was written, with another configuration.
fn differ_by_digest(one: &Revision, other: &Revision) -> bool {
    let written = |it: &Revision| it.template.as_ref().map(as_written);
    digest_of(one) != digest_of(other) && written(one) == written(other)
}

fn template(deployment: &Deployment) -> PodTemplateSpec {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .map(|template| without_hash(&template))
        .unwrap_or_default()
}

/// The template without our label and without an empty metadata, so that only what a user wrote is
/// compared.
fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        metadata.labels.remove(HASH_LABEL);
        if *metadata == ObjectMeta::default() {
            template.metadata = None;
        }
    }
    template
}

/// A revision's template as the Deployment's author wrote it.
pub fn as_written(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    without_digest(&mut template);
    without_hash(&template)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hashes_differ_by_template_and_attempt() {
        let hashes: BTreeSet<_> = (0..100_u8)
            .flat_map(|byte| (0..10).map(move |attempt| hash(&[byte], attempt)))
            .collect();
        assert_eq!(hashes.len(), 1000);
        assert!(hashes.iter().all(|hash| hash.len() == 10));
    }
}
