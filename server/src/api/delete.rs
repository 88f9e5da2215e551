//! Deleting objects.

use barge_proto::v1::{
    DeleteRequest, DeleteResponse, Deployment, Kind, Namespace, Node, Object, PodRecord, Service,
    TerminatePod, change::Change as Body,
};
use barge_state::{Kind as _, State};

use super::{
    commit::{Committed, commit, request_record},
    names,
};
use crate::{error::ApiError, store::Store, transaction::Draft};

/// The namespace that is always there.
const PERMANENT: &str = names::DEFAULT_NAMESPACE;

/// Deletes at the leader. Pods end gracefully; what an object owns goes with it.
///
/// # Errors
/// NOT_FOUND; CONFLICT when it is another incarnation; INVALID for what may not be deleted.
pub async fn delete(
    store: &Store,
    by: String,
    mut request: DeleteRequest,
) -> Result<DeleteResponse, ApiError> {
    let id = request.request_id.take();
    let record = request_record(store, id.as_ref(), &request)?;
    let (kind, info) = names::kind(request.kind)?;
    if request.grace_period_seconds.is_some_and(|grace| grace < 0) {
        return Err(ApiError::invalid(
            "grace_period_seconds",
            "must not be negative",
        ));
    }
    let namespace = names::namespace(info, &request.namespace).to_owned();
    let committed = commit(store, by, record, |state| {
        plan(state, kind, &namespace, &request)
    })
    .await?;
    Ok(store.read(|state| {
        let now = state.object(kind, &namespace, &request.name);
        let (before, revision) = match committed {
            Committed::Applied(before, outcome) => (Some(before), outcome.revision),
            Committed::Nothing(before) => (Some(before), state.revision()),
            Committed::Repeated(outcome) => (None, outcome.revision),
        };
        let same = |now: &Object| before.as_ref().is_none_or(|b| b.uid() == now.uid());
        DeleteResponse {
            object: now.filter(same).or(before),
            revision,
        }
    }))
}

fn plan(
    state: &State,
    kind: Kind,
    namespace: &str,
    request: &DeleteRequest,
) -> Result<(Draft, Object), ApiError> {
    let (_, info) = names::kind(kind.into())?;
    let object = state
        .object(kind, namespace, &request.name)
        .ok_or_else(|| names::not_found(info, namespace, &request.name))?;
    let uid = object.uid().to_owned();
    if !request.uid.is_empty() && request.uid != uid {
        return Err(ApiError::Conflict(format!(
            "{} is another one now: its uid is {uid}, not {}",
            names::describe(info, namespace, &request.name),
            request.uid
        )));
    }
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
        Kind::Namespace => draft.remove::<Namespace>(&uid),
        Kind::Deployment => draft.remove::<Deployment>(&uid),
        Kind::Service => draft.remove::<Service>(&uid),
        Kind::Node => draft.remove::<Node>(&uid),
        Kind::Endpoints | Kind::Event | Kind::Unspecified => {
            return Err(ApiError::Precondition(format!(
                "{} are kept by the managers and cannot be deleted",
                info.plural
            )));
        }
    }
    Ok((draft, object))
}

/// A second request only counts when it leaves less time.
fn already_ends(pod: &PodRecord, grace: Option<i64>) -> bool {
    let meta = pod.meta();
    meta.deletion_timestamp.is_some()
        && grace.is_none_or(|grace| {
            meta.deletion_grace_period_seconds
                .is_some_and(|now| now <= grace)
        })
}
