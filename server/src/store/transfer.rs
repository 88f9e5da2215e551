//! Handing leadership over, and stopping.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, timeout_at};

use super::{Store, StoreError};
use crate::storage::types::{Metrics, RaftId};

/// How long proposals in flight, and a follower that lacks entries, are waited for.
const DRAIN: Duration = Duration::from_millis(500);
/// How long the new leader is waited for.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// How long Raft may take to stop.
const STOP: Duration = Duration::from_secs(5);

impl Store {
    /// Hands leadership to a voter that has the whole log, if this manager leads and there is one. Nothing can be proposed
    /// here meanwhile. Returns the new leader, or nothing when this manager did not lead or no other can.
    ///
    /// # Errors
    /// [`StoreError::NoQuorum`] when no manager took over in time; this manager may lead on.
    pub async fn hand_over(&self) -> Result<Option<RaftId>, StoreError> {
        self.hand_over_if(|_| true).await
    }

    /// As [`Store::hand_over`], to one of these only.
    ///
    /// # Errors
    /// As [`Store::hand_over`].
    pub(super) async fn hand_over_to(
        &self,
        targets: &[RaftId],
    ) -> Result<Option<RaftId>, StoreError> {
        self.hand_over_if(|id| targets.contains(&id)).await
    }

    async fn hand_over_if(
        &self,
        may_lead: impl Fn(RaftId) -> bool,
    ) -> Result<Option<RaftId>, StoreError> {
        if !self.0.leadership.borrow().is_leader {
            return Ok(None);
        }
        self.0.handing_over.send_replace(true);
        let result = self.transfer(may_lead).await;
        self.0.handing_over.send_replace(false);
        result
    }

    async fn transfer(
        &self,
        may_lead: impl Fn(RaftId) -> bool,
    ) -> Result<Option<RaftId>, StoreError> {
        let id = self.0.id;
        let drained = Instant::now() + DRAIN;
        // Whatever is in flight is answered before, if it can be.
        let all = u32::try_from(super::propose::ROOM).unwrap_or(u32::MAX);
        let room = timeout_at(drained, self.0.room.acquire_many(all)).await;
        let mut metrics = self.0.raft.metrics();
        let target = loop {
            let (target, others) = candidate(&metrics.borrow_watched(), id, &may_lead);
            if !others {
                return Ok(None);
            }
            if let Some(target) = target {
                break target;
            }
            // An unreachable target would leave the cluster without a leader for an election's time: no worse than stopping.
            match timeout_at(drained, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(StoreError::Stopped),
                Err(_) => return Err(StoreError::NoQuorum),
            }
        };
        drop(room);
        tracing::info!(target, "handing leadership over");
        self.0
            .raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(|_| StoreError::Stopped)?;
        let deadline = Instant::now() + TAKE_OVER;
        loop {
            let leader = metrics.borrow_watched().current_leader;
            if let Some(leader) = leader.filter(|leader| *leader != id) {
                return Ok(Some(leader));
            }
            match timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(StoreError::Stopped),
                Err(_) => return Err(StoreError::NoQuorum),
            }
        }
    }

    /// Hands leadership over, stops taking part in the cluster, and makes the state durable. The databases are closed when
    /// the last clone of this handle has gone. Takes at most some seconds.
    pub async fn shutdown(&self) {
        if let Err(error) = self.hand_over().await {
            tracing::warn!(%error, "leadership was not handed over");
        }
        self.abandon().await;
        if let Err(error) = self.0.state.flush().await {
            tracing::warn!(%error, "the next start has to replay the log");
        }
    }

    /// Stops taking part in the cluster at once, without handing anything over.
    pub async fn abandon(&self) {
        self.0.stop.cancel();
        match tokio::time::timeout(STOP, self.0.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "Raft did not stop cleanly"),
            Err(_) => tracing::warn!("Raft takes too long to stop"),
        }
        self.0.tasks.close();
        if tokio::time::timeout(STOP, self.0.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("tasks take too long to stop");
        }
    }
}

/// A voter whose log is the leader's, and whether there are others that may lead at all.
fn candidate(
    metrics: &Metrics,
    id: RaftId,
    may_lead: impl Fn(RaftId) -> bool,
) -> (Option<RaftId>, bool) {
    let mut others = metrics
        .membership_config
        .voter_ids()
        .filter(|voter| *voter != id && may_lead(*voter))
        .peekable();
    let any = others.peek().is_some();
    let target = others.find(|voter| {
        let matched = metrics.replication.as_ref().and_then(|all| all.get(voter));
        matched.is_some_and(|matched| matched.map(|id| id.index) == metrics.last_log_index)
    });
    (target, any)
}
