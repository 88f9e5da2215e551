//! Answering reads from the state of this manager.

use std::sync::Arc;

use barge_proto::v1::{GetRequest, GetResponse, ListRequest, ListResponse};
use barge_state::State;

use super::names;
use crate::{error::ApiError, store::Store};

mod page;
mod pins;
mod query;
mod rows;

use self::{pins::Key, rows::collect};
pub use self::{
    pins::{Limits, Pins},
    query::Query,
};

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

/// One page of a list. All pages show the revision of the first one. A first page takes only what it shows. The second one takes
/// all that follows, and keeps it for the pages behind it; so it does when what was kept is gone, or another manager has it, as
/// far as the history goes.
///
/// # Errors
/// INVALID for a request that is none; EXPIRED when nothing is kept and the history does not go back to the first page any more;
/// what the store says.
pub async fn list(
    store: &Store,
    pins: &Pins,
    caller: &str,
    request: &ListRequest,
) -> Result<ListResponse, ApiError> {
    let query = Arc::new(Query::new(request)?);
    if !request.stale {
        store.read_index().await?;
    }
    let key = query.revision().map(|at| Key::new(caller, &query, at));
    let kept = key.as_ref().and_then(|key| pins.get(key, &query));
    let is_kept = kept.is_some();
    let rows = match (kept, &key) {
        (Some(kept), _) => kept,
        (None, Some(_)) => Arc::new(collect(store, pins, &query, pins.most()).await?),
        (None, None) => Arc::new(collect(store, pins, &query, query.most()).await?),
    };
    let page = match query.is_filtered() {
        true => {
            let (query, rows) = (query.clone(), rows.clone());
            pins.work(move || query.page(&rows)).await?
        }
        false => query.page(&rows),
    };
    let is_last = page.r#continue.is_empty();
    let goes_on = key.is_some() || rows.end.is_none();
    let key = key.unwrap_or_else(|| Key::new(caller, &query, rows.revision));
    if is_last {
        pins.remove(&key);
    } else if goes_on && !is_kept {
        pins.keep(key, rows, store.read(State::revision));
    }
    Ok(page)
}
