//! Setting the number of replicas.

use std::sync::Arc;

use barge_proto::{
    kinds::KindInfo,
    v1::{Deployment, Kind, Object, ReplicaSet, ScaleRequest, ScaleResponse, Time},
};
use barge_state::{Kind as Recorded, State};

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
    let plan = match kind {
        Kind::Deployment => plan::<Deployment>,
        Kind::ReplicaSet => plan::<ReplicaSet>,
        _ => {
            let rule = format!("{} have no replicas", info.plural);
            return Err(ApiError::invalid("kind", rule));
        }
    };
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
        let draft = plan(store, info, &namespace, &request, (manager, now))?;
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

/// A kind whose objects keep a number of pods.
trait Scaled: Recorded<Kept = Self> + Into<Object> {
    fn set_replicas(&mut self, replicas: i32);
}

impl Scaled for Deployment {
    fn set_replicas(&mut self, replicas: i32) {
        self.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

impl Scaled for ReplicaSet {
    fn set_replicas(&mut self, replicas: i32) {
        self.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn plan<K: Scaled>(
    store: &Store,
    info: &KindInfo,
    namespace: &str,
    request: &ScaleRequest,
    (manager, now): (&str, Time),
) -> Result<Draft, ApiError> {
    let found = store.read_by(By::Plan, |state| find::<K>(state, info, namespace, request))?;
    // Without the state's lock: it takes as long as the object is large.
    let mut draft = Draft::new();
    let mut scaled = K::clone(&found);
    scaled.set_replicas(request.replicas);
    ownership::change(&mut draft, &*found, scaled, manager, now)?;
    Ok(draft)
}

fn find<K: Scaled>(
    state: &State,
    info: &KindInfo,
    namespace: &str,
    request: &ScaleRequest,
) -> Result<Arc<K>, ApiError> {
    let not_found = || names::not_found(info, namespace, &request.name);
    let shown = state.object_parts(info.kind, namespace, &request.name);
    names::check_kept(&shown.ok_or_else(not_found)?.record)?;
    let found = state
        .get::<K>(namespace, &request.name)
        .ok_or_else(not_found)?;
    names::check_current(&request.name, found.meta(), &request.resource_version)?;
    Ok(Arc::clone(found))
}
