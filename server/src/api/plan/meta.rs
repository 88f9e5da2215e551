//! Metadata: the parts that an applier sets, and the parts that the server sets.

use std::collections::BTreeMap;

use barge_proto::{
    configuration::ROLL,
    kinds::Registry,
    v1::{Object, ObjectMeta, OwnerReference, RecordRef},
};
use barge_state::{RecordKind, State};

use crate::{
    calls::names,
    error::{ApiError, Violation},
};

/// Annotations that the managers keep; an object that is sent without them leaves them alone.
const OURS: &[&str] = &["deployment.kubernetes.io/", "barge.dev/"];
/// Annotations that begin like these and are set by users.
const THEIRS: &[&str] = &[ROLL];

/// Checks that the applier means the object that is there.
///
/// # Errors
/// CONFLICT when uid or resource version are of another one, or when it is being deleted.
pub fn check(new: &ObjectMeta, old: Option<&ObjectMeta>) -> Result<(), ApiError> {
    let name = &new.name;
    let Some(old) = old else {
        if !new.resource_version.is_empty() {
            return Err(ApiError::Conflict(format!(
                "{name} has a resourceVersion, but does not exist (any more): drop it to create {name} anew"
            )));
        }
        return Ok(());
    };
    names::check_uid(name, old, &new.uid)?;
    names::check_current(name, old, &new.resource_version)
}

/// Checks owners that the object did not have yet: what belongs to nothing, or to something in another namespace, would not
/// go with its owner as is wished.
///
/// # Errors
/// INVALID with every owner that is wrong; CONFLICT with one that is being deleted.
pub fn check_owners(
    state: &State,
    kinds: &Registry,
    object: &Object,
    old: Option<&ObjectMeta>,
) -> Result<(), ApiError> {
    let known = old
        .map(|old| old.owner_references.as_slice())
        .unwrap_or_default();
    let owners = object.metadata().owner_references.iter().enumerate();
    let wrong = owners
        .filter(|(_, owner)| !known.contains(owner))
        .filter_map(|(index, owner)| {
            Some(Violation {
                field: format!("{object}: metadata.ownerReferences[{index}]"),
                description: wrong_owner(state, kinds, object.namespace(), owner)?,
            })
        });
    let wrong: Vec<_> = wrong.collect();
    let mut new = object.metadata().owner_references.iter();
    let ends =
        |owner: &&OwnerReference| !known.contains(owner) && state.deletion(&owner.uid).is_some();
    if let Some(owner) = new.find(ends).filter(|_| wrong.is_empty()) {
        let OwnerReference { kind, name, .. } = owner;
        return Err(ApiError::Conflict(format!(
            "{object}: its owner {kind} {name} is being deleted: nothing can belong to it any more"
        )));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(ApiError::Invalid(wrong)),
    }
}

/// Why this cannot be an owner of something in a namespace.
fn wrong_owner(
    state: &State,
    kinds: &Registry,
    namespace: &str,
    owner: &OwnerReference,
) -> Option<String> {
    let OwnerReference {
        api_version,
        kind,
        name,
        uid,
        ..
    } = owner;
    let info = match kinds.by_type(api_version, kind) {
        Ok(info) => info,
        Err(error) => return Some(error.to_string()),
    };
    let found = RecordKind::of(info.kind).and_then(|kind| {
        state.find(&RecordRef {
            kind: kind.number(),
            uid: uid.clone(),
            ..RecordRef::default()
        })
    });
    let singular = &info.singular;
    let Some(found) = found.filter(|found| found.name() == names::record(&info, name)) else {
        return Some(format!("there is no {singular} {name} with the uid {uid}"));
    };
    let place = found.namespace();
    (info.namespaced && place != namespace).then(|| {
        format!(
            "{singular} {name} is in the namespace {place}: an owner is in the same, or in none"
        )
    })
}

/// Whether there are annotations that the managers keep.
pub fn has_ours(meta: &ObjectMeta) -> bool {
    meta.annotations.keys().any(|key| is_ours(key))
}

/// Drops the annotations that the managers keep: an applier that read them did not set them.
pub fn drop_ours(meta: &mut ObjectMeta) {
    meta.annotations.retain(|key, _| !is_ours(key));
}

fn is_ours(annotation: &str) -> bool {
    OURS.iter().any(|prefix| annotation.starts_with(prefix)) && !THEIRS.contains(&annotation)
}

/// Leaves the annotations that the managers keep as they are.
pub fn keep_ours(new: &mut BTreeMap<String, String>, kept: &BTreeMap<String, String>) {
    new.retain(|key, _| !is_ours(key));
    let ours = kept.iter().filter(|(key, _)| is_ours(key));
    new.extend(ours.map(|(key, value)| (key.clone(), value.clone())));
}

/// The metadata of the record. The annotations that the managers keep stay as they are.
pub fn merge(
    new: ObjectMeta,
    old: Option<&ObjectMeta>,
    new_uid: impl FnOnce() -> String,
) -> ObjectMeta {
    let kept = match old {
        Some(old) => old.clone(),
        None => ObjectMeta {
            name: new.name,
            namespace: new.namespace,
            uid: new_uid(),
            ..ObjectMeta::default()
        },
    };
    let mut annotations = new.annotations;
    keep_ours(&mut annotations, &kept.annotations);
    ObjectMeta {
        labels: new.labels,
        annotations,
        owner_references: new.owner_references,
        managed_fields: new.managed_fields,
        ..kept
    }
}

#[cfg(test)]
mod tests;
