//! Applying objects: all of them or none.

use barge_proto::v1::{ApplyOutcome, ApplyRequest, ApplyResponse, ApplyResult, Kind, Object};
use barge_state::State;

use super::{
    commit::{Committed, commit, request_record},
    plan::{self, Planned, Stamp},
};
use crate::{error::ApiError, store::Store};

/// Objects in one request; a manifest is tens.
const MAX_OBJECTS: usize = 1000;

/// Applies at the leader.
///
/// # Errors
/// INVALID with every field that breaks a rule; CONFLICT, NOT_FOUND and EXISTS by the state; what the store says.
pub async fn apply(
    store: &Store,
    by: String,
    mut request: ApplyRequest,
) -> Result<ApplyResponse, ApiError> {
    let id = request.request_id.take();
    if request.objects.len() > MAX_OBJECTS {
        return Err(ApiError::invalid(
            "objects",
            format!("{}: at most {MAX_OBJECTS}", request.objects.len()),
        ));
    }
    let dry_run = request.dry_run;
    let record = match dry_run {
        true => None,
        false => request_record(store, id.as_ref(), &request)?,
    };
    let objects = plan::prepare(request.objects)?;
    let stamp = Stamp::now();
    if dry_run {
        store.read_index().await?;
        return store.read(|state| {
            let (_, planned) = plan::plan(state, &objects, &stamp)?;
            Ok(response(state, planned, true))
        });
    }
    let committed = commit(store, by, record, |state| {
        plan::plan(state, &objects, &stamp)
    })
    .await?;
    Ok(store.read(|state| match committed {
        Committed::Applied(planned, outcome) => ApplyResponse {
            revision: outcome.revision,
            ..response(state, planned, false)
        },
        Committed::Nothing(planned) => response(state, planned, false),
        Committed::Repeated(outcome) => ApplyResponse {
            results: repeated(state, &objects),
            revision: outcome.revision,
        },
    }))
}

fn response(state: &State, planned: Vec<Planned>, dry_run: bool) -> ApplyResponse {
    let results = planned
        .into_iter()
        .map(|planned| {
            let stored = match dry_run {
                true => None,
                false => state.object(planned.kind, &planned.namespace, &planned.name),
            };
            ApplyResult {
                // Somebody may have deleted it already.
                object: Some(stored.unwrap_or(planned.object)),
                outcome: planned.outcome.into(),
            }
        })
        .collect();
    ApplyResponse {
        results,
        revision: state.revision(),
    }
}

/// The answer to a request that was applied before: which objects it created is told by their generation.
fn repeated(state: &State, objects: &[Object]) -> Vec<ApplyResult> {
    objects
        .iter()
        .map(|object| {
            let stored = state.object(object.kind(), object.namespace(), object.name());
            let created = stored
                .as_ref()
                .is_some_and(|stored| stored.metadata().generation <= 1);
            let outcome = match created && object.kind() != Kind::Node {
                true => ApplyOutcome::Created,
                false => ApplyOutcome::Configured,
            };
            ApplyResult {
                object: Some(stored.unwrap_or_else(|| object.clone())),
                outcome: outcome.into(),
            }
        })
        .collect()
}
