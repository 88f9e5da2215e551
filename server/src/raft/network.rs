//! Raft's requests to other managers.

mod append;
mod snapshot;

use std::{
    collections::HashMap,
    error::Error,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use barge_proto::v1::{self, raft_client::RaftClient};
use futures::{Stream, future::BoxFuture, stream::BoxStream};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2, errors::ReplicationClosed, network::RPCOption,
};
use tokio::runtime::Handle;
use tonic::{Code, Status, transport::Channel};

use super::wire;
use crate::storage::{
    command::MAX_MESSAGE,
    snapshot::SnapshotFiles,
    types::{
        AppendRequest, AppendResponse, AppendResult, NetworkError, Node, RaftId, RpcError,
        Snapshot, SnapshotResponse, StreamingError, TransferRequest, TransferResponse, TypeConfig,
        Unreachable, Vote, VoteRequest, VoteResponse,
    },
};

/// Makes a channel to a manager's address. It connects when it is used, and again when it has to.
pub type Connect = Arc<dyn Fn(&str) -> Result<Channel, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// How long a stream may take to open; the first one has to connect.
const OPEN: Duration = Duration::from_secs(1);

/// Addresses that were used and are not any more go when there are this many.
const MAX_CHANNELS: usize = 64;

/// Channels to managers, one per address, shared by everything that Raft sends.
#[derive(Clone)]
pub struct Channels(Arc<Inner>);

struct Inner {
    connect: Connect,
    /// Where connections live: encryption stays off Raft's thread.
    runtime: Handle,
    /// In bytes per second.
    snapshot_rate: u64,
    channels: Mutex<HashMap<String, Channel>>,
    /// Where members are now. openraft goes on with the address a member had when it began to replicate to it.
    members: Mutex<HashMap<RaftId, String>>,
}

impl Channels {
    /// Connections made by `connect` are driven by `runtime`. Snapshots are sent with at most `snapshot_rate` bytes per second.
    pub fn new(connect: Connect, runtime: Handle, snapshot_rate: u64) -> Self {
        Self(Arc::new(Inner {
            connect,
            runtime,
            snapshot_rate,
            channels: Mutex::default(),
            members: Mutex::default(),
        }))
    }

    /// Takes note of where members are.
    pub fn learn<'a>(&self, nodes: impl Iterator<Item = (&'a RaftId, &'a Node)>) {
        let mut members = self
            .0
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (id, node) in nodes {
            if members.get(id) != Some(&node.address) {
                members.insert(*id, node.address.clone());
            }
        }
    }

    fn snapshot_rate(&self) -> u64 {
        self.0.snapshot_rate
    }

    fn address(&self, id: RaftId) -> String {
        let members = self
            .0
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        members.get(&id).cloned().unwrap_or_default()
    }

    /// A client for the manager at this address.
    pub fn client(&self, address: &str) -> Result<RaftClient<Channel>, Unreachable> {
        let mut channels = self
            .0
            .channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let _runtime = self.0.runtime.enter();
                let channel = (self.0.connect)(address).map_err(Unreachable::from_string)?;
                if channels.len() >= MAX_CHANNELS {
                    channels.clear();
                }
                channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE))
    }
}

impl RaftNetworkFactory<TypeConfig> for Channels {
    type Network = Peer;

    async fn new_client(&mut self, target: RaftId, node: &Node) -> Peer {
        self.learn(std::iter::once((&target, node)));
        Peer {
            to: target,
            channels: self.clone(),
        }
    }
}

/// One other manager.
pub struct Peer {
    to: RaftId,
    channels: Channels,
}

impl Peer {
    fn client(&self) -> Result<RaftClient<Channel>, Unreachable> {
        self.channels.client(&self.channels.address(self.to))
    }

    /// A call with a deadline, which is the answer's own or openraft's.
    async fn call<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(rpc_error(&status)),
            Err(_) => Err(NetworkError::from_string(format!(
                "manager {} did not answer within {deadline:?}",
                self.to
            ))
            .into()),
        }
    }
}

/// A manager that is not there is left alone for a moment; other errors may be of this one request.
fn rpc_error(status: &Status) -> RpcError {
    match status.code() {
        Code::Unavailable
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Unreachable::new(status).into(),
        _ => NetworkError::new(status).into(),
    }
}

fn malformed(error: impl ToString) -> RpcError {
    NetworkError::from_string(error).into()
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFiles;

    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, RpcError> {
        use futures::StreamExt;
        let one = futures::stream::iter([rpc]);
        let mut answers = self.stream_append(one, option).await?;
        match answers.next().await {
            Some(answer) => Ok(answer?.into()),
            None => Err(malformed("the stream ended without an answer")),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        Box::pin(append::run(self, input))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        let mut client = self.client()?;
        let request = wire::vote_request_to_proto(self.to, &rpc);
        let response = self.call(option.soft_ttl(), client.vote(request)).await?;
        wire::vote_response_from_proto(&response).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        let mut client = self.client()?;
        let request = wire::vote_request_to_proto(self.to, &rpc);
        let response = self
            .call(option.soft_ttl(), client.pre_vote(request))
            .await?;
        wire::vote_response_from_proto(&response).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse, StreamingError> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            response = snapshot::send(self, vote, snapshot) => response,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferResponse, RpcError> {
        let mut client = self.client()?;
        let request: v1::RaftTransferRequest = wire::transfer_to_proto(self.to, &req);
        let response = self
            .call(option.soft_ttl(), client.transfer_leader(request))
            .await?;
        wire::transfer_response_from_proto(&req, &response).map_err(malformed)
    }
}
