//! The managers' side of agents: sessions ([`connect`]), assignments to agents ([`tell`], [`feed`], [`needs`]), the relay of their reports
//! ([`relay`], then [`receive`] and [`reports`] at the leader), and streams to agents ([`tunnels`], [`reach`], [`logs`], [`into_pods`],
//! [`metrics`]). Life signs are
//! elsewhere ([`crate::life`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use barge_proto::v1::{ManagerMessage, OpenStream, manager_message::Message};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;

pub mod chunks;
pub mod connect;
pub mod feed;
pub mod into_pods;
pub mod logs;
pub mod metrics;
pub mod needs;
pub mod outbox;
pub mod reach;
pub mod receive;
pub mod relay;
pub mod reports;
pub mod service;
pub mod tell;
pub mod tunnels;

pub use into_pods::PodStreamsService;
pub use logs::LogsService;
pub use metrics::{Asker, MetricsService};
pub use reach::Reach;
pub use relay::Relay;
pub use service::SessionService;
pub use tunnels::Tunnels;

/// The agents that are connected to this manager, by their node's uid. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Registry>);

/// Agents that get a full set at the same time.
const FULL_SETS: usize = 64;

#[derive(Debug)]
struct Registry {
    by_node: Mutex<HashMap<String, Entry>>,
    next: AtomicU64,
    counters: Counters,
    full_sets: Arc<Semaphore>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            by_node: Mutex::default(),
            next: AtomicU64::default(),
            counters: Counters::default(),
            full_sets: Arc::new(Semaphore::new(FULL_SETS)),
        }
    }
}

/// What sessions did since this manager started.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Sessions that began with everything.
    pub full_sets: Counter,
    /// Assignments of what changed.
    pub differences: Counter,
    /// Bytes of both.
    pub assigned_bytes: Counter,
    /// Reports that will never be taken, or parts of them.
    pub refused_reports: Counter,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    orders: mpsc::Sender<ManagerMessage>,
    cut: CancellationToken,
}

/// A place in the registry, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    registry: Arc<Registry>,
    node_uid: String,
    id: u64,
    /// Ends the session: the agent has begun another one.
    pub cut: CancellationToken,
}

impl Sessions {
    /// Enters the session of a node, which ends an earlier one of the same node: the agent has given that up.
    #[must_use]
    pub fn enter(&self, node_uid: &str, orders: mpsc::Sender<ManagerMessage>) -> Place {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let cut = CancellationToken::new();
        let entry = Entry {
            id,
            orders,
            cut: cut.clone(),
        };
        if let Some(earlier) = self.0.lock().insert(node_uid.to_owned(), entry) {
            earlier.cut.cancel();
        }
        Place {
            registry: self.0.clone(),
            node_uid: node_uid.to_owned(),
            id,
            cut,
        }
    }

    /// Whether the agent of a node is connected here.
    #[must_use]
    pub fn has(&self, node_uid: &str) -> bool {
        self.0.lock().contains_key(node_uid)
    }

    /// How many agents are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Waits for a turn to send an agent a full set. It ends when it is dropped.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.0.full_sets.clone().acquire_owned().await.ok()
    }

    /// What the sessions did.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Asks the agent of a node to dial back with a stream.
    ///
    /// # Errors
    /// NO_SUCH_SESSION when it is not connected here; OVERLOADED when it does not read what it is sent.
    pub fn open_stream(&self, node_uid: &str, open: OpenStream) -> Result<(), ApiError> {
        let orders = self
            .0
            .lock()
            .get(node_uid)
            .map(|entry| entry.orders.clone())
            .ok_or_else(|| not_connected(node_uid))?;
        let message = ManagerMessage {
            message: Some(Message::OpenStream(open)),
        };
        orders.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ApiError::Overloaded {
                what: "the agent does not keep up with what it is sent".to_owned(),
                retry_after: Duration::from_secs(1),
            },
            mpsc::error::TrySendError::Closed(_) => not_connected(node_uid),
        })
    }
}

fn not_connected(node_uid: &str) -> ApiError {
    ApiError::NoSuchSession(format!(
        "the agent of node {node_uid} is not connected to this manager"
    ))
}

impl Registry {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.registry.lock();
        // A later session of the node may be there already.
        if sessions
            .get(&self.node_uid)
            .is_some_and(|entry| entry.id == self.id)
        {
            sessions.remove(&self.node_uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_session_replaces_the_earlier() {
        let sessions = Sessions::default();
        let (orders, _inbox) = mpsc::channel(1);
        let first = sessions.enter("n", orders.clone());
        let second = sessions.enter("n", orders);
        assert!(first.cut.is_cancelled());
        drop(first);
        assert_eq!(sessions.count(), 1);
        assert!(!second.cut.is_cancelled());
        drop(second);
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn nobody_to_open_a_stream() {
        let error = Sessions::default()
            .open_stream("n", OpenStream::default())
            .unwrap_err();
        assert_eq!(error.reason().0, "NO_SUCH_SESSION");
    }
}
