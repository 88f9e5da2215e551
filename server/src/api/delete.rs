//! Deleting objects.

use barge_proto::{
    kinds::{KindInfo, Registry},
    v1::{
        DeleteRecord, DeleteRequest, DeleteResponse, DeletionPropagation, Kind, Object, PodRecord,
        RecordRef, TerminatePod, change::Change as Body,
    },
};
use barge_state::{PackedPod, RecordKind, State};

use super::{
    commit::{Committed, after, commit, digest, rehearse, request_record},
    vault::without_values,
};
use crate::{
    calls::names,
    error::ApiError,
    storage::lock::By,
    store::{Store, transaction::Draft},
};

/// The namespace that is always there.
const PERMANENT: &str = names::DEFAULT_NAMESPACE;

/// Deletes at the leader. Pods end gracefully; what an object owns goes with it.
///
/// # Errors
/// NOT_FOUND; CONFLICT when it is another incarnation or has changed; INVALID for what may not be deleted.
pub async fn delete(
    store: &Store,
    kinds: &Registry,
    by: String,
    mut request: DeleteRequest,
) -> Result<DeleteResponse, ApiError> {
    let id = request.request_id.take();
    let record = match request.dry_run {
        true => None,
        false => request_record(store, id.as_ref(), || Ok(digest(&request)))?,
    };
    let info = names::resolve(kinds, request.kind, request.custom.as_ref())?;
    let (kind, info) = (info.kind, &*info);
    let record_name = names::record(info, &request.name).into_owned();
    if request.grace_period_seconds.is_some_and(|grace| grace < 0) {
        return Err(ApiError::invalid(
            "grace_period_seconds",
            "must not be negative",
        ));
    }
    if kind == Kind::Namespace && request.propagation() == DeletionPropagation::Orphan {
        let rule = "what is in a namespace cannot outlive it";
        return Err(ApiError::invalid("propagation", rule));
    }
    let namespace = names::namespace(info, &request.namespace).to_owned();
    let plan =
        |store: &Store| store.read_by(By::Plan, |state| plan(state, info, &namespace, &request));
    if request.dry_run {
        let (before, changes) = rehearse(store, by, plan).await?;
        return Ok(DeleteResponse {
            object: Some(without_values(after(store, &changes, before))),
            revision: store.read(State::revision),
        });
    }
    let committed = commit(store, by, record, plan).await?;
    Ok(store.read(|state| {
        let now = state.object(kind, &namespace, &record_name);
        let (before, revision) = match committed {
            Committed::Applied(before, outcome) => (Some(before), outcome.revision),
            Committed::Nothing(before) => (Some(before), state.revision()),
            Committed::Repeated(outcome) => (None, outcome.revision),
        };
        let same = |now: &Object| before.as_ref().is_none_or(|b| b.uid() == now.uid());
        DeleteResponse {
            object: now.filter(same).or(before).map(without_values),
            revision,
        }
    }))
}

fn plan(
    state: &State,
    info: &KindInfo,
    namespace: &str,
    request: &DeleteRequest,
) -> Result<(Draft, Object), ApiError> {
    let kind = info.kind;
    let not_found = || names::not_found(info, namespace, &request.name);
    let parts = state
        .object_parts(kind, namespace, &names::record(info, &request.name))
        .ok_or_else(not_found)?;
    names::check_kept(&parts.record)?;
    let object = parts.object().ok_or_else(not_found)?;
    let named = names::describe(info, namespace, &request.name);
    names::check_uid(&named, object.metadata(), &request.uid)?;
    names::check_version(&named, object.metadata(), &request.resource_version)?;
    let uid = object.uid().to_owned();
    let target = RecordRef {
        kind: RecordKind::of(kind).map_or(0, RecordKind::number),
        uid: uid.clone(),
        ..RecordRef::default()
    };
    let mut draft = Draft::new();
    match kind {
        Kind::Pod => {
            let running = state.by_uid::<PodRecord>(&uid);
            let grace = request.grace_period_seconds;
            if running.is_none_or(|pod| already_ends(pod, grace)) {
                return Ok((draft, object));
            }
            draft.change(Body::TerminatePod(TerminatePod {
                uid,
                grace_period_seconds: grace,
                reason: String::new(),
            }));
        }
        Kind::Namespace if request.name == PERMANENT => {
            return Err(ApiError::Precondition(format!(
                "the namespace {PERMANENT} cannot be deleted"
            )));
        }
        _ if info.kept_by_managers => {
            return Err(ApiError::Precondition(format!(
                "{} are kept by the managers and cannot be deleted",
                info.plural
            )));
        }
        _ => {
            let foreground = request.propagation() == DeletionPropagation::Foreground;
            if foreground && object.metadata().deletion_timestamp.is_some() {
                return Ok((draft, object));
            }
            draft.change(Body::Delete(DeleteRecord {
                target: Some(target.clone()),
                propagation: request.propagation,
            }));
        }
    }
    if !request.resource_version.is_empty() {
        draft.unchanged_since(target, object.metadata());
    }
    Ok((draft, object))
}

/// A second request only counts when it leaves less time.
fn already_ends(pod: &PackedPod, grace: Option<i64>) -> bool {
    pod.deletion()
        .is_some_and(|(_, given)| grace.is_none_or(|grace| given.is_some_and(|now| now <= grace)))
}
