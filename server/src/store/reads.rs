//! Linearizable reads.
//!
//! One round to a quorum serves all reads that came before it began. Reads that come during a round share the next one.

use std::{future::Future, time::Duration};

use barge_proto::v1::RaftReadIndexRequest;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Leadership, Store, StoreError};
use crate::{
    raft::{
        Channels,
        service::{ReadIndexError, read_index},
    },
    storage::{state::Progress, types::Raft},
};

/// Readers that may wait for a round.
pub(super) const QUEUE: usize = 4096;
/// How long a reader waits for a leader, its quorum, and this manager's state.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long one round may take before the leader is looked for again.
const ROUND: Duration = Duration::from_secs(1);
/// Between two attempts while the leader is not known to have changed.
const RETRY: Duration = Duration::from_millis(20);

impl Store {
    /// Afterwards [`Store::read`] sees every write that was acknowledged, by any manager, before the call. Waits up to 5 s
    /// for a leader.
    ///
    /// # Errors
    /// [`StoreError::NoQuorum`] when no leader could confirm itself, [`StoreError::Full`] when too many wait.
    pub async fn read_index(&self) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.0.reads.try_send(done).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Full,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}

/// Serves reads, one round after the other.
pub(super) struct Reader {
    pub raft: Raft,
    pub channels: Channels,
    pub leadership: watch::Receiver<Leadership>,
    pub progress: watch::Receiver<Progress>,
}

type Done = oneshot::Sender<Result<(), StoreError>>;

impl Reader {
    /// Runs until `stop`.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Done>, stop: CancellationToken) {
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                count = requests.recv_many(&mut waiting, QUEUE) => if count == 0 { return },
            }
            let deadline = Instant::now() + DEADLINE;
            let result = tokio::select! {
                () = stop.cancelled() => return,
                index = self.index(deadline) => index,
            };
            let mut progress = self.progress.clone();
            let waiting = std::mem::take(&mut waiting);
            // The state may take a while to get there; the next round does not have to wait for that.
            tokio::spawn(async move {
                let result = match result {
                    Ok(index) => applied(&mut progress, index, deadline).await,
                    Err(error) => Err(error),
                };
                for done in waiting {
                    // A caller that has gone needs no answer.
                    done.send(result.clone()).ok();
                }
            });
        }
    }

    /// Up to where this manager has to apply the log.
    async fn index(&mut self, deadline: Instant) -> Result<u64, StoreError> {
        loop {
            let leadership = self.leadership.borrow_and_update().clone();
            let round = deadline.min(Instant::now() + ROUND);
            let index = match leadership.leader {
                None => None,
                Some(_) if leadership.is_leader => {
                    match bounded(round, read_index(&self.raft)).await {
                        Some(Err(ReadIndexError::Stopped(_))) => return Err(StoreError::Stopped),
                        Some(index) => index.ok(),
                        None => None,
                    }
                }
                Some((id, address)) => bounded(round, self.ask(id, &address)).await.flatten(),
            };
            if let Some(index) = index {
                return Ok(index);
            }
            if Instant::now() >= deadline {
                return Err(StoreError::NoQuorum);
            }
            let again = deadline.min(Instant::now() + RETRY);
            if let Some(Err(_)) = bounded(again, self.leadership.changed()).await {
                return Err(StoreError::Stopped);
            }
        }
    }

    async fn ask(&self, leader: u64, address: &str) -> Option<u64> {
        let mut client = match self.channels.client(address) {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(%error, address, "cannot reach the leader");
                return None;
            }
        };
        match client.read_index(RaftReadIndexRequest { to: leader }).await {
            Ok(response) => Some(response.into_inner().index),
            Err(status) => {
                tracing::debug!(%status, address, "the leader gives no read index");
                None
            }
        }
    }
}

async fn applied(
    progress: &mut watch::Receiver<Progress>,
    index: u64,
    deadline: Instant,
) -> Result<(), StoreError> {
    let reached = progress.wait_for(|progress| progress.applied >= Some(index));
    match bounded(deadline, reached).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) => Err(StoreError::Stopped),
        None => Err(StoreError::NoQuorum),
    }
}

async fn bounded<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    timeout_at(deadline, future).await.ok()
}
