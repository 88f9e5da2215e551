//! Brings the members of Raft in line with the wanted roles in the managers' records.
//!
//! The leader takes one step at a time, each planned from the current membership and records. So a new leader
//! goes on wherever the last one was interrupted.

use std::{collections::BTreeSet, time::Duration};

use barge_client::backoff::Backoff;
use barge_proto::v1::ManagerRecord;
use barge_state::{RecordKind, State};
use tokio::time::timeout;

use self::{
    pace::Pace,
    step::{Step, next},
};
use super::roles::check::majority;
use crate::{
    error::ApiError,
    storage::types::RaftId,
    store::{Member, MemberChange, RaftStatus, Scope, Store, Watch, transaction::Draft},
};

mod pace;
pub mod step;

/// The principal of changes that are made here.
const PRINCIPAL: &str = "controller/membership";
/// How soon to look again at a learner that has to catch up, and at a change that has to be committed.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How soon to try again what did not work.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Takes the steps that are missing, for as long as this manager leads in this term. May be dropped at any time.
pub async fn run(store: Store, term: u64) {
    let mut pause = Backoff::new(RETRY.0, RETRY.1);
    loop {
        // What earlier leaders wrote has to be known before anything is concluded from a record that is not there.
        match store.read_index().await {
            Ok(()) => {
                let revision = store.read(State::revision);
                if let Ok(records) = store.watch(revision, Scope::kinds([RecordKind::Manager])) {
                    follow(&store, term, records).await;
                    pause.reset();
                }
            }
            Err(error) => tracing::debug!(%error, "the members are not looked after yet"),
        }
        tokio::time::sleep(pause.wait()).await;
    }
}

/// Until a change of a record was missed. Each turn takes a step that is not the one before, or waits.
async fn follow(store: &Store, term: u64, mut records: Watch) {
    let mut members = store.members();
    let (mut pace, mut look) = (Pace::new(RETRY), Backoff::new(LOOK.0, LOOK.1));
    // Those that cannot leave at the moment, so that they do not hold up the others.
    let mut stay = BTreeSet::new();
    let mut stays = Backoff::new(RETRY.0, RETRY.1);
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
                Some(stays.wait())
            }
            Some(Step::Wait) => Some(look.wait()),
            Some(step) => match pace.wait(&step) {
                Some(pause) => Some(pause),
                None => {
                    match take(store, term, &step).await {
                        Ok(()) => stay.clear(),
                        Err(Refused::Unbearable { id, why }) => {
                            tracing::warn!(id, why, "a manager cannot leave yet");
                            stay.insert(id);
                        }
                        Err(Refused::Failed(error)) => {
                            tracing::warn!(?step, %error, "the members could not be changed: trying again");
                        }
                    }
                    pace.took(step);
                    continue;
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
            None => Some(changed.await),
            Some(pause) => timeout(pause, changed).await.ok(),
        };
        match more {
            None => {}
            Some(true) => {
                look.reset();
                stays.reset();
            }
            Some(false) => return,
        }
    }
}

/// Why a step was not taken.
enum Refused {
    /// The managers that would remain could not go on.
    Unbearable { id: RaftId, why: String },
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
    if let Step::Change(MemberChange::Promote(ids)) = step {
        all_answer(store, ids).await?;
    }
    tracing::info!(?step, "changing the members");
    match step {
        // One whose outcome is unknown may have been committed: the next look tells.
        Step::Change(change) => Ok(store.change_members(change.clone()).await?),
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
        Step::Wait => Ok(()),
    }
}

/// A learner that is to vote has to answer now: acknowledgements from before its death would otherwise count.
async fn all_answer(store: &Store, ids: &BTreeSet<RaftId>) -> Result<(), ApiError> {
    let answering = store.answering().await;
    let RaftStatus { members, .. } = store.status();
    let silent: Vec<_> = members
        .iter()
        .filter(|member| ids.contains(&member.id) && !answering.contains(&member.id))
        .map(Member::name)
        .collect();
    match silent.is_empty() {
        true => Ok(()),
        false => Err(ApiError::Precondition(format!(
            "{} did not answer the question whether it may vote",
            silent.join(", ")
        ))),
    }
}

/// A manager may have died since this was requested: without a majority of the voters that remain, the change could
/// not be completed, and nothing could be written until they are back.
async fn bearable(store: &Store, without: RaftId) -> Result<(), String> {
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
