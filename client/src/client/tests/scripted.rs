//! A manager that answers by a script.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use barge_proto::v1::{
    api_server::{Api, ApiServer},
    apply_stream_answer::Answer,
    *,
};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{channel::MANAGERS_HEADER, identity::Identity, test_ca::TestCa, tls, v1::Role};

/// The answer to one call, whatever it asks.
#[derive(Debug, Clone)]
pub enum Step {
    Fail(Status),
    /// An object of this name, at this revision.
    Object(&'static str, u64),
    /// An empty list at this revision.
    List(u64),
    /// A list of names with the revisions of their objects.
    Names(Vec<(&'static str, u64)>, u64),
    /// A page of such a list, and where it goes on.
    Page(Vec<(&'static str, u64)>, u64, &'static str),
    Watch(Vec<Result<WatchResponse, Status>>),
}

#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    calls: usize,
    ids: Vec<RequestId>,
    streams: usize,
    watched: Vec<u64>,
    continued: Vec<String>,
    /// The managers that its answers to `get` name.
    managers: String,
}

/// What a step fails with to break the stream that it is on.
pub const BROKEN: &str = "broken";

pub struct Fake {
    pub address: String,
    admin: Identity,
    script: Arc<Mutex<Script>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn ca() -> TestCa {
    TestCa::new()
}

/// A manager that has too much to do, and says when to come back.
pub fn overloaded(retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info("OVERLOADED", "barge", HashMap::new());
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, "too much", details)
}

pub fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "barge", HashMap::new());
    Status::with_error_details(code, reason, details)
}

/// The pages before are not kept any more; this goes on with what there is.
pub fn list_expired(token: &str) -> Status {
    let metadata = HashMap::from([("continue".to_owned(), token.to_owned())]);
    let details = ErrorDetails::with_error_info("EXPIRED", "barge", metadata);
    Status::with_error_details(Code::OutOfRange, "expired", details)
}

pub fn revision_required(revision: u64) -> Status {
    let metadata = HashMap::from([("revision".to_owned(), revision.to_string())]);
    let details = ErrorDetails::with_error_info("REVISION_REQUIRED", "barge", metadata);
    Status::with_error_details(Code::FailedPrecondition, "revision", details)
}

pub fn invalid() -> Status {
    let mut details = ErrorDetails::with_error_info("INVALID", "barge", HashMap::new());
    details.add_bad_request_violation("spec.replicas", "must not be negative");
    Status::with_error_details(Code::InvalidArgument, "no", details)
}

pub fn watch_event(name: &str, revision: u64) -> WatchResponse {
    WatchResponse {
        r#type: ChangeType::Added.into(),
        object: Some(object(name, revision)),
        revision,
    }
}

fn object(name: &str, revision: u64) -> Object {
    Object::from(Namespace {
        metadata: Some(ObjectMeta {
            name: name.to_owned(),
            uid: name.to_owned(),
            resource_version: revision.to_string(),
            ..ObjectMeta::default()
        }),
        ..Namespace::default()
    })
}

impl Fake {
    pub async fn start(ca: &TestCa, steps: Vec<Step>) -> Self {
        let script = Arc::new(Mutex::new(Script {
            steps: steps.into(),
            ..Script::default()
        }));
        let (address, task) = serve(ca, Scripted(script.clone())).await;
        Self {
            address,
            admin: ca.issue(Role::Admin, "a"),
            script,
            task,
        }
    }

    pub fn identity(&self) -> Identity {
        self.admin.clone()
    }

    pub fn calls(&self) -> usize {
        self.script.lock().unwrap().calls
    }

    pub fn streams(&self) -> usize {
        self.script.lock().unwrap().streams
    }

    pub fn ids(&self) -> Vec<RequestId> {
        self.script.lock().unwrap().ids.clone()
    }

    /// Names these managers with every answer to `get` from now on.
    pub fn announce(&self, managers: &[&str]) {
        self.script.lock().unwrap().managers = managers.join(",");
    }

    /// The tokens that lists went on with.
    pub fn continued(&self) -> Vec<String> {
        self.script.lock().unwrap().continued.clone()
    }

    pub fn watched(&self) -> Vec<u64> {
        self.script.lock().unwrap().watched.clone()
    }
}

/// Serves on a port of its own until the task is aborted.
pub async fn serve(ca: &TestCa, api: impl Api) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = acceptor(&ca.issue(Role::Manager, "m"));
    let connections = tokio_stream::wrappers::TcpListenerStream::new(listener)
        .then(move |tcp| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(tcp?).await }
        })
        // A handshake that failed is the client's to tell; tonic would stop listening.
        .filter(Result::is_ok);
    let task = tokio::spawn(async move {
        let served = Server::builder().add_service(ApiServer::new(api));
        served.serve_with_incoming(connections).await.unwrap();
    });
    (address, task)
}

fn acceptor(manager: &Identity) -> TlsAcceptor {
    let roots = Arc::new(tls::root_store(&manager.roots).unwrap());
    let clients = WebPkiClientVerifier::builder_with_provider(roots, tls::provider());
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(manager.presented_chain(), manager.key_der().unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    fn next(&self, id: Option<RequestId>) -> Step {
        let mut script = self.0.lock().unwrap();
        script.calls += 1;
        script.ids.extend(id);
        let end = Step::Fail(Status::internal("the script has ended"));
        script.steps.pop_front().unwrap_or(end)
    }

    fn object(&self, id: Option<RequestId>) -> Result<(Option<Object>, u64), Status> {
        match self.next(id) {
            Step::Object(name, revision) => Ok((Some(object(name, revision)), revision)),
            Step::Fail(status) => Err(status),
            other => Err(Status::internal(format!("not {other:?}"))),
        }
    }
}

#[tonic::async_trait]
impl Api for Scripted {
    type ApplyStreamStream =
        futures::stream::BoxStream<'static, Result<ApplyStreamResponse, Status>>;
    type WatchStream = futures::stream::BoxStream<'static, Result<WatchResponse, Status>>;

    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let (_, revision) = self.object(request.into_inner().request_id)?;
        Ok(Response::new(ApplyResponse {
            results: vec![],
            revision,
            warnings: vec![],
        }))
    }

    /// One answer a message, each by the script.
    async fn apply_stream(
        &self,
        request: Request<Streaming<ApplyStreamRequest>>,
    ) -> Result<Response<Self::ApplyStreamStream>, Status> {
        let script = self.0.clone();
        script.lock().unwrap().streams += 1;
        let answers = request.into_inner().map(move |message| {
            let answer = |item: ApplyStreamItem| {
                let id = item.request.unwrap_or_default().request_id;
                let answer = match Scripted(script.clone()).object(id) {
                    Ok((_, revision)) => Answer::Response(ApplyResponse {
                        results: vec![],
                        revision,
                        warnings: vec![],
                    }),
                    // A broken stream, and not an answer.
                    Err(status) if status.message() == BROKEN => return Err(status),
                    Err(status) => Answer::Refused(RefusedRequest {
                        code: status.code().into(),
                        message: status.message().to_owned(),
                        details: status.details().to_vec(),
                    }),
                };
                Ok(ApplyStreamAnswer {
                    id: item.id,
                    answer: Some(answer),
                })
            };
            let answers = message?.items.into_iter().map(answer);
            Ok(ApplyStreamResponse {
                answers: answers.collect::<Result<_, Status>>()?,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (object, revision) = self.object(None)?;
        let mut response = Response::new(GetResponse { object, revision });
        let managers = self.0.lock().unwrap().managers.clone();
        if !managers.is_empty() {
            let metadata = response.metadata_mut();
            metadata.insert(MANAGERS_HEADER, managers.parse().unwrap());
        }
        Ok(response)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let token = request.into_inner().r#continue;
        self.0.lock().unwrap().continued.push(token);
        let (names, revision, token) = match self.next(None) {
            Step::List(revision) => (vec![], revision, ""),
            Step::Names(names, revision) => (names, revision, ""),
            Step::Page(names, revision, token) => (names, revision, token),
            Step::Fail(status) => return Err(status),
            other => return Err(Status::internal(format!("not {other:?}"))),
        };
        Ok(Response::new(ListResponse {
            objects: names
                .into_iter()
                .map(|(name, at)| object(name, at))
                .collect(),
            revision,
            r#continue: token.to_owned(),
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let (object, revision) = self.object(request.into_inner().request_id)?;
        Ok(Response::new(DeleteResponse { object, revision }))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.0
            .lock()
            .unwrap()
            .watched
            .push(request.into_inner().revision);
        match self.next(None) {
            Step::Watch(messages) => {
                let whole = messages.iter().all(Result::is_ok);
                let messages = futures::stream::iter(messages);
                Ok(Response::new(match whole {
                    // It stays open.
                    true => Box::pin(messages.chain(futures::stream::pending())),
                    false => Box::pin(messages),
                }))
            }
            Step::Fail(status) => Err(status),
            other => Err(Status::internal(format!("not {other:?}"))),
        }
    }

    async fn scale(
        &self,
        request: Request<ScaleRequest>,
    ) -> Result<Response<ScaleResponse>, Status> {
        let (object, revision) = self.object(request.into_inner().request_id)?;
        Ok(Response::new(ScaleResponse { object, revision }))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn rollout(
        &self,
        request: Request<RolloutRequest>,
    ) -> Result<Response<RolloutResponse>, Status> {
        let (object, revision) = self.object(request.into_inner().request_id)?;
        Ok(Response::new(RolloutResponse { object, revision }))
    }

    async fn rollout_history(
        &self,
        _: Request<RolloutHistoryRequest>,
    ) -> Result<Response<RolloutHistoryResponse>, Status> {
        let (_, revision) = self.object(None)?;
        Ok(Response::new(RolloutHistoryResponse {
            revisions: vec![],
            revision,
        }))
    }
}
