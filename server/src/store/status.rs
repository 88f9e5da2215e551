//! The status of this manager's Raft.

use std::time::Duration;

use openraft::{Instant as _, async_runtime::watch::WatchReceiver};

use super::{Members, Store};

/// What a manager knows of its Raft and, if it leads, of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// The term.
    pub term: u64,
    /// Raft id of the leader, if one is known.
    pub leader: Option<u64>,
    /// The index of the last entry in the log, durable or not.
    pub last_log_index: u64,
    /// The index of the last entry known to be committed.
    pub committed_index: u64,
    /// The index of the last entry that was applied.
    pub applied_index: u64,
    /// The index up to which there is a snapshot.
    pub snapshot_index: u64,
    /// The index up to which the log was purged.
    pub purged_index: u64,
    /// The revision of the applied state.
    pub revision: u64,
    /// All members, as of the newest membership in the log.
    pub members: Vec<Member>,
    /// Whether a change of voters is under way, or was interrupted.
    pub changing: bool,
    /// Whether the newest membership is not known to be committed yet.
    pub uncommitted: bool,
}

/// A member of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its Raft id.
    pub id: u64,
    /// host:port
    pub address: String,
    /// The uid its certificate names.
    pub uid: String,
    /// Whether it votes; otherwise it only learns.
    pub voter: bool,
    /// How many entries it lacks. Known to the leader only, and only for members that have acknowledged an entry to it.
    pub lag: Option<u64>,
    /// How long ago the leader sent what this member acknowledged last. Known to the leader only; absent when it acknowledged
    /// nothing to it.
    pub heard: Option<Duration>,
}

impl Member {
    /// As people know it: address and Raft id.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} (ID {})", self.address, self.id)
    }
}

impl Store {
    /// How long this manager has been on its own: since it heard from a leader, or as the leader from a majority.
    pub fn silence(&self) -> Duration {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        if !metrics.state.is_leader() {
            return self.0.contact.silence();
        }
        let mut others = metrics.membership_config.voter_ids();
        match (metrics.last_quorum_acked, others.any(|id| id != self.0.id)) {
            (Some(at), true) => at.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// The term in which this manager leads now, as Raft itself says; absent when it does not.
    pub fn leads_in(&self) -> Option<u64> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state.is_leader()).then_some(metrics.current_term)
    }

    /// The term, and the address of the manager that leads in it, as Raft itself says; absent when none is known.
    pub fn led_by(&self) -> Option<(u64, String)> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.get_node(&leader)?;
        Some((metrics.current_term, node.address.clone()))
    }

    /// The revision up to which this manager has applied. Takes no lock of the state.
    pub fn applied_revision(&self) -> u64 {
        self.0.state.progress().borrow().revision
    }

    /// How this manager's Raft is doing.
    pub fn status(&self) -> RaftStatus {
        let progress = *self.0.state.progress().borrow();
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index =
            |id: &Option<crate::storage::types::LogId>| id.as_ref().map_or(0, |id| id.index);
        let Members {
            nodes,
            voters,
            changing,
            uncommitted,
        } = Members::of(
            &metrics.membership_config,
            &metrics.committed_membership_config,
        );
        let last = metrics.last_log_index.unwrap_or(0);
        let members = nodes
            .iter()
            .map(|(id, node)| Member {
                id: *id,
                address: node.address.clone(),
                uid: node.uid.clone(),
                voter: voters.contains(id),
                lag: match &metrics.replication {
                    Some(_) if *id == self.0.id => Some(0),
                    Some(replication) => replication
                        .get(id)
                        .and_then(|matched| matched.as_ref())
                        .map(|matched| last.saturating_sub(matched.index)),
                    None => None,
                },
                heard: match &metrics.heartbeat {
                    Some(_) if *id == self.0.id => Some(Duration::ZERO),
                    Some(heard) => heard.get(id).copied().flatten().map(|at| at.elapsed()),
                    None => None,
                },
            })
            .collect();
        RaftStatus {
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index: last,
            committed_index: index(&metrics.local_committed),
            applied_index: progress.applied.unwrap_or(0),
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            revision: progress.revision,
            members,
            changing,
            uncommitted,
        }
    }
}
