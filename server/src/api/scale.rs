//! Setting the number of replicas.

use barge_proto::v1::{Deployment, Kind, ScaleRequest, ScaleResponse};
use barge_state::State;

use super::{
    commit::{Committed, commit, request_record},
    names,
};
use crate::{error::ApiError, store::Store, transaction::Draft};

/// Scales at the leader.
///
/// # Errors
/// NOT_FOUND; INVALID for a negative number or a kind without replicas.
pub async fn scale(
    store: &Store,
    by: String,
    mut request: ScaleRequest,
) -> Result<ScaleResponse, ApiError> {
    let id = request.request_id.take();
    let record = request_record(store, id.as_ref(), &request)?;
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
    let committed = commit(store, by, record, |state| {
        let draft = plan(state, &namespace, &request)?;
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

fn plan(state: &State, namespace: &str, request: &ScaleRequest) -> Result<Draft, ApiError> {
    let (_, info) = names::kind(Kind::Deployment.into())?;
    let found = state
        .get::<Deployment>(namespace, &request.name)
        .ok_or_else(|| names::not_found(info, namespace, &request.name))?;
    let mut draft = Draft::new();
    let mut scaled = Deployment::clone(found);
    let spec = scaled.spec.get_or_insert_default();
    if spec.replicas == Some(request.replicas) {
        return Ok(draft);
    }
    spec.replicas = Some(request.replicas);
    draft.unchanged(&**found);
    draft.put(scaled);
    Ok(draft)
}
