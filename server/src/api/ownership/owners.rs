//! The owners of an object's fields, in its metadata.

use std::collections::BTreeMap;

use barge_proto::v1::{FieldsV1, Kind, ManagedFieldsEntry, Object, Time};
use serde_json::Value;

use super::{
    fields::{self, FieldSet},
    object_type,
    walk::{self, Type},
};
use crate::error::{ApiError, Violation};

/// What is set by applying: it goes when it is left out of the next apply.
pub const APPLY: &str = "Apply";
/// What is set one by one.
pub const UPDATE: &str = "Update";
const FIELDS_TYPE: &str = "FieldsV1";

fn unreadable(object: &Object, manager: &str, error: &serde_json::Error) -> ApiError {
    ApiError::Conflict(format!(
        "{object}: the fields that {manager:?} owns cannot be read from metadata.managedFields ({error}): apply with force to take them over"
    ))
}

/// The owned fields of each field manager and operation.
#[derive(Debug, Default)]
pub struct Owners(BTreeMap<(String, String), Owner>);

#[derive(Debug, Default)]
struct Owner {
    fields: FieldSet,
    /// Until it changes, the time of its last change.
    time: Option<Time>,
    /// As it was read.
    raw: String,
}

impl Owners {
    /// The owners in an object's metadata; none without an object.
    ///
    /// # Errors
    /// CONFLICT, naming the manager whose fields cannot be read; with `force`, such a manager owns nothing.
    pub fn read(live: Option<&Object>, force: bool) -> Result<Self, ApiError> {
        let Some(live) = live else {
            return Ok(Self::default());
        };
        let mut owners = BTreeMap::new();
        for entry in &live.metadata().managed_fields {
            let raw = entry.fields_v1.clone().unwrap_or_default().raw;
            let fields = match FieldSet::decode(&raw) {
                Ok(fields) => fields,
                Err(_) if force => continue,
                Err(error) => return Err(unreadable(live, &entry.manager, &error)),
            };
            let time = entry.time;
            let owner = Owner { fields, time, raw };
            owners.insert((entry.manager.clone(), entry.operation.clone()), owner);
        }
        Ok(Self(owners))
    }

    /// As entries of an object's metadata; managers without fields are left out.
    pub fn write(self, object: &Object) -> Vec<ManagedFieldsEntry> {
        let (api_version, _) = object_type(object);
        let owners = self.0.into_iter();
        owners
            .filter(|(_, owner)| !owner.fields.is_empty())
            .map(|((manager, operation), owner)| ManagedFieldsEntry {
                manager,
                operation,
                api_version: api_version.to_owned(),
                time: owner.time,
                fields_type: FIELDS_TYPE.to_owned(),
                fields_v1: Some(FieldsV1 {
                    raw: owner.fields.encode(),
                }),
            })
            .collect()
    }

    /// What a manager set by an operation.
    pub fn fields(&self, manager: &str, operation: &str) -> FieldSet {
        let key = (manager.to_owned(), operation.to_owned());
        self.0
            .get(&key)
            .map(|o| o.fields.clone())
            .unwrap_or_default()
    }

    /// What this manager applied last.
    pub fn applied_by(&self, manager: &str) -> FieldSet {
        self.fields(manager, APPLY)
    }

    /// Replaces what a manager set by an operation.
    pub fn set(&mut self, manager: &str, operation: &str, fields: FieldSet, now: Time) {
        let key = (manager.to_owned(), operation.to_owned());
        if operation == APPLY {
            // What it set one by one and now applies is applied.
            for ((_, other), owner) in self.0.iter_mut().filter(|((m, _), _)| m == manager) {
                if other == UPDATE {
                    owner.fields = owner.fields.without(&fields);
                }
            }
        }
        let owner = self.0.entry(key).or_default();
        owner.fields = fields;
        if owner.time.is_none() || owner.fields.encode() != owner.raw {
            owner.time = Some(now);
        }
    }

    /// What anybody set.
    pub fn all(&self) -> FieldSet {
        self.joined(|_| true)
    }

    /// What is not applied by this manager: others' fields, and its own that were set one by one.
    pub fn others(&self, manager: &str) -> FieldSet {
        self.joined(|(name, operation)| name != manager || operation != APPLY)
    }

    fn joined(&self, which: impl Fn(&(String, String)) -> bool) -> FieldSet {
        let mut all = FieldSet::default();
        for (_, owner) in self.0.iter().filter(|(key, _)| which(key)) {
            all.join(&owner.fields);
        }
        all
    }

    /// The fields of `wanted` that other managers set to other values.
    pub fn conflicts(
        &self,
        live: &Value,
        wanted: &Value,
        root: Type,
        manager: &str,
    ) -> Vec<Conflict> {
        let differs = walk::differing(live, wanted, root);
        let mut found = Vec::new();
        for ((owner, _), theirs) in self.0.iter().filter(|((name, _), _)| name != manager) {
            differs.common(&theirs.fields, &mut Vec::new(), &mut |path| {
                // An item is no conflict in itself; what is in it may be.
                if !walk::is_item(path) {
                    found.push(Conflict {
                        path: path.to_vec(),
                        owner: owner.clone(),
                    });
                }
            });
        }
        found
    }

    /// These fields have no owner any more.
    pub fn lose(&mut self, fields: &FieldSet) {
        for owner in self.0.values_mut() {
            owner.fields = owner.fields.without(fields);
        }
    }

    /// Others own this field no longer.
    pub fn take(&mut self, path: &[String], manager: &str) {
        for (_, owner) in self.0.iter_mut().filter(|((name, _), _)| name != manager) {
            owner.fields.remove(path);
        }
    }
}

/// A field that another manager set to another value.
pub struct Conflict {
    /// Where it is.
    pub path: Vec<String>,
    owner: String,
}

impl Conflict {
    /// As an answer tells it.
    pub fn violation(&self, object: &Object, live: &Value, root: Type) -> Violation {
        // Messages go to logs.
        let value = match object.kind() {
            Kind::Secret => "another value".to_owned(),
            _ => walk::shown(walk::at(live, root, &self.path)),
        };
        Violation {
            field: format!("{object}: {}", fields::shown(&self.path)),
            description: format!(
                "was set to {value} by field manager {:?}: leave it out, set it to the same, or take it over with \
                 --force-conflicts",
                self.owner
            ),
        }
    }
}
