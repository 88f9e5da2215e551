//! Many applies over one stream. Each request is authorised, counted, measured and written to the audit log like a call of its
//! own. The requests share only the transport's work.

use std::{collections::VecDeque, sync::Arc};

use barge_proto::v1::{
    ApplyRequest, ApplyStreamAnswer, ApplyStreamItem, ApplyStreamRequest, ApplyStreamResponse,
    RefusedRequest, apply_stream_answer::Answer,
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use opentelemetry::Context;
use prometheus_client::metrics::histogram::Histogram;
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep_until, timeout},
};
use tonic::{Code, Status, Streaming};

use super::{ApiService, apply::Way};
use crate::{
    calls::{
        in_flight::InFlight,
        shares::{Class, Share, StreamShare},
    },
    error::ApiError,
    observe::{
        requests::Requests,
        spans::{self, Calls},
    },
    security::{
        audit::{Asker, Concerns},
        auth::{AuthLayer, Caller},
    },
};

/// The RPC that an item stands for.
const APPLY: &str = "/barge.v1.Api/Apply";
/// What gRPC puts before a message, in bytes.
const PREFIX: usize = 5;
/// Requests of one stream that are not answered yet; beyond, nothing more is read from it. A message has no more than that, either.
const IN_PROGRESS: usize = 1024;
/// Answers are sent together until they have as many bytes.
const TOGETHER: usize = 256 << 10;
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
    stream: StreamShare,
    origin: Context,
    mut input: Streaming<ApplyStreamRequest>,
    answers: mpsc::Sender<Result<ApplyStreamResponse, Status>>,
) {
    let done = service.layers.requests.series(APPLY, Code::Ok);
    let mut in_progress = FuturesUnordered::new();
    let mut ready = Ready::default();
    let mut end = None;
    let gone = loop {
        let is_open = end.is_none();
        let has_room = in_progress.len() + ready.answers.len() < IN_PROGRESS;
        tokio::select! {
            Some(answer) = in_progress.next() => ready.add(answer),
            place = answers.reserve(), if !ready.answers.is_empty() => match place {
                Ok(place) => place.send(Ok(ready.take())),
                Err(_) => break true,
            },
            () = sleep_until(ready.since + PATIENCE), if !ready.answers.is_empty() => break true,
            () = service.stop.cancelled(), if is_open => end = Some(Some(ApiError::Stopping.into())),
            message = input.message(), if is_open && has_room => match message {
                Ok(Some(message)) => {
                    if let Some(share) = &share {
                        share.give_back(PREFIX + message.encoded_len());
                    }
                    // It may have been revoked since, or its rights.
                    match service.layers.auth.access_now(&caller).await {
                        _ if message.items.len() > IN_PROGRESS => end = Some(Some(too_many())),
                        Ok(access) => {
                            caller.access = access;
                            let asker = service.layers.auth.asker(APPLY, &caller);
                            let items = message.items.into_iter();
                            let from = |item| Asked { caller: caller.clone(), asker: asker.clone(), item };
                            let answer = |item| one(&service, &stream, &done, &origin, from(item));
                            in_progress.extend(items.map(answer));
                        }
                        Err(revoked) => end = Some(Some(revoked)),
                    }
                }
                Ok(None) => end = Some(None),
                Err(broken) => end = Some(Some(broken)),
            },
        }
        // What was applied together is answered together.
        while let Some(Some(answer)) = in_progress.next().now_or_never() {
            ready.add(answer);
        }
        if end.is_some() && in_progress.is_empty() && ready.answers.is_empty() {
            break false;
        }
    };
    // What is on its way is done all the same, and written down.
    while in_progress.next().await.is_some() {}
    if let (false, Some(Some(status))) = (gone, end) {
        // Whoever is gone needs no reason.
        let _ = timeout(PATIENCE, answers.send(Err(status))).await;
    }
}

fn too_many() -> Status {
    let rule = format!("at most {IN_PROGRESS} requests are possible in one message");
    ApiError::invalid("items", rule).into()
}

/// Answers that can be sent, and since when.
struct Ready {
    answers: VecDeque<ApplyStreamAnswer>,
    since: Instant,
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            answers: VecDeque::new(),
            since: Instant::now(),
        }
    }
}

impl Ready {
    fn add(&mut self, answer: ApplyStreamAnswer) {
        if self.answers.is_empty() {
            self.since = Instant::now();
        }
        self.answers.push_back(answer);
    }

    /// What goes into one message; at least one answer.
    fn take(&mut self) -> ApplyStreamResponse {
        self.since = Instant::now();
        let mut bytes = 0;
        let mut answers = Vec::new();
        while let Some(next) = self.answers.front() {
            bytes += next.encoded_len();
            if !answers.is_empty() && bytes > TOGETHER {
                break;
            }
            answers.extend(self.answers.pop_front());
        }
        ApplyStreamResponse { answers }
    }
}

/// One request, and who asks.
struct Asked {
    caller: Caller,
    /// For the audit log.
    asker: Option<Arc<Asker>>,
    item: ApplyStreamItem,
}

/// Answers one request.
async fn one(
    service: &ApiService,
    stream: &StreamShare,
    done: &Histogram,
    origin: &Context,
    Asked {
        mut caller,
        asker,
        item,
    }: Asked,
) -> ApplyStreamAnswer {
    let begun = Instant::now();
    let layers = &service.layers;
    let _counted = layers.in_flight.token();
    caller.concerns = Concerns::default();
    let call = layers.calls.begin(APPLY, || origin.clone());
    let answering = async {
        spans::note_caller(caller.principal.as_ref().map(|p| p.role));
        match item.request {
            Some(request) => counted(service, stream, &caller, request).await,
            None => Err(ApiError::invalid("items.request", "an item without a request").into()),
        }
    };
    let answer = spans::within(call.as_ref(), answering).await;
    let refusal = answer.as_ref().err();
    let code = refusal.map_or(Code::Ok, Status::code);
    match code {
        Code::Ok => done.observe(begun.elapsed().as_secs_f64()),
        code => layers.requests.observe(APPLY, code, begun.into_std()),
    }
    if let Some(call) = call {
        call.end(code);
    }
    layers
        .auth
        .answered(asker.as_ref(), &caller.concerns, refusal);
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
    stream: &StreamShare,
    caller: &Caller,
    request: ApplyRequest,
) -> Result<barge_proto::v1::ApplyResponse, Status> {
    let share = stream.request(Class::Write)?;
    share.receive(request.encoded_len())?;
    service.applied(caller, request, Way::Merged).await
}
