//! Activate: a new manager reports that it serves, and at which address. The leader checks that it answers there.

use barge_proto::v1::{ManagerRecord, ManagerRole, ManagerUnreachable};
use barge_state::{LOSS, State};

use super::{Parts, level};
use crate::{error::ApiError, runtime::clock, store::transaction::Draft};

/// Takes note that the manager with this uid serves Raft at this address, once it is found there: one that has joined is to vote
/// from now on, one that moved has another address. The leader makes it so. Safe to repeat.
///
/// # Errors
/// ADVERTISE_UNREACHABLE when it is not found there, which is noted in its record; REVOKED when it was removed, PRECONDITION while it
/// is being removed; NOT_LEADER and NO_QUORUM as for every change.
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
    // A leader may not reach itself by the address at which the others reach it.
    if record.raft_id != parts.store.id()
        && let Err(found) = parts.store.find(record.raft_id, address).await
    {
        let error = ApiError::AdvertiseUnreachable(format!(
            "the leader does not find manager {} at {address}, the address that it advertises: {found}. Start it with the \
             --advertise HOST:PORT by which the other managers reach it, and let them through to that port; until then it takes \
             part in nothing",
            record.raft_id
        ));
        note(parts, &record, address, found).await?;
        return Err(error);
    }
    let mut serving = ManagerRecord::clone(&record);
    serving.address = address.to_owned();
    serving.set_role(role);
    serving.feature_level = feature_level;
    serving.unreachable = None;
    if serving == *record {
        return Ok(());
    }
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

/// Writes into a manager's record that it is not found at an address; once, however often it asks.
async fn note(
    parts: &Parts,
    record: &ManagerRecord,
    address: &str,
    found: String,
) -> Result<(), ApiError> {
    let noted = record.unreachable.as_ref();
    let known = noted.is_some_and(|noted| noted.address == address);
    // An older manager would drop it.
    if known || parts.store.read(State::feature_level) < LOSS {
        return Ok(());
    }
    tracing::warn!(
        raft_id = record.raft_id,
        address,
        found,
        "a manager is not found where it says that it serves"
    );
    let mut draft = Draft::new();
    draft.unchanged(record);
    draft.needs(LOSS);
    draft.put(ManagerRecord {
        unreachable: Some(ManagerUnreachable {
            address: address.to_owned(),
            found,
            since: Some(clock::now()),
        }),
        ..record.clone()
    });
    let transaction = draft.build("controller/membership".to_owned(), None);
    ApiError::check(parts.store.propose(transaction).await?).map(drop)
}
