//! The Logs service: any manager finds the manager that the pod's agent is connected to, and passes the stream on.

use barge_proto::{
    kinds::KindRef,
    v1::{
        Kind, LogOptions, LogsRequest, LogsResponse, OpenStream, PodRecord, TunnelChunk,
        logs_client::LogsClient, logs_server, open_stream::What,
    },
};
use barge_state::{Kind as _, State};
use futures::{
    StreamExt,
    stream::{BoxStream, FuturesUnordered},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Sessions, Tunnels, tunnels::Tunnel};
use crate::{
    calls::{
        leader::on_behalf_of,
        names,
        shares::Shares,
        streams::{holding, until_stopped, while_allowed},
    },
    error::{ApiError, reason_of},
    net::Dialer,
    runtime::clock::PATIENCE,
    security::auth::{
        Caller,
        still::{Shown, still},
    },
    store::Store,
};

/// What the Logs service works with.
#[derive(Clone)]
pub struct LogsService {
    /// The state.
    pub store: Store,
    /// The agents that are connected here.
    pub sessions: Sessions,
    /// The streams that are waited for.
    pub tunnels: Tunnels,
    /// The way to the other managers.
    pub dialer: Dialer,
    /// Where this manager is reached.
    pub advertise: String,
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
        self.store.read_index().await.map_err(ApiError::from)?;
        let still = right(self.store.clone(), &caller, &request)?;
        still()?;
        let source = self.store.read(|state| find(state, &request))?;
        let output = match self.read_here(&source).await {
            // One hop: the manager that was reached has asked all others.
            Err(ApiError::NoSuchSession(_)) if !caller.forwarded => {
                self.read_elsewhere(&caller, &request, &source).await?
            }
            output => output?,
        };
        let output = while_allowed(output, !caller.access.is_everything(), still);
        let shared = holding(share, output);
        Ok(Response::new(until_stopped(shared, &self.stop)))
    }
}

/// Whether the caller may still read what the request asks for.
fn right(
    store: Store,
    caller: &Caller,
    request: &LogsRequest,
) -> Result<impl Fn() -> Result<(), Status> + Send + 'static, Status> {
    let (_, kind) = names::kind(Kind::Pod.into())?;
    let shown = Shown {
        verb: "get",
        kind: KindRef::Builtin(kind),
        part: "log",
        namespace: names::namespace(kind, &request.namespace).to_owned(),
        name: request.pod.clone(),
    };
    still(store, caller, shown)
}

/// Where a container's output is.
#[derive(Debug, PartialEq)]
struct Source {
    node_uid: String,
    options: LogOptions,
    /// Of the last attempt that has ended.
    previous: bool,
}

/// Finds the container that is meant.
fn find(state: &State, request: &LogsRequest) -> Result<Source, ApiError> {
    let namespace = match request.namespace.as_str() {
        "" => names::DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let name = &request.pod;
    let record = state
        .get::<PodRecord>(namespace, name)
        .ok_or_else(|| ApiError::NotFound(format!("pod {namespace}/{name} does not exist")))?;
    if !record.is_bound() {
        return Err(ApiError::Precondition(format!(
            "pod {namespace}/{name} is not bound to a node yet"
        )));
    }
    let pod = state.pod(record);
    let spec = pod.spec.unwrap_or_default();
    let all = spec.all_containers();
    let names: Vec<_> = all.map(|it| it.name.as_str()).collect();
    let wanted = request.container.as_str();
    let container = match (wanted, spec.containers.as_slice()) {
        ("", [only]) => only.name.as_str(),
        ("", _) => {
            return Err(ApiError::invalid(
                "container",
                format!(
                    "pod {name} has several, choose one of: {}",
                    names.join(", ")
                ),
            ));
        }
        (wanted, _) if names.contains(&wanted) => wanted,
        (wanted, _) => {
            return Err(ApiError::NotFound(format!(
                "pod {name} has no container {wanted}; it has: {}",
                names.join(", ")
            )));
        }
    };
    Ok(Source {
        node_uid: record.node_uid().to_owned(),
        options: LogOptions {
            pod_uid: record.uid().to_owned(),
            container: container.to_owned(),
            follow: request.follow,
            tail: request.tail,
            since: request.since,
            timestamps: request.timestamps,
            after: request.after.clone(),
        },
        previous: request.previous,
    })
}

impl LogsService {
    /// Asks the agent, if it is connected to this manager.
    async fn read_here(&self, source: &Source) -> Result<Output, ApiError> {
        let mut expected = self.tunnels.expect(&source.node_uid)?;
        let what = match source.previous {
            true => What::PreviousLogs,
            false => What::Logs,
        };
        let open = OpenStream {
            stream_id: expected.stream_id.clone(),
            what: Some(what(source.options.clone())),
        };
        self.sessions.open_stream(&source.node_uid, open)?;
        match timeout(PATIENCE, expected.arrived()).await {
            Ok(tunnel) => Ok(pipe(tunnel?)),
            Err(_) => Err(ApiError::NoSuchSession(
                "the agent did not open the stream in time".to_owned(),
            )),
        }
    }

    /// Asks all other managers; the one with the agent answers with its stream.
    async fn read_elsewhere(
        &self,
        caller: &Caller,
        request: &LogsRequest,
        source: &Source,
    ) -> Result<Output, Status> {
        // A connection for this output alone: a client that does not read it holds up nothing else.
        let dialer = self.dialer.apart();
        let mut asked = FuturesUnordered::new();
        for address in self.store.addresses() {
            if address == self.advertise {
                continue;
            }
            let channel = dialer
                .channel(&address)
                .map_err(|error| ApiError::Internal(error.to_string()))?;
            let forwarded = on_behalf_of(caller, request.clone())?;
            asked.push(async move {
                let mut client = LogsClient::new(channel);
                timeout(PATIENCE, client.read(forwarded)).await
            });
        }
        let mut failure = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(Ok(output)) => return Ok(output.into_inner().boxed()),
                Ok(Err(status)) if reason_of(&status).as_deref() == Some("NO_SUCH_SESSION") => {}
                // Where the agent is and fails is worth more than where it is not.
                Ok(Err(status)) if reason_of(&status).is_some() => failure = Some(status),
                Ok(Err(status)) => tracing::debug!(%status, "a manager did not answer"),
                Err(_) => tracing::debug!("a manager did not answer in time"),
            }
        }
        Err(failure.unwrap_or_else(|| {
            Status::from(ApiError::NoSuchSession(format!(
                "the agent of node {} is not connected to any manager that answers",
                self.node_name(&source.node_uid)
            )))
        }))
    }

    fn node_name(&self, uid: &str) -> String {
        self.store.read(|state| {
            state
                .by_uid::<barge_proto::v1::Node>(uid)
                .map_or_else(|| uid.to_owned(), |node| node.meta().name.clone())
        })
    }
}

/// The agent's chunks as the client gets them. One at a time: a client that does not read holds back the agent.
fn pipe(tunnel: Tunnel) -> Output {
    struct Pipe {
        chunks: Streaming<TunnelChunk>,
        /// The agent's call lives as long as this.
        open: Option<mpsc::Sender<Result<TunnelChunk, Status>>>,
    }
    let pipe = Pipe {
        chunks: tunnel.chunks,
        open: Some(tunnel.open),
    };
    futures::stream::unfold(pipe, |mut pipe| async move {
        pipe.open.as_ref()?;
        let next = match pipe.chunks.message().await {
            Ok(Some(chunk)) if chunk.error.is_empty() => Ok(LogsResponse {
                data: chunk.data,
                channel: chunk.channel,
                position: chunk.position,
            }),
            Ok(Some(chunk)) => {
                pipe.open = None;
                Err(ApiError::Precondition(chunk.error).into())
            }
            Ok(None) => return None,
            Err(_) => {
                pipe.open = None;
                Err(Status::unavailable("the connection to the agent broke"))
            }
        };
        Some((next, pipe))
    })
    .boxed()
}
