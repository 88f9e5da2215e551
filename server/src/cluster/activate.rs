//! Making a manager that joined a voter.

use barge_proto::v1::ManagerRecord;

use super::Parts;
use crate::{error::ApiError, raft, transaction::Draft};

/// Makes the manager with this uid a voter, at this address. Safe to repeat: a voter stays one, and one that moved gets its
/// new address.
///
/// # Errors
/// NOT_FOUND when it did not join or was removed; NOT_LEADER and NO_QUORUM as for every change.
pub async fn activate(parts: &Parts, uid: &str, address: &str) -> Result<(), ApiError> {
    parts.store.read_index().await?;
    let record = parts
        .store
        .read(|state| state.by_uid::<ManagerRecord>(uid).cloned())
        .ok_or_else(|| ApiError::NotFound(format!("manager {uid} was removed")))?;
    if record.address != address {
        let mut moved = ManagerRecord::clone(&record);
        moved.address = address.to_owned();
        let mut draft = Draft::new();
        draft.unchanged(&*record);
        draft.put(moved);
        let transaction = draft.build(format!("manager/{uid}"), None);
        ApiError::check(parts.store.propose(transaction).await?)?;
    }
    let node = raft::types::Node {
        address: address.to_owned(),
        uid: uid.to_owned(),
    };
    parts.store.add_member(record.raft_id, node).await?;
    tracing::info!(uid, raft_id = record.raft_id, address, "a manager votes");
    Ok(())
}
