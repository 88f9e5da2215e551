//! Streams that a manager asked an agent to open: the agent dials back and names the stream.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use barge_proto::v1::TunnelChunk;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use crate::error::ApiError;

/// Streams that are waited for at a time; each is one request of a person.
const MAX_WAITING: usize = 1024;

/// The agent's end of a stream.
#[derive(Debug)]
pub struct Tunnel {
    /// What the agent sends, from its second chunk on.
    pub chunks: Streaming<TunnelChunk>,
    /// Held for as long as the stream is wanted: the agent's call ends when it is dropped.
    pub open: mpsc::Sender<Result<TunnelChunk, Status>>,
}

/// The streams that are waited for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tunnels(Arc<Mutex<HashMap<String, Waiting>>>);

#[derive(Debug)]
struct Waiting {
    node_uid: String,
    arrived: oneshot::Sender<Tunnel>,
}

/// A stream that is waited for; not any more once this is dropped.
#[derive(Debug)]
pub struct Expected {
    tunnels: Tunnels,
    /// The name that the agent has to give.
    pub stream_id: String,
    arrived: oneshot::Receiver<Tunnel>,
}

impl Tunnels {
    /// Expects a stream from the agent of a node.
    ///
    /// # Errors
    /// OVERLOADED when too many are waited for.
    pub fn expect(&self, node_uid: &str) -> Result<Expected, ApiError> {
        let stream_id = crate::runtime::clock::new_uid();
        let (arrive, arrived) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            return Err(ApiError::Overloaded {
                what: "too many streams to agents are being opened".to_owned(),
                retry_after: Duration::from_secs(1),
            });
        }
        waiting.insert(
            stream_id.clone(),
            Waiting {
                node_uid: node_uid.to_owned(),
                arrived: arrive,
            },
        );
        drop(waiting);
        Ok(Expected {
            tunnels: self.clone(),
            stream_id,
            arrived,
        })
    }

    /// Hands over a stream that the agent of `node_uid` opened.
    ///
    /// # Errors
    /// NOT_FOUND when no request waits for this stream from this node.
    pub fn arrive(&self, node_uid: &str, stream_id: &str, tunnel: Tunnel) -> Result<(), ApiError> {
        let gone = || ApiError::NotFound("nobody waits for this stream (any more)".to_owned());
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A stream of another node stays where it is.
        if waiting
            .get(stream_id)
            .is_none_or(|waiting| waiting.node_uid != node_uid)
        {
            return Err(gone());
        }
        let found = waiting.remove(stream_id).ok_or_else(gone)?;
        found.arrived.send(tunnel).map_err(|_| gone())
    }
}

impl Expected {
    /// Waits for the agent.
    ///
    /// # Errors
    /// INTERNAL when the stream was forgotten, which does not happen while this lives.
    pub async fn arrived(&mut self) -> Result<Tunnel, ApiError> {
        (&mut self.arrived)
            .await
            .map_err(|_| ApiError::Internal("the stream was forgotten".to_owned()))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.tunnels
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.stream_id);
    }
}
