//! The Session service: agents connect, dial back, and managers relay.

use barge_proto::v1::{
    AgentMessage, AskMetricsRequest, AskMetricsResponse, RelayRequest, RelayResponse, TunnelChunk,
    session_server,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Asker, Tunnels,
    connect::{self, Host},
    outbox::{self, Outbox},
    receive::receive,
    tunnels::Tunnel,
};
use crate::{runtime::clock::PATIENCE, security::auth::Caller};

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct SessionService {
    host: Host,
    tunnels: Tunnels,
    asker: Asker,
}

impl SessionService {
    /// Puts the service together.
    #[must_use]
    pub fn new(host: Host, tunnels: Tunnels, asker: Asker) -> Self {
        Self {
            host,
            tunnels,
            asker,
        }
    }
}

#[tonic::async_trait]
impl session_server::Session for SessionService {
    type ConnectStream = outbox::Messages;
    type TunnelStream = ReceiverStream<Result<TunnelChunk, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let caller = Caller::of(&request)?;
        let node_uid = caller.node_uid()?.to_owned();
        let (outbox, messages) = Outbox::new();
        tokio::spawn(connect::run(
            self.host.clone(),
            node_uid,
            request.into_inner(),
            outbox,
        ));
        Ok(Response::new(messages))
    }

    async fn tunnel(
        &self,
        request: Request<Streaming<TunnelChunk>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let caller = Caller::of(&request)?;
        let node_uid = caller.node_uid()?.to_owned();
        let mut chunks = request.into_inner();
        let first = timeout(PATIENCE, chunks.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no stream id in time"))??
            .ok_or_else(|| Status::invalid_argument("a tunnel begins with its stream id"))?;
        let (open, held) = mpsc::channel(1);
        self.tunnels
            .arrive(&node_uid, &first.stream_id, Tunnel { chunks, open })?;
        Ok(Response::new(ReceiverStream::new(held)))
    }

    async fn relay(
        &self,
        request: Request<RelayRequest>,
    ) -> Result<Response<RelayResponse>, Status> {
        let by = Caller::of(&request)?.name();
        let answer = receive(&self.host.store, by, &request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn ask_metrics(
        &self,
        request: Request<AskMetricsRequest>,
    ) -> Result<Response<AskMetricsResponse>, Status> {
        let answers = self.asker.here(request.into_inner().questions).await;
        Ok(Response::new(AskMetricsResponse { answers }))
    }
}
