//! The plan of an apply: a pure function of the state, so the leader can compute it again when the state changed.
//!
//! Where to look for free addresses is in the [`Stamp`]; identities are drawn anew for each try, and only those of the try that
//! was applied are ever seen.

use std::collections::{BTreeMap, BTreeSet};

use barge_proto::{
    for_each_kind,
    kinds::{KindRef, Registry},
    v1::{
        ApplyOutcome, Endpoints, Event, Kind, Namespace, Object, ObjectMeta, Pod, PodRecord,
        RecordRef, Time, object,
    },
    validate::{self, Levels},
};
use barge_state::{Kind as Recorded, RecordKind, State};

use super::vault::Vault;
use crate::{
    calls::names,
    error::ApiError,
    net::reserved::ReservedPorts,
    runtime::clock,
    storage::lock::By,
    store::{Store, transaction::Draft},
};

mod addresses;
mod deployment;
mod disruption;
mod meta;
mod namespace;
mod node;
mod order;
mod plain;
mod pod;
mod replica_set;
mod security;
mod service;
mod wanted;

pub use self::security::judge;
pub use self::wanted::{Merged, Wanted, merge, prepare, there};

/// Each further try means that another write was applied.
const TRIES: usize = 16;

/// What the edge adds to a request.
#[derive(Debug, Clone)]
pub struct Stamp<'a> {
    /// Where to begin to look for free addresses and ports.
    seed: u64,
    /// When it came in.
    now: Time,
    /// Ports of the nodes that this manager, which leads, keeps from Services.
    reserved: &'a ReservedPorts,
    /// The kinds that there are.
    kinds: &'a Registry,
}

impl<'a> Stamp<'a> {
    /// Stamps a request that comes in now.
    #[must_use]
    pub fn now(reserved: &'a ReservedPorts, kinds: &'a Registry) -> Self {
        Self {
            seed: rand::random(),
            now: clock::now(),
            reserved,
            kinds,
        }
    }
}

/// What becomes of one object.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its kind.
    pub info: KindRef,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Created, configured or unchanged.
    pub outcome: ApplyOutcome,
    /// The object as it will be; may be absent in a plan that need not show it.
    pub object: Option<Object>,
    /// What its namespace warns of.
    pub warnings: Vec<String>,
}

/// A plan in the making.
struct Planning<'a> {
    state: &'a State,
    seed: u64,
    /// When the request came in.
    now: Time,
    reserved: &'a ReservedPorts,
    kinds: &'a Registry,
    /// Whether the objects are wanted as they will be.
    shown: bool,
    draft: Draft,
    /// Namespaces that are there, or that this very request creates, and what they say of their pods.
    namespaces: BTreeMap<String, Levels>,
    /// Addresses and ports that this very request takes.
    taken: BTreeSet<String>,
    /// Ports that this very request gives away.
    given: BTreeSet<String>,
}

/// Plans the application of merged objects; none when what they were merged with has changed. With `shown` the plan has every
/// object as it will be.
///
/// # Errors
/// NOT_FOUND for a namespace that is not there; INVALID for what cannot change.
pub fn plan(
    state: &State,
    objects: Vec<Merged>,
    stamp: &Stamp<'_>,
    shown: bool,
) -> Result<Option<(Draft, Vec<Planned>)>, ApiError> {
    let mut planning = Planning {
        state,
        seed: stamp.seed,
        now: stamp.now,
        reserved: stamp.reserved,
        kinds: stamp.kinds,
        shown,
        draft: Draft::new(),
        namespaces: BTreeMap::new(),
        taken: BTreeSet::new(),
        given: BTreeSet::new(),
    };
    let mut planned = Vec::with_capacity(objects.len());
    for (at, merged) in order::in_order(state, objects) {
        match planning.object(merged)? {
            Some(object) => planned.push((at, object)),
            None => return Ok(None),
        }
    }
    planned.sort_by_key(|(at, _)| *at);
    let planned = planned.into_iter().map(|(_, planned)| planned).collect();
    Ok(Some((planning.draft, planned)))
}

/// Plans by a store. The merging, which takes its time, is done while the state goes on.
///
/// # Errors
/// As [`merge`] and [`plan`]; CONFLICT when others are always faster.
pub fn by_store(
    store: &Store,
    vault: &Vault,
    wanted: &Wanted<'_>,
    stamp: &Stamp<'_>,
    shown: bool,
) -> Result<(Draft, Vec<Planned>), ApiError> {
    for _ in 0..TRIES {
        let there = store.read_by(By::Plan, |state| there(state, wanted));
        let merged = merge(wanted, &there, vault, stamp)?;
        let planned = store.read_by(By::Plan, |state| plan(state, merged, stamp, shown))?;
        if let Some(planned) = planned {
            return Ok(planned);
        }
    }
    Err(ApiError::Conflict(
        "the objects keep changing: try again".to_owned(),
    ))
}

macro_rules! define {
    ($($variant:ident($record:ident) $table:ident = $number:literal [$($object:ident($message:ident))?] $options:tt,)*) => {
        impl Planning<'_> {
            /// What becomes of one object, and the object as it will be.
            fn applied(&mut self, object: Object) -> Result<(ApplyOutcome, Option<Object>), ApiError> {
                match object.kind {
                    $($(Some(object::Kind::$object(new)) => Applied::plan(new, self),)?)*
                    None => Err(ApiError::invalid("objects", "an object without a kind")),
                }
            }
        }
    };
}
for_each_kind!(define);

impl Planning<'_> {
    /// None when it is not what it was merged with any more.
    fn object(&mut self, merged: Merged) -> Result<Option<Planned>, ApiError> {
        let Merged {
            mut object,
            basis,
            info,
        } = merged;
        let levels = self.check_namespace(&object)?;
        // Afterwards, when it is known whether anything changes; then the object is gone.
        let limited = security::judge(&object, levels);
        let is_pod = object.kind() == Kind::Pod;
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let record = names::record(&info, &name).into_owned();
        let now = RecordKind::of(info.kind).and_then(|kind| {
            let target = RecordRef {
                kind: kind.number(),
                namespace: namespace.clone(),
                name: record.clone(),
                ..RecordRef::default()
            };
            self.state.find(&target)
        });
        if now
            .map(|now| now.meta().resource_version.clone())
            .unwrap_or_default()
            != basis
        {
            return Ok(None);
        }
        // What was read from a cluster carries its status; it is not the applier's.
        if let Some(metadata) = object.metadata_mut() {
            metadata.name = record;
        }
        let (outcome, mut after) = self.applied(object)?;
        let warnings = match outcome {
            // What is there stays as it is, whatever the namespace says by now.
            ApplyOutcome::Unchanged => Vec::new(),
            // So does the spec of a pod, which has other labels then.
            ApplyOutcome::Configured if is_pod => Vec::new(),
            _ => limited?,
        };
        if let Some(metadata) = after.as_mut().and_then(Object::metadata_mut) {
            metadata.name.clone_from(&name);
        }
        Ok(Some(Planned {
            info,
            namespace,
            name,
            outcome,
            object: after.map(Object::typed),
            warnings,
        }))
    }

    /// Whether there may be objects in the namespace of this one, and what it says of pods.
    fn check_namespace(&mut self, object: &Object) -> Result<Levels, ApiError> {
        let namespace = object.namespace();
        if namespace.is_empty() {
            return Ok(Levels::default());
        }
        if let Some(levels) = self.namespaces.get(namespace) {
            return Ok(*levels);
        }
        match self.state.get::<Namespace>("", namespace) {
            Some(found) if found.meta().deletion_timestamp.is_none() => {
                self.draft.exists::<Namespace>("", namespace);
                let levels = Levels::of(found.meta());
                // Once per request is enough.
                self.namespaces.insert(namespace.to_owned(), levels);
                Ok(levels)
            }
            // The labels of a pod that still runs there may change.
            Some(found) if self.is_pod_there(object) => Ok(Levels::of(found.meta())),
            Some(_) => Err(ApiError::Conflict(format!(
                "namespace {namespace} is being deleted: nothing can be created in it"
            ))),
            None => Err(ApiError::NotFound(format!(
                "namespace {namespace} does not exist: create it first"
            ))),
        }
    }

    fn is_pod_there(&self, object: &Object) -> bool {
        let (namespace, name) = (object.namespace(), object.name());
        object.kind() == Kind::Pod && self.state.get::<PodRecord>(namespace, name).is_some()
    }

    /// Plans an object that is a record of its own.
    fn record<K: Merge>(&mut self, new: K) -> Result<(ApplyOutcome, Option<Object>), ApiError> {
        let (namespace, name) = (&new.meta().namespace, &new.meta().name);
        let state = self.state;
        let old = state.get::<K>(namespace, name).map(|old| &**old);
        if !new.meta().owner_references.is_empty() {
            meta::check_owners(
                state,
                self.kinds,
                &new.clone().into(),
                old.map(Recorded::meta),
            )?;
        }
        if let Some(old) = old {
            check_update(old.clone(), new.clone())?;
        }
        let merged = K::merged(self, new, old)?;
        let outcome = match old {
            Some(old) if *old == merged => {
                return Ok((ApplyOutcome::Unchanged, Some(merged.into())));
            }
            Some(old) => {
                self.draft.unchanged(old);
                ApplyOutcome::Configured
            }
            None => {
                let meta = merged.meta();
                self.draft.absent::<K>(&meta.namespace, &meta.name);
                ApplyOutcome::Created
            }
        };
        let object = self.shown.then(|| merged.clone().into());
        self.draft.put(merged);
        Ok((outcome, object))
    }

    /// A number that differs from request to request, and from use to use within one.
    fn draw(&mut self) -> u64 {
        // splitmix64's step.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    }
}

/// How an object of a kind is applied. The compiler demands it of every kind.
trait Applied {
    /// What becomes of it, and the object as it will be.
    fn plan(self, planning: &mut Planning<'_>) -> Result<(ApplyOutcome, Option<Object>), ApiError>;
}

impl<K: Merge> Applied for K {
    fn plan(self, planning: &mut Planning<'_>) -> Result<(ApplyOutcome, Option<Object>), ApiError> {
        planning.record(self)
    }
}

impl Applied for Pod {
    fn plan(self, planning: &mut Planning<'_>) -> Result<(ApplyOutcome, Option<Object>), ApiError> {
        pod::plan(planning, &self).map(|(outcome, pod)| (outcome, Some(pod)))
    }
}

/// Kinds that the managers keep.
macro_rules! kept {
    ($($kind:ident),*) => {
        $(impl Applied for $kind {
            fn plan(self, _: &mut Planning<'_>) -> Result<(ApplyOutcome, Option<Object>), ApiError> {
                let object = Object::from(self);
                Err(ApiError::invalid(object.to_string(), "cannot be applied"))
            }
        })*
    };
}
kept!(Endpoints, Event);

/// A kind whose applied objects are records of their own.
trait Merge: Recorded<Kept = Self> + Into<Object> {
    /// The record after applying `new` over `old`: with what the server sets, and without what it ignores.
    fn merged(planning: &mut Planning<'_>, new: Self, old: Option<&Self>)
    -> Result<Self, ApiError>;
}

/// Metadata of the record after applying: names and what appliers set are the merged object's, the rest is the server's.
fn merged_meta(new: Option<ObjectMeta>, old: Option<&ObjectMeta>) -> Option<ObjectMeta> {
    Some(meta::merge(new.unwrap_or_default(), old, clock::new_uid))
}

/// What cannot change, by the rules of the schema.
///
/// # Errors
/// INVALID with all fields that would.
fn check_update(old: impl Into<Object>, new: impl Into<Object>) -> Result<(), ApiError> {
    let new = new.into();
    validate::validate_update(&old.into(), &new)
        .map_err(|broken| ApiError::Invalid(names::violations(&new.to_string(), broken)))
}

#[cfg(test)]
mod tests;
