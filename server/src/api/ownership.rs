//! Apply by ownership: each field of an object belongs to the field manager that set it; another manager that sets it to something else has a conflict.
//!
//! Values are the JSON of what appliers may set ([`set`]), field sets are tries of JSON names ([`fields`]), and both are walked
//! with the schema at hand ([`walk`]), which says how lists are merged. The rules are Kubernetes' server-side apply, but that
//!
//! - a field that nobody set and that holds its default is no part of what is merged: defaults are made anew, so that
//!   those of a strategy or an image that has changed do not stay behind;
//! - parties are told apart by name alone where they conflict: what the same name changed by a scale or a rollout
//!   gives way to what it applies.

use std::borrow::Cow;

use barge_proto::{
    kinds::{self, custom::HEAD},
    v1::{Kind, ManagedFieldsEntry, Object, ObjectMeta, Time, object},
    validate,
};
use barge_state::Kind as Recorded;
use serde_json::Value;

pub mod fields;
mod merge;
mod owners;
mod walk;

#[cfg(test)]
mod tests;

use self::{
    fields::FieldSet,
    owners::{APPLY, Owners, UPDATE},
    walk::Type,
};
use crate::{
    error::{ApiError, Violation},
    store::transaction::Draft,
};

/// In whose name a request without a field manager is.
pub const DEFAULT_MANAGER: &str = "barge";

/// Names of field managers.
const MAX_MANAGER: usize = 128;

/// Conflicts that an answer tells one by one.
const MAX_TOLD: usize = 100;

/// What an applier wants: the fields it sets, and in whose name.
#[derive(Debug, Clone)]
pub struct Applier<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// Whether it takes over what others set.
    pub force: bool,
    /// When the request came in.
    pub now: Time,
}

/// The name of a field manager, checked.
///
/// # Errors
/// INVALID for one that is too long or has other than printable characters.
pub fn manager(name: &str) -> Result<&str, ApiError> {
    match name {
        "" => Ok(DEFAULT_MANAGER),
        name if name.len() > MAX_MANAGER || name.chars().any(char::is_control) => {
            let rule = format!("at most {MAX_MANAGER} printable characters");
            Err(ApiError::invalid(
                "field_manager",
                format!("{name:?}: {rule}"),
            ))
        }
        name => Ok(name),
    }
}

/// What appliers do not set by fields of these names: it is the type, set in parts, or the managers'.
const NOT_SET: &[&str] = &["apiVersion", "kind", "metadata", "status"];

/// What appliers may set of an object: labels, annotations, owners, and the spec or what the kind has instead of one.
///
/// # Errors
/// INVALID for an object that has no JSON: only a program can send one.
pub fn set(object: &Object) -> Result<Value, ApiError> {
    // Who owns its fields is not among them, and in JSON may be nested too deep to be read.
    let mut bare = Cow::Borrowed(object);
    if !object.metadata().managed_fields.is_empty()
        && let Some(metadata) = bare.to_mut().metadata_mut()
    {
        metadata.managed_fields.clear();
    }
    let whole = serde_json::to_value(&*bare)
        .map_err(|error| ApiError::invalid(object.to_string(), error.to_string()))?;
    let mut set = serde_json::Map::new();
    if let Value::Object(mut whole) = whole {
        if let Some(Value::Object(mut metadata)) = whole.remove("metadata") {
            metadata.retain(|name, _| walk::SET_METADATA.contains(&name.as_str()));
            if !metadata.is_empty() {
                set.insert("metadata".to_owned(), Value::Object(metadata));
            }
        }
        // Of a registered kind nobody knows who sets its status.
        let not_set = match object.kind() {
            Kind::Custom => HEAD,
            _ => NOT_SET,
        };
        let says = |(name, value): &(String, Value)| {
            !not_set.contains(&name.as_str()) && !walk::is_empty(value)
        };
        set.extend(whole.into_iter().filter(says));
    }
    Ok(Value::Object(set))
}

/// apiVersion and kind of an object: by its kind, or as a registered one says itself.
fn object_type(object: &Object) -> (&str, &str) {
    match object.kind().info() {
        Some(info) => (&info.api_version, &info.name),
        None => object.stated_type(),
    }
}

/// The object with these values in place of what appliers may set.
fn with(object: &Object, mut set: Value) -> Result<Object, ApiError> {
    if let Value::Object(fields) = &mut set {
        let (api_version, kind) = object_type(object);
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.into());
    }
    let mut merged = kinds::deserialize(object.kind(), set)
        .map_err(|error| ApiError::invalid(object.to_string(), error.to_string()))?;
    if let Some(merged) = merged.metadata_mut() {
        let (set, kept) = (std::mem::take(merged), object.metadata());
        *merged = ObjectMeta {
            labels: set.labels,
            annotations: set.annotations,
            owner_references: set.owner_references,
            name: kept.name.clone(),
            namespace: kept.namespace.clone(),
            uid: kept.uid.clone(),
            resource_version: kept.resource_version.clone(),
            generation: kept.generation,
            creation_timestamp: kept.creation_timestamp,
            deletion_timestamp: kept.deletion_timestamp,
            deletion_grace_period_seconds: kept.deletion_grace_period_seconds,
            finalizers: kept.finalizers.clone(),
            managed_fields: kept.managed_fields.clone(),
        };
    }
    Ok(merged)
}

/// The object that comes of applying `config` over `live`, with who set what of it; defaults are filled in. Its metadata
/// beyond what appliers set is `live`'s.
///
/// # Errors
/// FIELD_CONFLICT with every field that others set to other values, and CONFLICT when it cannot be read who set what, unless the
/// applier forces.
pub fn apply(
    live: Option<&Object>,
    config: &Object,
    applier: &Applier<'_>,
) -> Result<Object, ApiError> {
    let root = Type::root(config);
    let wanted = set(config)?;
    let wants = walk::fields_of(&wanted, root);
    let mut owners = Owners::read(live, applier.force)?;
    let Some(live) = live else {
        owners.set(applier.manager, APPLY, wants, applier.now);
        let mut created = defaulted(config, wanted)?;
        if let Some(metadata) = created.metadata_mut() {
            metadata.managed_fields = owners.write(config);
        }
        return Ok(created);
    };
    let there = set(live)?;
    let conflicts = owners.conflicts(&there, &wanted, root, applier.manager);
    if !conflicts.is_empty() && !applier.force {
        let told = conflicts.iter().take(MAX_TOLD);
        let mut told: Vec<_> = told.map(|it| it.violation(config, &there, root)).collect();
        if let Some(more) = conflicts.get(MAX_TOLD..).filter(|more| !more.is_empty()) {
            told.push(Violation {
                field: config.to_string(),
                description: format!("{} more fields were set by others", more.len()),
            });
        }
        return Err(ApiError::FieldConflict(told));
    }
    for conflict in conflicts {
        owners.take(&conflict.path, applier.manager);
    }
    let before = owners.applied_by(applier.manager);
    let others = owners.others(applier.manager);
    let mut value = without_defaults(live, &there, &owners.all(), root)?;
    merge::remove(&mut value, &before, &wants, &others, root);
    merge::merge(&mut value, &wanted, root);
    let mut merged = defaulted(live, value)?;
    // Read from the cluster and applied as it was, an object says nothing new of who wants what.
    let is_news = config.metadata().resource_version.is_empty() || set(&merged)? != there;
    if is_news && let Some(metadata) = merged.metadata_mut() {
        owners.set(applier.manager, APPLY, wants, applier.now);
        metadata.managed_fields = owners.write(config);
    }
    Ok(merged)
}

/// The object that comes of putting `config` in the place of `live`: what it leaves out goes, whoever set it, and defaults are
/// filled in. What differs is the applier's from now on. Its metadata beyond what appliers set is `live`'s.
///
/// # Errors
/// As [`update`].
pub fn replace(live: &Object, config: &Object, applier: &Applier<'_>) -> Result<Object, ApiError> {
    let mut replaced = defaulted(live, set(config)?)?;
    if set(&replaced)? != set(live)? {
        let owners = update(live, &replaced, applier.manager, applier.now)?;
        if let Some(metadata) = replaced.metadata_mut() {
            metadata.managed_fields = owners;
        }
    }
    Ok(replaced)
}

/// Notes that `manager` changed `live` into `changed`, field by field: what differs is its own from now on.
///
/// # Errors
/// INVALID for an object that has no JSON; CONFLICT when it cannot be read who set what.
pub fn update(
    live: &Object,
    changed: &Object,
    manager: &str,
    now: Time,
) -> Result<Vec<ManagedFieldsEntry>, ApiError> {
    let root = Type::root(live);
    let (old, new) = (set(live)?, set(changed)?);
    let sets = walk::fields_of(&new, root);
    let differs = walk::differing(&old, &new, root);
    let mut owners = Owners::read(Some(live), false)?;
    let gone = walk::fields_of(&old, root).without(&sets);
    owners.lose(&differs);
    owners.lose(&gone);
    let mut own = owners.fields(manager, UPDATE);
    own.join(&differs);
    owners.set(manager, UPDATE, own, now);
    Ok(owners.write(live))
}

/// Puts a record that was changed field by field, with who owns its fields now; nothing when it is as it was.
///
/// # Errors
/// As [`update`].
pub fn change<K: Recorded + Into<Object>>(
    draft: &mut Draft,
    found: &K,
    mut changed: K,
    manager: &str,
    now: Time,
) -> Result<(), ApiError> {
    if *found == changed {
        return Ok(());
    }
    let (live, new) = (found.clone().into(), changed.clone().into());
    changed.meta_mut().managed_fields = update(&live, &new, manager, now)?;
    draft.unchanged(found);
    draft.put(changed);
    Ok(())
}

fn defaulted(frame: &Object, set: Value) -> Result<Object, ApiError> {
    let mut object = with(frame, set)?;
    validate::default(&mut object);
    Ok(object)
}

/// What is there, but for what nobody set and defaulting would put there.
fn without_defaults(
    live: &Object,
    there: &Value,
    owned: &FieldSet,
    root: Type,
) -> Result<Value, ApiError> {
    let mut value = there.clone();
    if walk::fields_of(there, root).without(owned).is_empty() {
        return Ok(value);
    }
    let mut alone = there.clone();
    merge::keep(&mut alone, owned, root);
    let mut defaults = defaulted(live, alone)?;
    assign(live, &mut defaults);
    let defaults = set(&defaults)?;
    merge::remove_defaults(&mut value, &defaults, owned, root);
    Ok(value)
}

/// What the server assigned is as good as a default: it is assigned anew, and the same where that still fits.
fn assign(live: &Object, defaults: &mut Object) {
    let (Some(object::Kind::Service(live)), Some(object::Kind::Service(defaults))) =
        (&live.kind, &mut defaults.kind)
    else {
        return;
    };
    let Some(live) = &live.spec else { return };
    let defaults = defaults.spec.get_or_insert_default();
    defaults.cluster_ip.clone_from(&live.cluster_ip);
    defaults.cluster_ips.clone_from(&live.cluster_ips);
    for port in &mut defaults.ports {
        let mut known = live.ports.iter();
        let same = known.find(|p| (p.port, &p.protocol) == (port.port, &port.protocol));
        port.node_port = same.map_or(0, |same| same.node_port);
    }
}
