//! Setting the number of replicas.

use barge_proto::v1::{Deployment, Kind, ScaleRequest, ScaleResponse, Time};
use barge_state::{Kind as _, State};

use super::{
    commit::{Committed, commit, digest, request_record},
    ownership,
};
use crate::{
    calls::names,
    error::ApiError,
    runtime::clock,
    storage::lock::By,
    store::{Store, transaction::Draft},
};

/// Scales at the leader.
///
/// # Errors
/// NOT_FOUND; CONFLICT when it has changed or is being deleted; INVALID for a negative number or a kind without replicas.
pub async fn scale(
    store: &Store,
    by: String,
    mut request: ScaleRequest,
) -> Result<ScaleResponse, ApiError> {
    let id = request.request_id.take();
    let record = request_record(store, id.as_ref(), || Ok(digest(&request)))?;
    let (kind, info) = names::kind(request.kind)?;
    if kind != Kind::Deployment {
        return Err(ApiError::invalid(
            "kind",
            format!("{} have no replicas", info.plural),
        ));
    }
    if request.replicas < 0 {
        return Err(ApiError::invalid(
            "replicas",
            format!("{}: must not be negative", request.replicas),
        ));
    }
    let namespace = names::namespace(info, &request.namespace).to_owned();
    let manager = ownership::manager(&request.field_manager)?;
    let now = clock::now();
    let committed = commit(store, by, record, |store| {
        let draft = store.read_by(By::Plan, |state| {
            plan(state, &namespace, &request, manager, now)
        })?;
        Ok((draft, ()))
    })
    .await?;
    Ok(store.read(|state| ScaleResponse {
        object: state.object(kind, &namespace, &request.name),
        revision: match committed {
            Committed::Applied((), outcome) | Committed::Repeated(outcome) => outcome.revision,
            Committed::Nothing(()) => state.revision(),
        },
    }))
}

fn plan(
    state: &State,
    namespace: &str,
    request: &ScaleRequest,
    manager: &str,
    now: Time,
) -> Result<Draft, ApiError> {
    let (_, info) = names::kind(Kind::Deployment.into())?;
    let found = state
        .get::<Deployment>(namespace, &request.name)
        .ok_or_else(|| names::not_found(info, namespace, &request.name))?;
    names::check_current(&request.name, found.meta(), &request.resource_version)?;
    let mut scaled = Deployment::clone(found);
    scaled.spec.get_or_insert_default().replicas = Some(request.replicas);
    let mut draft = Draft::new();
    ownership::change(&mut draft, &**found, scaled, manager, now)?;
    Ok(draft)
}
