//! The Raft service: requests of other managers' Raft to this one's.

mod snapshot;

use std::sync::Arc;

use barge_proto::v1::{
    self,
    raft_server::{Raft as RaftApi, RaftServer},
};
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use openraft::ReadPolicy;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Contact, wire};
use crate::storage::{
    StateStore,
    codec::CodecError,
    command::MAX_MESSAGE,
    space::Space,
    types::{AppendRequest, Raft, RaftId, RaftReadError, ReadError},
};

/// The service, to be mounted where managers connect.
#[derive(Clone)]
pub struct RaftService {
    id: RaftId,
    raft: Raft,
    state: StateStore,
    space: watch::Receiver<Space>,
    contact: Contact,
    /// Ends the streams of entries: an idle one would last for as long as the other manager.
    stop: CancellationToken,
    /// One snapshot is received at a time; what there is of one whose connection broke.
    receiving: Arc<Mutex<Option<snapshot::Incoming>>>,
}

impl RaftService {
    pub(crate) fn new(
        id: RaftId,
        raft: Raft,
        state: StateStore,
        space: watch::Receiver<Space>,
        contact: Contact,
        stop: CancellationToken,
    ) -> Self {
        Self {
            id,
            raft,
            state,
            space,
            contact,
            stop,
            receiving: Arc::default(),
        }
    }

    /// With the limits that Raft's messages need.
    pub fn into_server(self) -> RaftServer<Self> {
        RaftServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// An address may have changed hands: what is meant for another manager must not be answered by this one.
    fn check(&self, to: RaftId) -> Result<(), Status> {
        if to == self.id {
            Ok(())
        } else {
            Err(Status::failed_precondition(format!(
                "this is manager {}, the request is for manager {to}",
                self.id
            )))
        }
    }
}

type Reply<T> = Result<Response<T>, Status>;

fn malformed(error: CodecError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("Raft does not run: {error}"))
}

#[tonic::async_trait]
impl RaftApi for RaftService {
    type AppendStream = BoxStream<'static, Result<v1::RaftAppendResponse, Status>>;
    type InstallSnapshotStream = ReceiverStream<Result<v1::RaftSnapshotAnswer, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::RaftAppendRequest>>,
    ) -> Reply<Self::AppendStream> {
        let (requests, broken) = self.requests(request.into_inner());
        let answers = self
            .raft
            .stream_append(requests)
            .map(|answer| match answer {
                Ok(result) => Ok(wire::append_result_to_proto(&result)),
                Err(fatal) => Err(stopped(fatal)),
            });
        // A bad request ends the stream with its reason, after the answers to those before it.
        let end = stream::once(broken).filter_map(async |broken| broken.ok().map(Err));
        let answers = answers.chain(end);
        let stop = self.stop.clone();
        Ok(Response::new(
            answers.take_until(stop.cancelled_owned()).boxed(),
        ))
    }

    async fn vote(&self, request: Request<v1::RaftVoteRequest>) -> Reply<v1::RaftVoteResponse> {
        let request = request.into_inner();
        self.check(request.to)?;
        let request = wire::vote_request_from_proto(&request).map_err(malformed)?;
        let response = self.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_to_proto(&response)))
    }

    async fn pre_vote(&self, request: Request<v1::RaftVoteRequest>) -> Reply<v1::RaftVoteResponse> {
        let request = request.into_inner();
        self.check(request.to)?;
        let request = wire::vote_request_from_proto(&request).map_err(malformed)?;
        let response = self.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_to_proto(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::RaftSnapshotMessage>>,
    ) -> Reply<Self::InstallSnapshotStream> {
        let (answers, answered) = mpsc::channel(1);
        // On its own: what has arrived is kept when the connection breaks.
        tokio::spawn(self.clone().receive_snapshot(request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(answered)))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::RaftTransferRequest>,
    ) -> Reply<v1::RaftTransferResponse> {
        let request = request.into_inner();
        self.check(request.to)?;
        let request = wire::transfer_from_proto(&request).map_err(malformed)?;
        let response = self
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(stopped)?;
        Ok(Response::new(wire::transfer_response_to_proto(&response)))
    }

    async fn space(&self, request: Request<v1::RaftSpaceRequest>) -> Reply<v1::RaftSpaceResponse> {
        self.check(request.into_inner().to)?;
        let space = *self.space.borrow();
        Ok(Response::new(v1::RaftSpaceResponse {
            free_bytes: space.free,
            floor_bytes: space.floor,
            low: space.low,
        }))
    }

    async fn read_index(
        &self,
        request: Request<v1::RaftReadIndexRequest>,
    ) -> Reply<v1::RaftReadIndexResponse> {
        self.check(request.into_inner().to)?;
        let index = read_index(&self.raft).await.map_err(|error| match error {
            ReadIndexError::NotLeader => not_ready("NOT_LEADER", "this manager does not lead"),
            ReadIndexError::NoQuorum => not_ready("NO_QUORUM", "no quorum of managers answers"),
            ReadIndexError::Stopped(reason) => stopped(reason),
        })?;
        Ok(Response::new(v1::RaftReadIndexResponse { index }))
    }
}

impl RaftService {
    /// The requests up to the first bad one, and what was wrong with that.
    fn requests(
        &self,
        requests: Streaming<v1::RaftAppendRequest>,
    ) -> (
        impl Stream<Item = AppendRequest> + Send + use<>,
        oneshot::Receiver<Status>,
    ) {
        let service = self.clone();
        let (broken, why) = oneshot::channel();
        let requests = stream::unfold(Some((requests, broken)), move |state| {
            let service = service.clone();
            async move {
                let (mut requests, broken) = state?;
                let request = match requests.message().await {
                    Ok(None) => return None,
                    Ok(Some(request)) => service.check(request.to).and_then(|()| {
                        service.contact.heard();
                        wire::append_from_proto(request).map_err(malformed)
                    }),
                    Err(status) => Err(status),
                };
                match request {
                    Ok(request) => Some((request, Some((requests, broken)))),
                    Err(status) => {
                        // Nobody listens when the caller has hung up.
                        broken.send(status).ok();
                        None
                    }
                }
            }
        });
        (requests, why)
    }
}

fn not_ready(reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "barge", std::collections::HashMap::new());
    Status::with_error_details(tonic::Code::FailedPrecondition, message, details)
}

/// Why this manager cannot say what has been acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum ReadIndexError {
    /// This manager does not lead.
    #[error("this manager does not lead")]
    NotLeader,
    /// It may not lead any more.
    #[error("no quorum of managers answers")]
    NoQuorum,
    /// Raft has ended.
    #[error("Raft does not run: {0}")]
    Stopped(String),
}

/// Up to where the log has to be applied to see all that was acknowledged before, by a round to a quorum. Never by a
/// lease: a voter that has restarted has forgotten what it promised.
pub async fn read_index(raft: &Raft) -> Result<u64, ReadIndexError> {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(linearizer.read_log_id().index()),
        Err(RaftReadError::APIError(ReadError::ForwardToLeader(_))) => {
            Err(ReadIndexError::NotLeader)
        }
        Err(RaftReadError::APIError(ReadError::QuorumNotEnough(_))) => {
            Err(ReadIndexError::NoQuorum)
        }
        Err(RaftReadError::Fatal(fatal)) => Err(ReadIndexError::Stopped(fatal.to_string())),
    }
}
