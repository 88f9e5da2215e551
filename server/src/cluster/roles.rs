//! Wanted roles of managers: a command sets one, the leader checks that the cluster keeps a majority, and the command waits for it.

use std::{sync::Arc, time::Duration};

use barge_proto::v1::{
    ManagerRecord, ManagerRole, Member, SetManagerRoleRequest, SetManagerRoleResponse,
};
use barge_state::{Kind, LOSS, RecordKind, State};
use tokio::time::{Instant, timeout_at};

use self::check::check;
use super::{Parts, status::members, waiting};
use crate::{
    error::ApiError,
    store::{Scope, Store, transaction::Draft},
};

pub mod check;

/// How long one request waits for its wish to come true; less than a forwarded request may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Somebody else may change the record at the same time.
const TRIES: usize = 4;

/// Writes what a manager should be, and waits for a while until it is so.
///
/// # Errors
/// INVALID for a role that cannot be asked for; NOT_FOUND; PRECONDITION with what to do first; NOT_LEADER when this manager stops
/// leading meanwhile, which it does when it is itself removed.
pub async fn set(
    parts: &Parts,
    by: String,
    request: &SetManagerRoleRequest,
) -> Result<SetManagerRoleResponse, ApiError> {
    let role = request.role();
    if matches!(role, ManagerRole::Unspecified | ManagerRole::Joining) {
        return Err(ApiError::invalid(
            "role",
            "VOTER, LEARNER or REMOVED is expected",
        ));
    }
    let deadline = Instant::now() + PATIENCE;
    parts.store.read_index().await?;
    let found = parts.store.read(|state| find(state, &request.manager))?;
    let record = match found {
        Found::Record(record) => record,
        Found::RemovedBefore(raft_id) if role == ManagerRole::Removed => {
            return Ok(SetManagerRoleResponse {
                manager: Some(Member {
                    raft_id,
                    ..Member::default()
                }),
                done: true,
                waiting: String::new(),
            });
        }
        Found::RemovedBefore(raft_id) => {
            return Err(ApiError::NotFound(format!(
                "manager {raft_id} was removed: its machine joins again with an empty data folder and a new token"
            )));
        }
    };
    write(parts, by, record.uid(), role).await?;
    wait(&parts.store, &record, role, deadline).await
}

enum Found {
    Record(Arc<ManagerRecord>),
    RemovedBefore(u64),
}

/// The manager that a person means.
fn find(state: &State, named: &str) -> Result<Found, ApiError> {
    let id = named.parse::<u64>().ok();
    let matching: Vec<_> = state
        .list::<ManagerRecord>(None)
        .filter(|record| match id {
            Some(id) => record.raft_id == id,
            None => record.uid() == named || record.address == named,
        })
        .collect();
    let next_id = state.cluster().map_or(0, |cluster| cluster.next_raft_id);
    match (matching.as_slice(), id) {
        ([record], _) => Ok(Found::Record(Arc::clone(record))),
        ([], Some(id)) if (1..next_id).contains(&id) => Ok(Found::RemovedBefore(id)),
        ([], _) => Err(ApiError::NotFound(format!(
            "no manager has the ID, uid or address {named:?}: `barge cluster members` shows them"
        ))),
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|r| r.raft_id.to_string()).collect();
            Err(ApiError::Precondition(format!(
                "managers {} all have the address {named}: name the one you mean by its ID",
                ids.join(" and ")
            )))
        }
    }
}

async fn write(parts: &Parts, by: String, uid: &str, role: ManagerRole) -> Result<(), ApiError> {
    for attempt in 1.. {
        let (raft, answering) = (parts.store.status(), parts.store.answering().await);
        let draft = parts.store.read(|state| {
            let records: Vec<_> = state.list::<ManagerRecord>(None).map(|r| &**r).collect();
            let Some(record) = records.iter().find(|record| record.uid() == uid) else {
                // Removed meanwhile; whether that was asked for is seen while waiting.
                return Ok(None);
            };
            check(record, role, &records, &raft, &answering).map_err(ApiError::Precondition)?;
            let mut changed = ManagerRecord::clone(record);
            changed.set_role(role);
            // A manager that a person promotes does not wait for a third one. What an older manager would drop is not written.
            let known = state.feature_level() >= LOSS;
            changed.promoted = known && role == ManagerRole::Voter;
            if changed == **record {
                return Ok(None);
            }
            let mut draft = Draft::new();
            draft.unchanged(*record);
            if changed.promoted {
                draft.needs(LOSS);
            }
            draft.put(changed);
            Ok::<_, ApiError>(Some(draft))
        })?;
        let Some(draft) = draft else { break };
        let outcome = parts.store.propose(draft.build(by.clone(), None)).await?;
        match ApiError::check(outcome) {
            Ok(_) => break,
            Err(ApiError::Conflict(_)) if attempt < TRIES => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Until the wish has come true, or the time is over.
async fn wait(
    store: &Store,
    record: &ManagerRecord,
    role: ManagerRole,
    deadline: Instant,
) -> Result<SetManagerRoleResponse, ApiError> {
    let (mut leadership, mut raft) = (store.leadership(), store.members());
    let revision = store.read(State::revision);
    let mut records = store
        .watch(revision, Scope::kinds([RecordKind::Manager]))
        .map_err(|_| ApiError::Stopping)?;
    loop {
        let now = leadership.borrow_and_update().clone();
        if !now.is_leader {
            let leader = now.leader.map(|(_, address)| address);
            return Err(ApiError::NotLeader { leader });
        }
        raft.borrow_and_update();
        let waiting = what_is_missing(store, record, role);
        let change = async {
            tokio::select! {
                change = records.next() => change.is_ok(),
                change = raft.changed() => change.is_ok(),
                change = leadership.changed() => change.is_ok(),
            }
        };
        let over = waiting.is_none()
            || match timeout_at(deadline, change).await {
                Ok(true) => false,
                Ok(false) => return Err(ApiError::Stopping),
                Err(_) => true,
            };
        if over {
            let known = members(store)
                .into_iter()
                .find(|member| member.raft_id == record.raft_id);
            return Ok(SetManagerRoleResponse {
                manager: Some(known.unwrap_or_else(|| last(record))),
                done: waiting.is_none(),
                waiting: waiting.unwrap_or_default(),
            });
        }
    }
}

fn last(record: &ManagerRecord) -> Member {
    Member {
        uid: record.uid().to_owned(),
        raft_id: record.raft_id,
        address: record.address.clone(),
        ..Member::default()
    }
}

/// What still keeps a manager from being what it should be; nothing when it is.
fn what_is_missing(store: &Store, record: &ManagerRecord, role: ManagerRole) -> Option<String> {
    let raft = store.status();
    let member = raft
        .members
        .iter()
        .find(|member| member.id == record.raft_id);
    store.read(|state| {
        let known = state.by_uid::<ManagerRecord>(record.uid());
        match (role, member) {
            (ManagerRole::Removed, None) if known.is_none() => None,
            (ManagerRole::Removed, _) => {
                Some("the other managers agree to go on without it".into())
            }
            (ManagerRole::Voter, _) => match known {
                Some(known) if known.role() == ManagerRole::Voter => {
                    let records: Vec<_> = state.list::<ManagerRecord>(None).map(|r| &**r).collect();
                    waiting::for_its_vote(known, &records, &raft)
                }
                _ => Some("somebody else asked for something else meanwhile".into()),
            },
            (_, None) => Some("it has not begun to learn".into()),
            (_, Some(member)) if member.voter => {
                Some("the other managers agree to go on without its vote".into())
            }
            (_, Some(_)) => None,
        }
    })
}
