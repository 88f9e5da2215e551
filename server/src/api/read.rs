//! Answering reads from the state of this manager.

use barge_proto::v1::{GetRequest, GetResponse, ListRequest, ListResponse};
use barge_state::State;

use super::names;
use crate::{
    error::ApiError,
    store::{Store, StoreError},
};

mod page;
mod query;

pub use self::query::Query;

/// One object.
///
/// # Errors
/// NOT_FOUND; INVALID for an unknown kind.
pub fn get(state: &State, request: &GetRequest) -> Result<GetResponse, ApiError> {
    let (kind, info) = names::kind(request.kind)?;
    let namespace = names::namespace(info, &request.namespace);
    let object = state
        .object(kind, namespace, &request.name)
        .ok_or_else(|| names::not_found(info, namespace, &request.name))?;
    Ok(GetResponse {
        object: Some(object),
        revision: state.revision(),
    })
}

/// One page of a list. Later pages show the revision of the first one: what has changed since is taken back, as far as the
/// history goes. So a list costs no more memory than the history that watches need anyway.
///
/// # Errors
/// INVALID for a request that is none; EXPIRED when the history does not go back to the first page any more; what the store
/// says.
pub async fn list(store: &Store, request: &ListRequest) -> Result<ListResponse, ApiError> {
    let query = Query::new(request)?;
    if !request.stale {
        store.read_index().await?;
    }
    let Some(revision) = query.revision() else {
        return Ok(store.read(|state| {
            let rows = query.rows(state);
            query.page(state, rows, state.revision())
        }));
    };
    let (mut rows, now) = store.read(|state| (query.rows(state), state.revision()));
    let expired = || ApiError::Expired { revision };
    if now < revision {
        // A stale read of a manager that is behind, or the token of another cluster.
        return Err(expired());
    }
    // The history follows the state closely, but not at once.
    store.wait_applied(now).await.map_err(|error| match error {
        StoreError::Stopped => ApiError::Stopping,
        other => other.into(),
    })?;
    store
        .changes(revision, now, |change| rows.take_back(&query, change))
        .map_err(|_| expired())?;
    Ok(store.read(|state| query.page(state, rows, revision)))
}
