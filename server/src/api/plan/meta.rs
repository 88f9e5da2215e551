//! Metadata: whose is what.

use barge_proto::v1::ObjectMeta;

use crate::error::ApiError;

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
    if !new.uid.is_empty() && new.uid != old.uid {
        return Err(ApiError::Conflict(format!(
            "{name} is another one now: its uid is {}, not {}",
            old.uid, new.uid
        )));
    }
    if !new.resource_version.is_empty() && new.resource_version != old.resource_version {
        return Err(ApiError::Conflict(format!(
            "{name} has changed: its resourceVersion is {}, not {}",
            old.resource_version, new.resource_version
        )));
    }
    if old.deletion_timestamp.is_some() {
        return Err(ApiError::Conflict(format!("{name} is being deleted")));
    }
    Ok(())
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
    let is_ours = |key: &str| OURS.iter().any(|prefix| key.starts_with(prefix));
    meta.annotations.retain(|key, _| is_ours(key));
    for (key, value) in &new.annotations {
        if !is_ours(key) {
            meta.annotations.insert(key.clone(), value.clone());
        }
    }
    meta
}
