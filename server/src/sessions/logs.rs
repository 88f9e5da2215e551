//! The Logs service: any manager finds the manager that the pod's agent is connected to, and passes the stream on.

use barge_proto::v1::{
    LogOptions, LogsRequest, LogsResponse, TunnelChunk, logs_client::LogsClient, logs_server,
    open_stream::What,
};
use barge_state::State;
use futures::{StreamExt, stream::BoxStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    chunks::{Answer, answers},
    reach::{Reach, find_container},
};
use crate::{
    calls::{
        leader::on_behalf_of,
        shares::Shares,
        streams::{holding, until_stopped, while_allowed},
    },
    error::ApiError,
    security::auth::Caller,
};

/// What the Logs service works with.
#[derive(Clone)]
pub struct LogsService {
    /// The way to agents.
    pub reach: Reach,
    /// Streams are counted as watches are.
    pub shares: Shares,
    /// Ends all streams.
    pub stop: CancellationToken,
}

type Output = BoxStream<'static, Result<LogsResponse, Status>>;

#[tonic::async_trait]
impl logs_server::Logs for LogsService {
    type ReadStream = Output;

    async fn read(&self, request: Request<LogsRequest>) -> Result<Response<Output>, Status> {
        let caller = Caller::of(&request)?;
        let share = self.shares.stream(&caller)?;
        let request = request.into_inner();
        let store = &self.reach.store;
        store.read_index().await.map_err(ApiError::from)?;
        let part = ("get", "log");
        let still = self
            .reach
            .right(&caller, part, &request.namespace, &request.pod)?;
        still()?;
        let source = store.read(|state| find(state, &request))?;
        let output = match self.reach.here(&source.node_uid, source.what).await {
            // One hop: the manager that was reached has asked all others.
            Err(ApiError::NoSuchSession(_)) if !caller.forwarded => {
                let ask = |channel: Channel| {
                    let forwarded = on_behalf_of(&caller, request.clone())?;
                    Ok(async move { LogsClient::new(channel).read(forwarded).await })
                };
                let output = self.reach.elsewhere(&source.node_uid, ask).await?;
                output.into_inner().boxed()
            }
            tunnel => {
                let tunnel = tunnel?;
                // The agent's call lives as long as this.
                holding(tunnel.open, answers::<LogsResponse>(tunnel.chunks)).boxed()
            }
        };
        let output = while_allowed(output, !caller.access.is_everything(), still);
        let shared = holding(share, output);
        Ok(Response::new(until_stopped(shared, &self.stop)))
    }
}

/// Where a container's output is.
#[derive(Debug, PartialEq)]
struct Source {
    node_uid: String,
    what: What,
}

/// Finds the container that is meant.
fn find(state: &State, request: &LogsRequest) -> Result<Source, ApiError> {
    let (namespace, pod) = (&request.namespace, &request.pod);
    let (place, container) = find_container(state, namespace, pod, &request.container)?;
    let options = LogOptions {
        pod_uid: place.pod_uid,
        container,
        follow: request.follow,
        tail: request.tail,
        since: request.since,
        timestamps: request.timestamps,
        after: request.after.clone(),
    };
    Ok(Source {
        node_uid: place.node_uid,
        what: match request.previous {
            true => What::PreviousLogs(options),
            false => What::Logs(options),
        },
    })
}

impl Answer for LogsResponse {
    fn of(chunk: TunnelChunk) -> Option<Self> {
        Some(Self {
            data: chunk.data,
            channel: chunk.channel,
            position: chunk.position,
        })
    }
}
