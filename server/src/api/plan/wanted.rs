//! From what an applier sends to the objects that are meant: checked, merged with what there is, validated.

use std::collections::BTreeSet;

use barge_proto::{
    v1::{Kind, Object, object},
    validate,
};
use barge_state::State;

use super::{Stamp, meta};
use crate::{
    api::{
        names,
        ownership::{self, Applier},
        vault::Vault,
    },
    error::{ApiError, Violation},
};

/// What an applier wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The objects, each with its namespace; what they leave out is left out.
    objects: Vec<Object>,
    /// In whose name.
    manager: String,
    /// Whether it takes over what others set.
    force: bool,
}

impl Wanted {
    /// The objects that were asked for.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }
}

/// An object with what is wanted merged into what there is, as it is kept: the values of Secrets are sealed.
#[derive(Debug, Clone)]
pub struct Merged {
    pub object: Object,
    /// The resourceVersion of what there was; empty for nothing.
    pub basis: String,
}

/// Checks a request, whatever the state: what can be said to be wrong of it alone.
///
/// # Errors
/// INVALID with all fields that break rules.
pub fn prepare(objects: Vec<Object>, manager: &str, force: bool) -> Result<Wanted, ApiError> {
    let manager = ownership::manager(manager)?.to_owned();
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    let mut prepared = Vec::with_capacity(objects.len());
    for mut object in objects {
        let kind = object.kind();
        let Some(info) = kind.info() else {
            violations.push(Violation {
                field: "objects".to_owned(),
                description: "an object without a kind".to_owned(),
            });
            continue;
        };
        let named = object.to_string();
        if matches!(kind, Kind::Event | Kind::Endpoints) {
            violations.push(Violation {
                field: named,
                description: format!(
                    "{} are kept by the managers and cannot be applied",
                    info.plural
                ),
            });
            continue;
        }
        if let Some(meta) = object.metadata_mut() {
            names::namespace(info, &meta.namespace.clone()).clone_into(&mut meta.namespace);
            meta::drop_ours(meta);
        }
        if let Some(object::Kind::Secret(secret)) = &mut object.kind {
            secret.fold_string_data();
        }
        let key = (
            kind as i32,
            object.namespace().to_owned(),
            object.name().to_owned(),
        );
        if !seen.insert(key) {
            violations.push(Violation {
                field: named,
                description: "is there twice".to_owned(),
            });
        }
        prepared.push(object);
    }
    match violations.is_empty() {
        true => Ok(Wanted {
            objects: prepared,
            manager,
            force,
        }),
        false => Err(ApiError::Invalid(violations)),
    }
}

/// What there is of the objects that are wanted.
#[must_use]
pub fn there(state: &State, wanted: &Wanted) -> Vec<Option<Object>> {
    let objects = wanted.objects.iter();
    let find = |o: &Object| state.object(o.kind(), o.namespace(), o.name());
    objects.map(find).collect()
}

/// Merges what is wanted into what there is, and validates what comes of it.
///
/// # Errors
/// CONFLICT for another incarnation or version; INVALID with every field of every object that breaks a rule; FIELD_CONFLICT
/// with every field that others set to other values.
pub fn merge(
    wanted: &Wanted,
    there: &[Option<Object>],
    vault: &Vault,
    stamp: &Stamp,
) -> Result<Vec<Merged>, ApiError> {
    let applier = Applier {
        manager: &wanted.manager,
        force: wanted.force,
        now: stamp.now,
    };
    let (mut broken, mut conflicts) = (Vec::new(), Vec::new());
    let mut merged = Vec::with_capacity(wanted.objects.len());
    for (config, kept) in wanted.objects.iter().zip(there) {
        let live = kept.clone().map(|kept| vault.open(kept)).transpose()?;
        let live = live.as_ref();
        meta::check(config.metadata(), live.map(Object::metadata))?;
        let object = match config.kind() {
            // Pods do not change, and are owned by nobody.
            Kind::Pod => {
                let mut pod = config.clone();
                validate::default(&mut pod);
                pod
            }
            _ => match ownership::apply(live, config, &applier) {
                Ok(object) => object,
                Err(ApiError::FieldConflict(fields)) => {
                    conflicts.extend(fields);
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        if let Err(violations) = validate::validate(&object) {
            broken.extend(names::violations(&object.to_string(), violations));
        }
        let basis = live.map(|live| live.metadata().resource_version.clone());
        merged.push(Merged {
            object: vault.seal(object, live, kept.as_ref())?,
            basis: basis.unwrap_or_default(),
        });
    }
    match (broken.is_empty(), conflicts.is_empty()) {
        (false, _) => Err(ApiError::Invalid(broken)),
        (true, false) => Err(ApiError::FieldConflict(conflicts)),
        (true, true) => Ok(merged),
    }
}
