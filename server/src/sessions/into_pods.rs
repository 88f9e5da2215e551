//! The PodStreams service: programs run in containers, their output as it comes, and connections to ports of pods.
//!
//! A stream with input is a conversation ([`talk`]) between the client and the far side, which is the agent when it is connected to this manager, and
//! otherwise the manager that it is connected to.

use std::{sync::Arc, time::Duration};

use barge_proto::v1::{
    AttachOptions, AttachRequest, ExecOptions, ExecRequest, ExecResponse, ForwardOptions,
    PortForwardRequest, PortForwardResponse, exec_request, open_stream::What,
    pod_streams_client::PodStreamsClient, pod_streams_server, port_forward_request,
};
use barge_state::State;
use futures::{StreamExt, stream::BoxStream};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use super::{
    chunks::answers,
    reach::{Place, Reach, find_container, find_pod},
};
use crate::{
    calls::{
        leader::on_behalf_of,
        shares::{Share, Shares},
        streams::{holding, until_stopped, while_allowed},
    },
    error::ApiError,
    security::auth::Caller,
};

mod talk;
mod words;

use talk::{Far, Talk, To};
use words::Input;

/// For a client to say what it wants.
const FIRST: Duration = Duration::from_secs(10);

type Answers<O> = ReceiverStream<Result<O, Status>>;

/// What the PodStreams service works with.
#[derive(Clone)]
pub struct PodStreamsService {
    /// The way to agents.
    pub reach: Reach,
    /// Streams are counted as watches are.
    pub shares: Shares,
    /// Ends all streams.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl pod_streams_server::PodStreams for PodStreamsService {
    type ExecStream = Answers<ExecResponse>;
    type AttachStream = BoxStream<'static, Result<ExecResponse, Status>>;
    type PortForwardStream = Answers<PortForwardResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let (caller, share) = parties(&request)?;
        let mut input = request.into_inner();
        let first = first(&mut input, share.as_deref()).await?;
        let Some(exec_request::What::Start(start)) = first.what.clone() else {
            return Err(words::no_start().into());
        };
        words::check_exec(&start)?;
        let asked = Asked {
            caller,
            share,
            part: "exec",
            namespace: &start.namespace,
            pod: &start.pod,
        };
        let find = |state: &State| {
            let (namespace, pod) = (&start.namespace, &start.pod);
            let (place, container) = find_container(state, namespace, pod, &start.container)?;
            let options = ExecOptions {
                pod_uid: place.pod_uid.clone(),
                container,
                command: start.command.clone(),
                stdin: start.stdin,
                tty: start.tty,
                size: start.size,
            };
            Ok((place, What::Exec(options)))
        };
        self.talk(asked, input, first, find).await
    }

    async fn attach(
        &self,
        request: Request<AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = Caller::of(&request)?;
        let share = self.shares.stream(&caller)?;
        let request = request.into_inner();
        let (namespace, pod) = (&request.namespace, &request.pod);
        let reach = &self.reach;
        reach.store.read_index().await.map_err(ApiError::from)?;
        let still = reach.right(&caller, ("create", "attach"), namespace, pod)?;
        words::note(&caller, namespace, pod);
        still()?;
        let found = |state: &State| find_container(state, namespace, pod, &request.container);
        let (place, container) = reach.store.read(found)?;
        let options = AttachOptions {
            pod_uid: place.pod_uid,
            container,
        };
        let output = match reach.here(&place.node_uid, What::Attach(options)).await {
            Err(ApiError::NoSuchSession(_)) if !caller.forwarded => {
                let ask = |channel: Channel| {
                    let forwarded = on_behalf_of(&caller, request.clone())?;
                    Ok(async move { PodStreamsClient::new(channel).attach(forwarded).await })
                };
                let output = reach.elsewhere(&place.node_uid, ask).await?;
                output.into_inner().boxed()
            }
            tunnel => {
                let tunnel = tunnel?;
                // The agent's call lives as long as this.
                holding(tunnel.open, answers::<ExecResponse>(tunnel.chunks)).boxed()
            }
        };
        let output = while_allowed(output, !caller.access.is_everything(), still);
        Ok(Response::new(until_stopped(
            holding(share, output),
            &self.stop,
        )))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        let (caller, share) = parties(&request)?;
        let mut input = request.into_inner();
        let first = first(&mut input, share.as_deref()).await?;
        let Some(port_forward_request::What::Start(start)) = first.what.clone() else {
            return Err(words::no_start().into());
        };
        words::check_port(&start)?;
        let asked = Asked {
            caller,
            share,
            part: "portforward",
            namespace: &start.namespace,
            pod: &start.pod,
        };
        let find = |state: &State| {
            let place = find_pod(state, &start.namespace, &start.pod)?;
            let options = ForwardOptions {
                pod_uid: place.pod_uid.clone(),
                port: start.port,
            };
            Ok((place, What::Forward(options)))
        };
        self.talk(asked, input, first, find).await
    }
}

/// Who asks, and the share of the request.
fn parties<T>(request: &Request<T>) -> Result<(Caller, Option<Arc<Share>>), Status> {
    let share = request.extensions().get::<Arc<Share>>().cloned();
    Ok((Caller::of(request)?, share))
}

/// What a client says first.
async fn first<I: Input>(input: &mut Streaming<I>, share: Option<&Share>) -> Result<I, Status> {
    let first = timeout(FIRST, input.message()).await;
    let late = |_| Status::deadline_exceeded(format!("no first message within {FIRST:?}"));
    let first = first.map_err(late)??.ok_or_else(words::no_start)?;
    if let Some(share) = share {
        share.give_back(first.received_bytes());
    }
    Ok(first)
}

/// Who asks for a conversation, and about what.
struct Asked<'a> {
    caller: Caller,
    share: Option<Arc<Share>>,
    part: &'static str,
    namespace: &'a str,
    pod: &'a str,
}

impl PodStreamsService {
    /// Reaches the far side, and begins the conversation with it.
    async fn talk<I: Input>(
        &self,
        asked: Asked<'_>,
        input: Streaming<I>,
        first: I,
        find: impl FnOnce(&State) -> Result<(Place, What), ApiError>,
    ) -> Result<Response<Answers<I::Answer>>, Status> {
        let Asked { caller, share, .. } = asked;
        let counted = self.shares.stream(&caller)?;
        let reach = &self.reach;
        reach.store.read_index().await.map_err(ApiError::from)?;
        let part = ("create", asked.part);
        let still = reach.right(&caller, part, asked.namespace, asked.pod)?;
        words::note(&caller, asked.namespace, asked.pod);
        still()?;
        let (place, what) = reach.store.read(find)?;
        let far = match reach.here(&place.node_uid, what).await {
            // One hop: the manager that was reached has asked all others.
            Err(ApiError::NoSuchSession(_)) if !caller.forwarded => {
                let ask = |channel: Channel| {
                    // The first message tells each manager; the one that answers gets the rest.
                    let (to, messages) = mpsc::channel(1);
                    let sent = to.try_send(first.clone());
                    sent.map_err(|_| Status::internal("a new channel has no room"))?;
                    let forwarded = on_behalf_of(&caller, ReceiverStream::new(messages))?;
                    Ok(async move {
                        let from = I::call(channel, forwarded).await?.into_inner();
                        Ok(Far {
                            to: To::Manager(to),
                            from: from.boxed(),
                        })
                    })
                };
                reach.elsewhere(&place.node_uid, ask).await?
            }
            tunnel => {
                let tunnel = tunnel?;
                Far {
                    to: To::Agent(tunnel.open),
                    from: answers::<I::Answer>(tunnel.chunks),
                }
            }
        };
        if let Some(share) = &share {
            share.is_stream();
        }
        let (client, answered) = mpsc::channel(1);
        let talk = Talk {
            input,
            client,
            share,
            each: !caller.access.is_everything(),
            still,
            counts: caller.forwarded,
            stop: self.stop.clone(),
        };
        tokio::spawn(async move {
            talk.run(far).await;
            drop(counted);
        });
        Ok(Response::new(ReceiverStream::new(answered)))
    }
}
