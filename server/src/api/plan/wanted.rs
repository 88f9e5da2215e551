//! Makes the wanted objects from an applier's objects: checks them, merges them with the recorded ones, validates the result.

use std::{borrow::Cow, collections::BTreeSet};

use barge_proto::{
    kinds::{KindInfo, KindRef, Registry},
    level,
    v1::{Kind, Object, object},
    validate,
};
use barge_state::{Parts, State};

use super::{Stamp, meta, pod};
use crate::{
    api::{
        ownership::{self, Applier},
        vault::Vault,
    },
    calls::names,
    error::{ApiError, Violation},
};

/// What an applier wants.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The objects, each with its kind and its namespace; what they leave out is left out.
    objects: Vec<(Cow<'a, Object>, KindRef)>,
    /// In whose name.
    manager: &'a str,
    /// Whether it takes over what others set.
    force: bool,
    /// The objects are whole and take the place of what there is: up to which feature level their program knows fields.
    replaces: Option<u32>,
}

impl Wanted<'_> {
    /// The same objects, which are whole and take the place of what there is. They come from a program that knows the fields up to a feature level: of newer
    /// ones it cannot have kept the values.
    #[must_use]
    pub fn replacing(self, level: u32) -> Self {
        Self {
            replaces: Some(level),
            ..self
        }
    }

    /// The objects that were asked for.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().map(|(object, _)| object.as_ref())
    }

    /// The objects that were asked for, with their kinds.
    pub fn each(&self) -> impl Iterator<Item = (&Object, &KindRef)> {
        self.objects
            .iter()
            .map(|(object, info)| (object.as_ref(), info))
    }
}

/// An object with what is wanted merged into what there is, as it is kept: the values of Secrets are sealed.
#[derive(Debug, Clone)]
pub struct Merged {
    pub object: Object,
    /// Its kind.
    pub info: KindRef,
    /// The resourceVersion of what there was; empty for nothing.
    pub basis: String,
}

/// Checks a request, whatever the state: what can be said to be wrong of it alone.
///
/// # Errors
/// INVALID with all fields that break rules.
pub fn prepare<'a>(
    kinds: &Registry,
    objects: &'a [Object],
    manager: &'a str,
    force: bool,
) -> Result<Wanted<'a>, ApiError> {
    let manager = ownership::manager(manager)?;
    let mut violations = Vec::new();
    let mut prepared = Vec::with_capacity(objects.len());
    for object in objects {
        let Some(info) = kinds.of(object) else {
            violations.push(unknown(object));
            continue;
        };
        if info.kept_by_managers {
            violations.push(Violation {
                field: object.to_string(),
                description: format!(
                    "{} are kept by the managers and cannot be applied",
                    info.plural
                ),
            });
            continue;
        }
        // Before it is merged into what there is, item by item.
        if let Err(too_long) = validate::bounds(object) {
            violations.extend(names::violations(&object.to_string(), too_long));
            continue;
        }
        prepared.push((meant(object, &info), info));
    }
    let mut seen = BTreeSet::new();
    for (object, info) in &prepared {
        let kind = (&*info.api_version, &*info.name);
        if !seen.insert((kind, object.namespace(), object.name())) {
            violations.push(Violation {
                field: object.to_string(),
                description: "is there twice".to_owned(),
            });
        }
    }
    match violations.is_empty() {
        true => Ok(Wanted {
            objects: prepared,
            manager,
            force,
            replaces: None,
        }),
        false => Err(ApiError::Invalid(violations)),
    }
}

/// Why an object has no kind.
fn unknown(object: &Object) -> Violation {
    let (api_version, kind) = object.stated_type();
    match object.kind() {
        Kind::Custom => Violation {
            field: object.to_string(),
            description: format!("no kind {kind} of {api_version} is registered"),
        },
        _ => Violation {
            field: "objects".to_owned(),
            description: "an object without a kind".to_owned(),
        },
    }
}

/// The object with its kind's apiVersion and kind. Of a registered kind they are kept with the object, which may have been written under
/// another version.
fn of_kind(mut object: Object, info: &KindInfo) -> Object {
    if let Some(object::Kind::Custom(custom)) = &mut object.kind {
        custom.api_version = info.api_version.to_string();
        custom.kind = info.name.to_string();
    }
    object
}

/// The object that is meant by what was sent: mostly that one.
fn meant<'a>(sent: &'a Object, info: &KindInfo) -> Cow<'a, Object> {
    let meta = sent.metadata();
    let namespace = names::namespace(info, &meta.namespace);
    if namespace == meta.namespace && !meta::has_ours(meta) && sent.kind() != Kind::Secret {
        return Cow::Borrowed(sent);
    }
    let mut object = sent.clone();
    if let Some(meta) = object.metadata_mut() {
        namespace.clone_into(&mut meta.namespace);
        meta::drop_ours(meta);
    }
    if let Some(object::Kind::Secret(secret)) = &mut object.kind {
        secret.fold_string_data();
    }
    Cow::Owned(object)
}

/// What there is of the objects that are wanted; they are put together by [`merge`].
#[must_use]
pub fn there(state: &State, wanted: &Wanted<'_>) -> Vec<Option<Parts>> {
    let find = |(o, info): (&Object, &KindRef)| {
        state.object_parts(o.kind(), o.namespace(), &names::record(info, o.name()))
    };
    wanted.each().map(find).collect()
}

/// Merges what is wanted into what there is, and validates what comes of it.
///
/// # Errors
/// CONFLICT for another incarnation or version; PRECONDITION for one with fields that the program does not know which puts another in its place; INVALID with every field of every object that breaks a rule; FIELD_CONFLICT
/// with every field that others set to other values.
pub fn merge(
    wanted: &Wanted<'_>,
    there: &[Option<Parts>],
    vault: &Vault,
    stamp: &Stamp<'_>,
) -> Result<Vec<Merged>, ApiError> {
    let applier = Applier {
        manager: wanted.manager,
        force: wanted.force,
        now: stamp.now,
    };
    let (mut broken, mut conflicts) = (Vec::new(), Vec::new());
    let mut merged = Vec::with_capacity(wanted.objects.len());
    for ((config, info), parts) in wanted.each().zip(there) {
        let parts = parts.as_ref();
        let kept = parts.and_then(Parts::object);
        let live = kept.clone().map(|kept| vault.open(kept)).transpose()?;
        let live = live.as_ref();
        meta::check(config.metadata(), live.map(Object::metadata))?;
        if let (Some(known), Some(live)) = (wanted.replaces, live) {
            check_known(live, known)?;
        }
        let object = match config.kind() {
            // Nobody owns their fields.
            Kind::Pod => {
                let template = parts.and_then(Parts::template);
                pod::merged(live, template, config, wanted.replaces.is_some())
            }
            _ => match owned(live, config, &applier, wanted.replaces.is_some()) {
                Ok(object) => object,
                Err(ApiError::FieldConflict(fields)) => {
                    conflicts.extend(fields);
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        let object = of_kind(object, info);
        if let Err(violations) = validate::validate(&object) {
            broken.extend(names::violations(&object.to_string(), violations));
        }
        let basis = live.map(|live| live.metadata().resource_version.clone());
        merged.push(Merged {
            object: vault.seal(object, live, kept.as_ref())?,
            info: info.clone(),
            basis: basis.unwrap_or_default(),
        });
    }
    match (broken.is_empty(), conflicts.is_empty()) {
        (false, _) => Err(ApiError::Invalid(broken)),
        (true, false) => Err(ApiError::FieldConflict(conflicts)),
        (true, true) => Ok(merged),
    }
}

/// Checks that a program knows all fields of an object that it puts another in the place of: what it does not know it would take away.
fn check_known(live: &Object, known: u32) -> Result<(), ApiError> {
    let level = level::of_object(live);
    match level <= known {
        true => Ok(()),
        false => Err(ApiError::Precondition(format!(
            "{live} has fields of feature level {level}, and the program that changes it knows those up to {known} and would drop them: use a newer version of it"
        ))),
    }
}

/// What comes of an object over what there is, with who owns its fields.
fn owned(
    live: Option<&Object>,
    config: &Object,
    applier: &Applier<'_>,
    replaces: bool,
) -> Result<Object, ApiError> {
    match live {
        Some(live) if replaces => ownership::replace(live, config, applier),
        live => ownership::apply(live, config, applier),
    }
}
