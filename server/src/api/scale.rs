//! Setting the number of replicas.

use std::sync::Arc;

use barge_proto::v1::{Deployment, Kind, ScaleRequest, ScaleResponse};
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
        let found = store.read_by(By::Plan, |state| find(state, &namespace, &request))?;
        // Without the state's lock: it takes as long as the object is large.
        let mut draft = Draft::new();
        let mut scaled = Deployment::clone(&found);
        scaled.spec.get_or_insert_default().replicas = Some(request.replicas);
        ownership::change(&mut draft, &*found, scaled, manager, now)?;
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

fn find(
    state: &State,
    namespace: &str,
    request: &ScaleRequest,
) -> Result<Arc<Deployment>, ApiError> {
    let (_, info) = names::kind(Kind::Deployment.into())?;
    let found = state
        .get::<Deployment>(namespace, &request.name)
        .ok_or_else(|| names::not_found(info, namespace, &request.name))?;
    names::check_current(&request.name, found.meta(), &request.resource_version)?;
    Ok(Arc::clone(found))
}
