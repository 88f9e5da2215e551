//! Changing the one record of the cluster.

use barge_proto::v1::ClusterRecord;

use crate::{
    error::ApiError,
    security::issue::not_ready,
    store::{Store, transaction::Draft},
};

/// Somebody else may change it at the same time.
const TRIES: usize = 8;

/// Changes the record; again, when it changed meanwhile.
///
/// # Errors
/// NO_QUORUM while this manager has no state; CONFLICT when others are always faster; what `change` and the store say.
pub async fn change(
    store: &Store,
    by: &str,
    change: impl Fn(&mut ClusterRecord) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut tries = 0;
    loop {
        let found = store
            .read(|state| state.cluster().map(|cluster| ClusterRecord::clone(cluster)))
            .ok_or_else(not_ready)?;
        let mut changed = found.clone();
        change(&mut changed)?;
        let mut draft = Draft::new();
        draft.unchanged(&found);
        draft.put(changed);
        let transaction = draft.build(by.to_owned(), None);
        match ApiError::check(store.propose(transaction).await?) {
            Err(ApiError::Conflict(_)) if tries + 1 < TRIES => tries += 1,
            done => return done.map(drop),
        }
    }
}
