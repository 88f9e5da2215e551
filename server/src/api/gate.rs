//! Checks a request against bindings, and removes the parts of an answer that its caller may not see. The leader checks writes, by its
//! state. The manager that answers a read checks it, by its own state after a read index.

use barge_proto::{
    kinds::{KindInfo, Registry},
    selector::FieldSelector,
    v1::{
        ApplyOutcome, ApplyResponse, Deployment, DeploymentSpec, Kind, Object, ObjectMeta,
        RecordRef, ReplicaSet, ReplicaSetSpec, object,
    },
};
use barge_state::{RecordKind, State};

use super::{plan::Planned, vault::without_values};
use crate::{
    calls::names,
    error::ApiError,
    security::{
        auth::Access,
        rbac::{Asked, Review, grants},
    },
    store::Store,
};

/// Checks one verb on objects of a kind: those of a namespace, or of all when it is empty; the one of a name, or all.
///
/// # Errors
/// DENIED.
pub fn check(
    access: &Access,
    state: &State,
    verb: &str,
    (info, part): (&KindInfo, &str),
    (namespace, name): (&str, &str),
) -> Result<(), ApiError> {
    if access.is_everything() {
        return Ok(());
    }
    let asked = Asked::on(verb, info, namespace, name).part(part);
    access.check(state, [asked])
}

/// As [`check`], of one object: an empty namespace is the default one.
///
/// # Errors
/// As [`check`].
pub fn check_one(
    access: &Access,
    state: &State,
    verb: &str,
    (info, part): (&KindInfo, &str),
    (namespace, name): (&str, &str),
) -> Result<(), ApiError> {
    let namespace = names::namespace(info, namespace);
    check(access, state, verb, (info, part), (namespace, name))
}

/// As [`check_one`], at the leader and by everything that was acknowledged before.
///
/// # Errors
/// As [`check`]; what the store says.
pub async fn check_fresh(
    access: &Access,
    store: &Store,
    verb: &str,
    what: (&KindInfo, &str),
    place: (&str, &str),
) -> Result<(), ApiError> {
    access.refreshed(store).await?;
    match access.is_everything() {
        true => Ok(()),
        false => store.read(|state| check_one(access, state, verb, what, place)),
    }
}

/// The one name that a list or a watch is about: Kubernetes asks for no more than the right to that one.
#[must_use]
pub fn name_selected(kind: i32, fields: &str) -> String {
    let selector = Kind::try_from(kind).map(|kind| FieldSelector::parse(kind, fields));
    let selector = selector.ok().and_then(Result::ok);
    let name = selector.as_ref().and_then(FieldSelector::name);
    name.unwrap_or_default().to_owned()
}

/// Checks the objects of an apply before the answer says anything about them. A caller that may neither create nor patch does not learn whether an object
/// exists. For a caller that may do everything this reads nothing, not even the state, because every write passes here.
///
/// # Errors
/// DENIED, naming all that is not allowed; what the store says.
pub async fn check_wanted(
    access: &Access,
    store: &Store,
    kinds: &Registry,
    objects: &[Object],
) -> Result<(), ApiError> {
    if access.is_everything() {
        return Ok(());
    }
    access.refreshed(store).await?;
    store.read(|state| {
        let refusal = |object| unwanted(access, state, kinds, object);
        access.refuse(objects.iter().filter_map(refusal))
    })
}

/// Why an object may not be applied.
fn unwanted(access: &Access, state: &State, kinds: &Registry, object: &Object) -> Option<String> {
    // What is of no kind is refused for that.
    let info = kinds.of(object)?;
    let on = |verb| on(verb, &info, object.namespace(), object.name());
    let was_read = !object.metadata().resource_version.is_empty();
    if object.kind() == Kind::Secret && was_read && !access.may(state, &on("get")) {
        return Some(format!(
            "{}: it was read without its values, and would lose them; send one without resourceVersion, with all values",
            access.refusal(&on("get").to_string())
        ));
    }
    let (creates, patches) = (on("create"), on("patch"));
    let what = match (access.may(state, &creates), access.may(state, &patches)) {
        (true, true) => return None,
        (false, false) => on("create or patch"),
        (true, false) if is_there(state, object, &info) => patches,
        (false, true) if !is_there(state, object, &info) => creates,
        _ => return None,
    };
    Some(access.refusal(&what.to_string()))
}

/// Checks what a plan does: whether an object is created or changed is certain now, and roles and bindings are as they will be.
///
/// # Errors
/// DENIED, naming all that is not allowed.
pub fn check_planned(access: &Access, state: &State, planned: &[Planned]) -> Result<(), ApiError> {
    access.check(state, planned.iter().map(asked))?;
    let Access::Bound(who) = access else {
        return Ok(());
    };
    let written = planned
        .iter()
        .filter(|it| it.outcome != ApplyOutcome::Unchanged);
    let written = written
        .map(|it| it.object.as_ref())
        .collect::<Option<Vec<_>>>();
    let written = written.ok_or_else(|| {
        ApiError::Internal("a plan that does not show its objects cannot be checked".to_owned())
    })?;
    access.refuse(grants::refusals(&Review::new(state, who), &written))
}

fn asked(planned: &Planned) -> Asked<'_> {
    let verb = match planned.outcome {
        ApplyOutcome::Created => "create",
        _ => "patch",
    };
    on(verb, &planned.info, &planned.namespace, &planned.name)
}

fn on<'a>(verb: &'a str, info: &'a KindInfo, namespace: &'a str, name: &'a str) -> Asked<'a> {
    Asked::on(verb, info, names::namespace(info, namespace), name)
}

fn is_there(state: &State, object: &Object, info: &KindInfo) -> bool {
    let Some(kind) = RecordKind::of(object.kind()) else {
        return false;
    };
    let found = state.find(&RecordRef {
        kind: kind.number(),
        uid: String::new(),
        namespace: names::namespace(info, object.namespace()).to_owned(),
        name: names::record(info, object.name()).into_owned(),
    });
    // A Deployment's revision is there as a ReplicaSet.
    let shown = || state.revision_shown(object.namespace(), object.name());
    found.is_some() || object.kind() == Kind::ReplicaSet && shown().is_some()
}

/// An object as the caller sees it: a caller that may get a Secret sees its keys and values; one that may only list or change it sees neither.
#[must_use]
pub fn shown(access: &Access, store: &Store, object: Object) -> Object {
    if access.is_everything() || object.kind() != Kind::Secret {
        return object;
    }
    let info = object.kind().info();
    let asked = info.map(|info| on("get", info, object.namespace(), object.name()));
    match asked.is_some_and(|asked| store.read(|state| access.may(state, &asked))) {
        true => object,
        false => without_values(object),
    }
}

/// The answer to an apply as the caller sees it.
#[must_use]
pub fn shown_results(access: &Access, store: &Store, mut answer: ApplyResponse) -> ApplyResponse {
    if !access.is_everything() {
        for result in &mut answer.results {
            let object = result.object.take();
            result.object = object.map(|it| shown(access, store, it));
        }
    }
    answer
}

/// An object for a caller that may scale it and not get it: its identity and its replicas.
#[must_use]
pub fn scaled(access: &Access, state: &State, object: Object) -> Object {
    let asked = |info| on("get", info, object.namespace(), object.name());
    let info = object.kind().info();
    if info.is_none_or(|info| access.may(state, &asked(info))) {
        return object;
    }
    let metadata = Some(identity(object.metadata()));
    let part: Object = match object.kind {
        Some(object::Kind::Deployment(it)) => Deployment {
            metadata,
            spec: Some(DeploymentSpec {
                replicas: it.spec.and_then(|spec| spec.replicas),
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
        .into(),
        Some(object::Kind::ReplicaSet(it)) => ReplicaSet {
            metadata,
            spec: Some(ReplicaSetSpec {
                replicas: it.spec.and_then(|spec| spec.replicas),
                ..ReplicaSetSpec::default()
            }),
            ..ReplicaSet::default()
        }
        .into(),
        _ => return Object::default(),
    };
    part.typed()
}

/// Of the metadata, what says which object it is, and which version of it.
fn identity(meta: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        generation: meta.generation,
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
