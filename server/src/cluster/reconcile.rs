//! Bringing the members of Raft in line with what the managers' records say that they should be.
//!
//! The leader takes one step at a time, each planned from the membership and the records as they are then. So it does not matter
//! where it is interrupted: whoever leads next goes on from there.

use std::{collections::BTreeSet, time::Duration};

use barge_proto::v1::ManagerRecord;
use barge_state::{RecordKind, State};
use tokio::time::timeout;

use self::plan::{Step, next};
use super::roles::check::majority;
use crate::{
    error::ApiError,
    raft::types::NodeId,
    store::{MemberChange, MemberError, RaftStatus, Scope, Store, StoreError, Watch},
    transaction::Draft,
};

mod plan;

/// Who changes records here.
const PRINCIPAL: &str = "controller/membership";
/// How soon to look again at a learner that has to catch up.
const CATCHING_UP: Duration = Duration::from_millis(50);
/// How soon to try again what did not work.
const RETRY: Duration = Duration::from_millis(500);

/// Takes the steps that are missing, for as long as this manager leads in this term. May be dropped at any time.
pub async fn run(store: Store, term: u64) {
    loop {
        // What earlier leaders wrote has to be known before anything is concluded from a record that is not there.
        if let Err(error) = store.read_index().await {
            tracing::debug!(%error, "the members are not looked after yet");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        let revision = store.read(State::revision);
        if let Ok(records) = store.watch(revision, Scope::kinds([RecordKind::Manager])) {
            follow(&store, term, records).await;
        }
    }
}

/// Until a change of a record was missed.
async fn follow(store: &Store, term: u64, mut records: Watch) {
    let mut members = store.members();
    // Those that cannot leave at the moment, so that they do not hold up the others.
    let mut stay = BTreeSet::new();
    loop {
        members.borrow_and_update();
        let raft = store.status();
        let step = store.read(|state| {
            // Before its first transaction a cluster has a member, and no record of it.
            state.cluster()?;
            let records: Vec<_> = state.list::<ManagerRecord>(None).map(|r| &**r).collect();
            next(&records, &raft, store.id(), &stay)
        });
        let pause = match step {
            None if stay.is_empty() => None,
            None => {
                stay.clear();
                Some(RETRY)
            }
            Some(Step::CatchUp) => Some(CATCHING_UP),
            Some(step) => match take(store, term, &step).await {
                Ok(()) => {
                    stay.clear();
                    continue;
                }
                Err(Refused::Unbearable { id, why }) => {
                    tracing::warn!(id, why, "a manager cannot leave yet");
                    stay.insert(id);
                    continue;
                }
                Err(Refused::Failed(error)) => {
                    tracing::warn!(?step, %error, "the members could not be changed: trying again");
                    Some(RETRY)
                }
            },
        };
        let changed = async {
            tokio::select! {
                changed = records.next() => changed.is_ok(),
                changed = members.changed() => changed.is_ok(),
            }
        };
        let more = match pause {
            None => changed.await,
            Some(pause) => timeout(pause, changed).await.unwrap_or(true),
        };
        if !more {
            return;
        }
    }
}

/// Why a step was not taken.
enum Refused {
    /// The managers that would remain could not go on.
    Unbearable { id: NodeId, why: String },
    /// It did not work.
    Failed(ApiError),
}

impl<E: Into<ApiError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn take(store: &Store, term: u64, step: &Step) -> Result<(), Refused> {
    let leaves = match step {
        Step::Change(MemberChange::Remove(id) | MemberChange::Demote(id)) => Some(*id),
        Step::HandOver => Some(store.id()),
        _ => None,
    };
    if let Some(id) = leaves {
        bearable(store, id)
            .await
            .map_err(|why| Refused::Unbearable { id, why })?;
    }
    tracing::info!(?step, "changing the members");
    match step {
        Step::Change(change) => match store.change_members(change.clone()).await {
            // It may have been committed: the next look tells.
            Err(MemberError::Store(StoreError::Unknown)) => Ok(()),
            done => Ok(done?),
        },
        Step::HandOver => {
            // This future is dropped as soon as this manager leads no more, which is before it is done.
            let leaving = store.clone();
            let handed_over = tokio::spawn(async move { leaving.hand_over().await });
            match handed_over.await {
                Ok(result) => Ok(result.map(drop)?),
                Err(error) => Err(ApiError::Internal(error.to_string()).into()),
            }
        }
        Step::Forget(uid) => Ok(forget(store, term, uid).await?),
        Step::CatchUp => Ok(()),
    }
}

/// A manager may have died since somebody wished for this: without a majority of the voters that remain, the change could
/// not be completed, and nothing could be written until they are back.
async fn bearable(store: &Store, without: NodeId) -> Result<(), String> {
    let answering = store.answering().await;
    let RaftStatus { members, .. } = store.status();
    let voters: Vec<_> = members
        .iter()
        .filter(|member| member.voter && member.id != without)
        .collect();
    let leaver = members.iter().find(|member| member.id == without);
    match leaver {
        Some(leaver) if leaver.voter => majority(&leaver.address, &voters, &answering),
        _ => Ok(()),
    }
}

/// Removes the record of a manager that is no member any more, which revokes its certificate.
async fn forget(store: &Store, term: u64, uid: &str) -> Result<(), ApiError> {
    let Some(record) = store.read(|state| state.by_uid::<ManagerRecord>(uid).cloned()) else {
        return Ok(());
    };
    let mut draft = Draft::new();
    draft.unchanged(&*record);
    draft.remove::<ManagerRecord>(uid);
    let mut transaction = draft.build(PRINCIPAL.to_owned(), None);
    transaction.term = term;
    ApiError::check(store.propose(transaction).await?)?;
    tracing::info!(uid, address = record.address, "a manager was removed");
    Ok(())
}
