//! The concrete types of consensus. openraft's names are used here, in the rest of `raft/` and in `storage/`,
//! and nowhere else.

use barge_proto::v1;
use openraft::{errors as raft_errors, type_config::alias};

pub use super::command::{Command, Decoder, Encoder};
use crate::storage::{StateStore, snapshot::SnapshotFiles};

/// Numbers a manager for as long as the cluster lives; never given out twice.
pub type RaftId = u64;

/// What the others have to know of a manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// host:port
    pub address: String,
    /// The uid its certificate names.
    pub uid: String,
}

openraft::declare_raft_types!(
    /// A term may see several leaders in succession (the later one has the higher node id), which is what spares
    /// elections their split votes. A leader is therefore named by term and node.
    pub TypeConfig:
        D = Command,
        R = Vec<v1::Outcome>,
        NodeId = RaftId,
        Node = Node,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub type Raft = openraft::Raft<TypeConfig, StateStore>;
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
pub type LogId = alias::LogIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type Entry = alias::EntryOf<TypeConfig>;
pub type Payload = alias::PayloadOf<TypeConfig>;
pub type Membership = openraft::Membership<RaftId, Node>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotFiles>;
pub type Metrics = openraft::RaftMetrics<TypeConfig>;
pub type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;
pub type LogState = openraft::LogState<TypeConfig>;
pub type EntryResponder = openraft::storage::EntryResponder<TypeConfig>;

pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
pub type AppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
pub type AppendError = openraft::raft::StreamAppendError<TypeConfig>;
pub type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
pub type SnapshotResponse = openraft::raft::SnapshotResponse<TypeConfig>;
pub type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
pub type TransferResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
pub type TransferError = openraft::raft::TransferLeaderError<TypeConfig>;

pub type RpcError = raft_errors::RPCError<TypeConfig>;
pub type StreamingError = raft_errors::StreamingError<TypeConfig>;
pub type Unreachable = raft_errors::Unreachable<TypeConfig>;
pub type NetworkError = raft_errors::NetworkError<TypeConfig>;
pub type Fatal = raft_errors::Fatal<TypeConfig>;
pub type WriteError = raft_errors::ClientWriteError<TypeConfig>;
pub type RaftWriteError = raft_errors::RaftError<TypeConfig, WriteError>;
pub type ForwardToLeader = raft_errors::ForwardToLeader<TypeConfig>;
pub type ReadError = raft_errors::LinearizableReadError<TypeConfig>;
pub type RaftReadError = raft_errors::RaftError<TypeConfig, ReadError>;
pub type RaftInitializeError =
    raft_errors::RaftError<TypeConfig, raft_errors::InitializeError<TypeConfig>>;
