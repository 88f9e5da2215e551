//! Changes of the cluster's members: the leader makes one step at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use barge_proto::v1::ManagerRecord;
use openraft::{
    ChangeMembers, Instant as _, async_runtime::watch::WatchReceiver, errors::ChangeMembershipError,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{Store, StoreError, batch::not_leader};
use crate::storage::types::{
    Membership, Node, RaftId, RaftWriteError, StoredMembership, WriteError,
};

/// How long a change may take to be committed.
const DEADLINE: Duration = Duration::from_secs(10);
/// Several heartbeats: a live member has acknowledged one by then.
const ANSWER: Duration = Duration::from_millis(500);
/// Between two attempts, when another change came first.
const RETRY: Duration = Duration::from_millis(20);

/// One change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a learner, or says where a member is now.
    Set(RaftId, Node),
    /// Makes learners voters, all in one change. They count at once, so they should have caught up.
    Promote(BTreeSet<RaftId>),
    /// Makes a voter a learner.
    Demote(RaftId),
    /// Removes a voter or learner, living or dead.
    Remove(RaftId),
    /// Completes a change of voters that was interrupted between its two halves.
    Settle,
}

/// Why the members were not changed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// As with any write. After [`StoreError::Unknown`] look at the members, and do what is missing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Without a voter there is no cluster.
    #[error("manager {0} is the last voter")]
    LastVoter(RaftId),
    /// Raft does not allow it at the moment.
    #[error("the members cannot be changed: {0}")]
    Refused(String),
}

/// The members, as of the newest membership in this manager's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Where each is, by Raft id.
    pub nodes: BTreeMap<RaftId, Node>,
    /// Those whose votes count. While a change is under way, those of before and after.
    pub voters: BTreeSet<RaftId>,
    /// Whether a change of voters is under way, or was interrupted.
    pub changing: bool,
    /// Whether this membership is not known to be committed yet: no other can be proposed until then.
    pub uncommitted: bool,
}

impl Members {
    pub(super) fn of(membership: &StoredMembership, committed: &StoredMembership) -> Self {
        Self {
            nodes: membership
                .nodes()
                .map(|(id, node)| (*id, node.clone()))
                .collect(),
            voters: membership.voter_ids().collect(),
            changing: membership.membership().get_joint_config().len() > 1,
            uncommitted: membership.log_id() != committed.log_id(),
        }
    }
}

impl Store {
    /// The members, and every change of them.
    pub fn members(&self) -> watch::Receiver<Members> {
        self.0.members.clone()
    }

    /// Where the cluster's managers are (`host:port`), by Raft id, as far as this manager's state knows.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let by_id: BTreeMap<_, _> = self.read(|state| {
            let records = state.list::<ManagerRecord>(None);
            records
                .map(|record| (record.raft_id, record.address.clone()))
                .collect()
        });
        by_id.into_values().collect()
    }

    /// Changes the members, and waits until that is committed. Safe to repeat.
    ///
    /// # Errors
    /// When this manager does not lead, it is about the last voter, or it is not committed within 10 s:
    /// [`StoreError::NoQuorum`] when the change before it is not, and nothing was done.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), MemberError> {
        let membership = self.membership();
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        let is_last = |id: RaftId| voters == BTreeSet::from([id]);
        let (change, retain) = match change {
            MemberChange::Demote(id) | MemberChange::Remove(id) if is_last(id) => {
                return Err(MemberError::LastVoter(id));
            }
            MemberChange::Set(id, node) => (ChangeMembers::SetNodes([(id, node)].into()), true),
            MemberChange::Promote(ids) => (ChangeMembers::AddVoterIds(ids), true),
            MemberChange::Demote(id) => (ChangeMembers::RemoveVoters([id].into()), true),
            MemberChange::Remove(id) if voters.contains(&id) => {
                (ChangeMembers::RemoveVoters([id].into()), false)
            }
            MemberChange::Remove(id) => (ChangeMembers::RemoveNodes([id].into()), true),
            MemberChange::Settle => (ChangeMembers::AddVoterIds(BTreeSet::new()), true),
        };
        self.commit(change, retain).await
    }

    /// The members that answer this leader now: that acknowledge what was sent after the call. Waits until all do, or half a
    /// second.
    pub async fn answering(&self) -> BTreeSet<RaftId> {
        let begun = Instant::now();
        let mut metrics = self.0.raft.metrics();
        loop {
            let (answering, all) = {
                let metrics = metrics.borrow_watched();
                let nodes = metrics.membership_config.nodes().map(|(id, _)| *id);
                let (answering, silent): (BTreeSet<_>, BTreeSet<_>) = nodes.partition(|id| {
                    let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(id));
                    let at = heard.copied().flatten();
                    *id == self.0.id || at.is_some_and(|at| at.elapsed() < begun.elapsed())
                });
                (answering, silent.is_empty())
            };
            let changed = timeout_at(begun + ANSWER, metrics.changed());
            if all || !matches!(changed.await, Ok(Ok(()))) {
                return answering;
            }
        }
    }

    fn membership(&self) -> Membership {
        self.0
            .raft
            .metrics()
            .borrow_watched()
            .membership_config
            .membership()
            .clone()
    }

    /// Proposes a change once the one before it is committed; until then Raft would refuse it.
    async fn commit(
        &self,
        change: ChangeMembers<RaftId, Node>,
        retain: bool,
    ) -> Result<(), MemberError> {
        let deadline = Instant::now() + DEADLINE;
        let mut members = self.members();
        loop {
            match timeout_at(deadline, members.wait_for(|now| !now.uncommitted)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(StoreError::Stopped.into()),
                Err(_) => return Err(StoreError::NoQuorum.into()),
            }
            let write = self.0.raft.change_membership(change.clone(), retain);
            let error = match timeout_at(deadline, write).await {
                Ok(Ok(_)) => return Ok(()),
                Err(_) | Ok(Err(RaftWriteError::Fatal(_))) => {
                    return Err(StoreError::Unknown.into());
                }
                Ok(Err(RaftWriteError::APIError(error))) => error,
            };
            match error {
                WriteError::ForwardToLeader(forward) => return Err(not_leader(&forward).into()),
                WriteError::LogEntryDiscarded(_) => return Err(StoreError::Unknown.into()),
                // Somebody else's change came first. Raft knows of it before its metrics do.
                WriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
                    if Instant::now() < deadline =>
                {
                    sleep(RETRY).await;
                }
                error => return Err(MemberError::Refused(error.to_string())),
            }
        }
    }
}
