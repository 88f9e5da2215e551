//! Who belongs to the cluster. Only the leader changes that.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use openraft::{ChangeMembers, async_runtime::watch::WatchReceiver, errors::ChangeMembershipError};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Store, StoreError, propose::not_leader};
use crate::raft::types::{Membership, Node, NodeId, RaftWriteError, WriteError};

/// How long a change of members may take; a learner has to catch up within it.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two attempts while nothing is seen to happen.
const RETRY: Duration = Duration::from_millis(20);

/// Why the members were not changed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// As with any write. After [`StoreError::Unknown`], and after a deadline, repeat the call: it does what is missing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The last voter cannot be removed.
    #[error("manager {0} is the last voter and cannot be removed")]
    LastVoter(NodeId),
    /// Raft does not allow it at the moment.
    #[error("the members cannot be changed: {0}")]
    Refused(String),
}

impl Store {
    /// Makes a manager that serves Raft at its address a voter: first it learns, and votes once it has caught up. Safe to
    /// repeat; a member with another address gets the new one.
    ///
    /// # Errors
    /// When this manager does not lead, or the new one does not catch up in time. It stays a learner then.
    pub async fn add_member(&self, id: NodeId, node: Node) -> Result<(), MemberError> {
        let membership = self.membership();
        if membership.get_node(&id).is_some_and(|known| *known != node) {
            let nodes = BTreeMap::from([(id, node.clone())]);
            self.change(ChangeMembers::SetNodes(nodes)).await?;
        }
        let is_voter = |membership: &Membership| membership.voter_ids().any(|voter| voter == id);
        if is_voter(&membership) && membership.get_joint_config().len() == 1 {
            return Ok(());
        }
        if !is_voter(&membership) {
            let raft = self.0.raft.clone();
            self.retrying(|| {
                let (raft, node) = (raft.clone(), node.clone());
                async move { raft.add_learner(id, node, true).await.map(drop) }
            })
            .await?;
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
            .await
    }

    /// Removes a manager, voter or learner, living or dead. Safe to repeat. A leader that removes itself hands leadership
    /// over afterwards.
    ///
    /// # Errors
    /// When this manager does not lead, or it is about the last voter.
    pub async fn remove_member(&self, id: NodeId) -> Result<(), MemberError> {
        let membership = self.membership();
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        if voters == BTreeSet::from([id]) {
            return Err(MemberError::LastVoter(id));
        }
        let gone = BTreeSet::from([id]);
        if voters.contains(&id) {
            self.change(ChangeMembers::RemoveVoters(gone.clone()))
                .await?;
        }
        // A removed voter may have become a learner, if the change was interrupted.
        if self.membership().get_node(&id).is_some() {
            self.change(ChangeMembers::RemoveNodes(gone)).await?;
        }
        Ok(())
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

    async fn change(&self, change: ChangeMembers<NodeId, Node>) -> Result<(), MemberError> {
        let raft = self.0.raft.clone();
        self.retrying(|| {
            let (raft, change) = (raft.clone(), change.clone());
            async move { raft.change_membership(change, false).await.map(drop) }
        })
        .await
    }

    /// Repeats what is refused because the change before it has not been committed yet.
    async fn retrying<F>(&self, change: impl Fn() -> F) -> Result<(), MemberError>
    where
        F: Future<Output = Result<(), RaftWriteError>>,
    {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut metrics = self.0.raft.metrics();
            let error = match timeout_at(deadline, change()).await {
                Ok(Ok(())) => return Ok(()),
                Err(_) | Ok(Err(RaftWriteError::Fatal(_))) => {
                    return Err(StoreError::Unknown.into());
                }
                Ok(Err(RaftWriteError::APIError(error))) => error,
            };
            match error {
                WriteError::ForwardToLeader(forward) => return Err(not_leader(&forward).into()),
                WriteError::LogEntryDiscarded(_) => return Err(StoreError::Unknown.into()),
                WriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_)
                    | ChangeMembershipError::UncommittedLeaderLog(_),
                ) if Instant::now() < deadline => {
                    timeout(RETRY, metrics.changed()).await.ok();
                }
                error => return Err(MemberError::Refused(error.to_string())),
            }
        }
    }
}
