//! Answering reads from the state of this manager.

use std::sync::Arc;

use barge_proto::{
    kinds::{KindInfo, Registry},
    v1::{GetRequest, GetResponse, ListRequest, ListResponse},
};
use barge_state::State;

use crate::{calls::names, error::ApiError, store::Store};

mod page;
mod pins;
mod query;
mod rows;
mod workers;

use self::{
    pins::{Key, free},
    rows::{Rows, SLICE, collect, collect_few},
};
pub use self::{
    pins::{Limits, Pins},
    query::Query,
    workers::Workers,
};

/// One object.
///
/// # Errors
/// NOT_FOUND.
pub fn get(state: &State, info: &KindInfo, request: &GetRequest) -> Result<GetResponse, ApiError> {
    let namespace = names::namespace(info, &request.namespace);
    let object = state
        .object(info.kind, namespace, &names::record(info, &request.name))
        .ok_or_else(|| names::not_found(info, namespace, &request.name))?;
    Ok(GetResponse {
        object: Some(object),
        revision: state.revision(),
    })
}

/// One page of a list. All pages show the revision of the first one. A first page takes only what it shows. The second one takes
/// all that follows, and keeps it for the pages behind it; so it does when what was kept is gone, or another manager has it, as
/// far as the history goes. When there is no room to keep it, each page takes only what it shows.
///
/// # Errors
/// INVALID for a request that is none; EXPIRED when nothing is kept and the history does not go back to the first page any more;
/// what the store says.
pub async fn list(
    store: &Store,
    pins: &Pins,
    kinds: &Registry,
    caller: &str,
    request: &ListRequest,
) -> Result<ListResponse, ApiError> {
    let query = Query::new(kinds, request)?;
    if !request.stale {
        store.read_index().await?;
    }
    let key = query.revision().map(|at| Key::new(caller, &query, at));
    if let Some(kept) = key.as_ref().and_then(|key| pins.get(key, &query)) {
        return page_of(pins, query, kept).await;
    }
    let takes_all = key.is_some_and(|key| pins.has_room(&key));
    let most = match takes_all {
        true => pins.most(),
        false => query.most(),
    };
    if let Some(rows) = collect_few(store, &query, most).await? {
        return Ok(page_and_keep(store, pins, caller, &query, rows, takes_all));
    }
    let work = {
        let (store, pins, caller) = (store.clone(), pins.clone(), caller.to_owned());
        move || {
            let rows = collect(&store, &query, most)?;
            let page = page_and_keep(&store, &pins, &caller, &query, rows, takes_all);
            Ok(page)
        }
    };
    pins.workers().run(work).await?
}

/// A page of what was kept.
async fn page_of(pins: &Pins, query: Query, kept: Arc<Rows>) -> Result<ListResponse, ApiError> {
    if query.is_filtered() && kept.rows.len() > SLICE {
        return pins.workers().run(move || query.page(&kept)).await;
    }
    let page = query.page(&kept);
    free([kept]);
    Ok(page)
}

/// A page of what was collected. The rows are kept when the pages behind it can be made of them.
fn page_and_keep(
    store: &Store,
    pins: &Pins,
    caller: &str,
    query: &Query,
    rows: Rows,
    takes_all: bool,
) -> ListResponse {
    let page = query.page(&rows);
    let goes_on = !page.r#continue.is_empty();
    if goes_on && (takes_all || rows.end.is_none()) {
        let key = Key::new(caller, query, rows.revision);
        pins.keep(key, Arc::new(rows), store.read(State::revision));
    }
    page
}
