//! A manager says that it serves, and where.

use barge_proto::v1::{ManagerRecord, ManagerRole};

use super::{Parts, level};
use crate::{error::ApiError, transaction::Draft};

/// Takes note that the manager with this uid serves Raft at this address: one that has joined is to vote from now on, one that
/// moved has another address. The leader makes it so. Safe to repeat.
///
/// # Errors
/// REVOKED when it was removed, PRECONDITION while it is being removed; NOT_LEADER and NO_QUORUM as for every change.
pub async fn activate(
    parts: &Parts,
    uid: &str,
    address: &str,
    feature_level: u32,
) -> Result<(), ApiError> {
    parts.store.read_index().await?;
    let record = parts
        .store
        .read(|state| state.by_uid::<ManagerRecord>(uid).cloned())
        .ok_or_else(|| ApiError::Revoked(format!("manager {uid} was removed")))?;
    let role = match record.role() {
        ManagerRole::Removed => {
            return Err(ApiError::Precondition(format!(
                "manager {uid} is being removed"
            )));
        }
        ManagerRole::Joining | ManagerRole::Unspecified => ManagerRole::Voter,
        role => role,
    };
    let cluster = parts.store.read(|state| state.cluster().cloned());
    if let Some(cluster) = &cluster {
        level::check(cluster, feature_level)?;
    }
    if record.address == address && record.role() == role && record.feature_level == feature_level {
        return Ok(());
    }
    let mut serving = ManagerRecord::clone(&record);
    serving.address = address.to_owned();
    serving.set_role(role);
    serving.feature_level = feature_level;
    let mut draft = Draft::new();
    draft.unchanged(&*record);
    if let Some(cluster) = cluster.filter(|_| record.feature_level != feature_level) {
        // Its level must not have risen meanwhile.
        draft.unchanged(&*cluster);
    }
    draft.put(serving);
    let transaction = draft.build(format!("manager/{uid}"), None);
    ApiError::check(parts.store.propose(transaction).await?)?;
    tracing::info!(uid, raft_id = record.raft_id, address, "a manager serves");
    Ok(())
}
