//! Many applies over one stream. Each is a request of its own: authorised, counted, measured and written to the audit log as one that
//! has a call to itself; it is only the transport's work that they share.

use std::{sync::Arc, time::Instant};

use barge_proto::v1::{
    ApplyRequest, ApplyStreamAnswer, ApplyStreamItem, ApplyStreamRequest, ApplyStreamResponse,
    RefusedRequest, apply_stream_answer::Answer,
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use opentelemetry::Context;
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{Duration, timeout},
};
use tonic::{Code, Status, Streaming};

use super::ApiService;
use crate::{
    audit::Concerns,
    auth::{AuthLayer, Caller},
    error::ApiError,
    metrics::requests::Requests,
    serve::InFlight,
    shares::{Class, Share},
    spans::{self, Calls},
};

/// The RPC that an item stands for.
const APPLY: &str = "/barge.v1.Api/Apply";
/// What gRPC puts before a message, in bytes.
const PREFIX: usize = 5;
/// Requests of one stream that are not answered yet; beyond, nothing more is read from it.
const IN_PROGRESS: usize = 1024;
/// Answers that are sent together.
const TOGETHER: usize = 256;
/// How long a client may take to make room for answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the layers do for a request that has a call of its own.
#[derive(Debug, Clone)]
pub struct Layers {
    pub auth: AuthLayer,
    pub requests: Requests,
    pub in_flight: InFlight,
    pub calls: Calls,
}

/// Answers what comes in until the client has no more to ask, or this manager stops: then what was read is still answered, so
/// that what is not answered was not done. The spans of all are children of what the stream was opened for, `origin`.
pub async fn run(
    service: ApiService,
    mut caller: Caller,
    share: Option<Arc<Share>>,
    origin: Context,
    mut input: Streaming<ApplyStreamRequest>,
    answers: mpsc::Sender<Result<ApplyStreamResponse, Status>>,
) {
    let mut in_progress = FuturesUnordered::new();
    let end = loop {
        tokio::select! {
            Some(answer) = in_progress.next() => {
                if send(&answers, together(answer, &mut in_progress)).await.is_err() {
                    return;
                }
            }
            () = service.stop.cancelled() => break Some(ApiError::Stopping.into()),
            message = input.message(), if in_progress.len() < IN_PROGRESS => match message {
                Ok(Some(message)) => {
                    if let Some(share) = &share {
                        share.give_back(PREFIX + message.encoded_len());
                    }
                    // It may have been revoked since, or its rights.
                    match service.layers.auth.access_now(&caller).await {
                        Ok(access) => caller.access = access,
                        Err(revoked) => break Some(revoked),
                    }
                    let items = message.items.into_iter();
                    in_progress.extend(items.map(|item| one(&service, caller.clone(), &origin, item)));
                }
                Ok(None) => break None,
                Err(broken) => break Some(broken),
            },
        }
    };
    while let Some(answer) = in_progress.next().await {
        if send(&answers, together(answer, &mut in_progress))
            .await
            .is_err()
        {
            return;
        }
    }
    if let Some(status) = end {
        // Whoever is gone needs no reason.
        let _ = timeout(PATIENCE, answers.send(Err(status))).await;
    }
}

/// With all that are there already: what was applied together is answered together.
fn together<F>(
    first: ApplyStreamAnswer,
    in_progress: &mut FuturesUnordered<F>,
) -> ApplyStreamResponse
where
    F: Future<Output = ApplyStreamAnswer>,
{
    let mut answers = vec![first];
    while answers.len() < TOGETHER
        && let Some(Some(next)) = in_progress.next().now_or_never()
    {
        answers.push(next);
    }
    ApplyStreamResponse { answers }
}

/// # Errors
/// The client is gone, or does not read.
async fn send(
    answers: &mpsc::Sender<Result<ApplyStreamResponse, Status>>,
    response: ApplyStreamResponse,
) -> Result<(), ()> {
    match timeout(PATIENCE, answers.send(Ok(response))).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(()),
    }
}

/// Answers one request.
async fn one(
    service: &ApiService,
    mut caller: Caller,
    origin: &Context,
    item: ApplyStreamItem,
) -> ApplyStreamAnswer {
    let begun = Instant::now();
    let layers = &service.layers;
    let _counted = layers.in_flight.token();
    caller.concerns = Concerns::default();
    let call = layers.calls.begin(APPLY, || origin.clone());
    let answering = async {
        spans::note_caller(caller.principal.as_ref().map(|p| p.role));
        match item.request {
            Some(request) => counted(service, &caller, request).await,
            None => Err(ApiError::invalid("items.request", "an item without a request").into()),
        }
    };
    let answer = spans::within(call.as_ref(), answering).await;
    let refusal = answer.as_ref().err();
    let code = refusal.map_or(Code::Ok, Status::code);
    layers.requests.observe(APPLY, code, begun);
    if let Some(call) = call {
        call.end(code);
    }
    layers.auth.answered(APPLY, &caller, refusal);
    ApplyStreamAnswer {
        id: item.id,
        answer: Some(match answer {
            Ok(response) => Answer::Response(response),
            Err(status) => Answer::Refused(RefusedRequest {
                code: status.code().into(),
                message: status.message().to_owned(),
                details: status.details().to_vec(),
            }),
        }),
    }
}

/// Within the caller's share.
async fn counted(
    service: &ApiService,
    caller: &Caller,
    request: ApplyRequest,
) -> Result<barge_proto::v1::ApplyResponse, Status> {
    let share = service.shares.request(caller, Class::Write)?;
    share.receive(request.encoded_len())?;
    service.applied(caller, request).await
}
