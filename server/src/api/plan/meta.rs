//! Metadata: whose is what.

use barge_proto::v1::ObjectMeta;

use crate::{api::names, error::ApiError};

/// Annotations that the managers keep; an apply without them leaves them alone.
const OURS: &[&str] = &["deployment.kubernetes.io/", "barge.dev/"];

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

/// Drops the annotations that the managers keep: an applier that read them did not set them.
pub fn drop_ours(meta: &mut ObjectMeta) {
    meta.annotations
        .retain(|key, _| !OURS.iter().any(|prefix| key.starts_with(prefix)));
}

/// The metadata of the record.
pub fn merge(
    new: &ObjectMeta,
    old: Option<&ObjectMeta>,
    new_uid: impl FnOnce() -> String,
) -> ObjectMeta {
    let mut meta = match old {
        Some(old) => old.clone(),
        None => ObjectMeta {
            name: new.name.clone(),
            namespace: new.namespace.clone(),
            uid: new_uid(),
            ..ObjectMeta::default()
        },
    };
    meta.labels.clone_from(&new.labels);
    meta.annotations.clone_from(&new.annotations);
    meta.owner_references.clone_from(&new.owner_references);
    meta.managed_fields.clone_from(&new.managed_fields);
    meta
}
