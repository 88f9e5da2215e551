//! The current leader and members.

use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::Members;
use crate::{
    raft::Channels,
    storage::types::{Raft, RaftId},
};

/// The leader, as this manager knows it. A leader that was cut off believes in itself until it hears of another: what has to
/// be certain goes through a proposal or a read index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term. Work that was decided in one is refused in any other.
    pub term: u64,
    /// Raft id and address; absent during an election, and while leadership is handed over.
    pub leader: Option<(RaftId, String)>,
    /// Whether it is this manager.
    pub is_leader: bool,
}

/// Follows Raft until it stops: the leader, and the members' addresses.
pub async fn follow(
    raft: Raft,
    channels: Channels,
    mut handing_over: watch::Receiver<bool>,
    leadership: watch::Sender<Leadership>,
    members: watch::Sender<Members>,
    changes: Counter,
) {
    let mut metrics = raft.server_metrics();
    loop {
        let mut now = {
            let metrics = metrics.borrow_watched();
            channels.learn(metrics.membership_config.nodes());
            let known = Members::of(
                &metrics.membership_config,
                &metrics.committed_membership_config,
            );
            members.send_if_modified(|before| {
                let changed = *before != known;
                *before = known;
                changed
            });
            let leader = metrics.current_leader.and_then(|id| {
                let node = metrics.membership_config.get_node(&id)?;
                Some((id, node.address.clone()))
            });
            Leadership {
                term: metrics.vote.leader_id.term,
                is_leader: metrics.state == ServerState::Leader && leader.is_some(),
                leader,
            }
        };
        if *handing_over.borrow_and_update() && now.is_leader {
            now = Leadership {
                term: now.term,
                ..Leadership::default()
            };
        }
        leadership.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                if now.leader.is_some() && (now.term, &now.leader) != (before.term, &before.leader) {
                    changes.inc();
                }
                tracing::info!(term = now.term, leader = ?now.leader, is_leader = now.is_leader, "leadership");
                *before = now;
            }
            changed
        });
        let ended = tokio::select! {
            changed = metrics.changed() => changed.is_err(),
            changed = handing_over.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}
