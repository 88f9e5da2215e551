#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Calls through the layer, and a collector that keeps what it is sent.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span as Received, status::StatusCode},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status, body::Body, transport::Server};
use tower::{Layer, ServiceExt, service_fn};

use super::*;

const APPLY: &str = "/barge.v1.Api/Apply";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const BOUND: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on loopback; returns its endpoint.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        format!("http://{address}")
    }

    fn spans(&self) -> Vec<Received> {
        let requests = self.0.lock().unwrap();
        let of_resource = requests.iter().flat_map(|it| it.resource_spans.clone());
        of_resource
            .flat_map(|it| it.scope_spans)
            .flat_map(|it| it.spans)
            .collect()
    }

    /// Of the first resource.
    fn resource(&self) -> Vec<KeyValue> {
        let requests = self.0.lock().unwrap();
        let first = requests[0].resource_spans[0].resource.clone();
        first.unwrap().attributes
    }
}

fn settings(endpoint: String, sample: f64) -> Otlp {
    Otlp { endpoint, sample }
}

fn start(settings: &Otlp) -> Spans {
    Spans::start(Some(settings), "192.0.2.1:7101").unwrap()
}

/// As this process ends: not on a thread that answers calls.
async fn close(spans: &Spans) {
    let spans = spans.clone();
    let closed = tokio::task::spawn_blocking(move || spans.close(BOUND));
    closed.await.unwrap();
}

/// Calls an RPC for the span `parent`; returns the `traceparent` of a request that is sent on meanwhile.
async fn call(spans: &Spans, path: &str, parent: Option<&str>, answer: Code) -> Option<String> {
    let passed = Arc::new(Mutex::new(None));
    let seen = passed.clone();
    let service = service_fn(move |_: Request<Body>| {
        let seen = seen.clone();
        async move {
            note_caller(Some(Role::Admin));
            let plan = child("plan");
            let mut metadata = MetadataMap::new();
            pass_on(&mut metadata);
            let told = metadata.get("traceparent");
            *seen.lock().unwrap() = told.map(|told| told.to_str().unwrap().to_owned());
            drop(plan);
            Ok::<_, Infallible>(match answer {
                Code::Ok => Response::new(Body::empty()),
                code => Status::new(code, "no").into_http(),
            })
        }
    });
    let mut request = Request::builder().uri(path);
    if let Some(parent) = parent {
        request = request.header("traceparent", parent);
    }
    let layered = spans.calls(&Rules::load().unwrap()).layer(service);
    let request = request.body(Body::empty()).unwrap();
    layered.oneshot(request).await.unwrap();
    passed.lock().unwrap().take()
}

fn attribute(attributes: &[KeyValue], key: &str) -> Value {
    let found = attributes.iter().find(|it| it.key == key);
    let value = found.and_then(|it| it.value.clone()?.value);
    value.unwrap_or_else(|| panic!("{key} is missing"))
}

fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_call_is_a_span_of_the_trace_that_asked_for_it() {
    let collector = Collector::default();
    let spans = start(&settings(collector.start().await, 0.0));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let passed = call(&spans, APPLY, Some(&parent), Code::Unavailable).await;
    close(&spans).await;

    let received = collector.spans();
    let named = |name| received.iter().find(|it| it.name == name).unwrap();
    let (server, plan) = (named(APPLY), named("plan"));
    assert_eq!(received.len(), 2);
    assert_eq!(hex(&server.trace_id), TRACE);
    assert_eq!(hex(&server.parent_span_id), PARENT);
    assert_eq!(server.kind, 2, "a server's");
    assert_eq!(plan.parent_span_id, server.span_id);
    let passed = passed.unwrap();
    assert_eq!(passed, format!("00-{TRACE}-{}-01", hex(&server.span_id)));
    assert_eq!(attribute(&server.attributes, "barge.verb"), text("apply"));
    assert_eq!(attribute(&server.attributes, "barge.resource"), text("*"));
    assert_eq!(attribute(&server.attributes, "barge.role"), text("admin"));
    let code = attribute(&server.attributes, "rpc.grpc.status_code");
    assert_eq!(code, Value::IntValue(14));
    let status = server.status.as_ref().unwrap();
    assert_eq!(status.code(), StatusCode::Error);
    let resource = collector.resource();
    assert_eq!(attribute(&resource, "service.name"), text("barge-server"));
    let instance = attribute(&resource, "service.instance.id");
    assert_eq!(instance, text("192.0.2.1:7101"));
    let version = attribute(&resource, "service.version");
    assert_eq!(version, text(env!("CARGO_PKG_VERSION")));
    let counts = spans.counts().unwrap();
    assert_eq!((counts.exported.get(), counts.dropped.get()), (2, 0));
}

#[tokio::test]
async fn a_trace_that_is_not_kept_stays_so_on_the_way() {
    let collector = Collector::default();
    let none = start(&settings(collector.start().await, 0.0));
    let passed = call(&none, APPLY, None, Code::Ok).await.unwrap();
    assert!(passed.ends_with("-00"), "{passed}");
    let all = start(&settings(collector.start().await, 1.0));
    let skipped = format!("00-{TRACE}-{PARENT}-00");
    let passed = call(&all, APPLY, Some(&skipped), Code::Ok).await.unwrap();
    assert!(
        passed.contains(TRACE) && passed.ends_with("-00"),
        "{passed}"
    );
    close(&none).await;
    close(&all).await;
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn machinery_and_what_is_no_rpc_have_none() {
    let collector = Collector::default();
    let spans = start(&settings(collector.start().await, 1.0));
    for path in ["/barge.v1.Raft/Append", "/barge.v1.Session/Connect", "/a/b"] {
        assert_eq!(call(&spans, path, None, Code::Ok).await, None, "{path}");
    }
    close(&spans).await;
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let spans = start(&settings(endpoint, 1.0));
    // More than the queue holds.
    for _ in 0..5_000 {
        call(&spans, APPLY, None, Code::Ok).await.unwrap();
    }
    let counts = spans.counts().unwrap();
    assert!(counts.dropped.get() > 0);
    assert_eq!(counts.exported.get(), 0);
    let closing = spans.clone();
    let begun = std::time::Instant::now();
    tokio::task::spawn_blocking(move || closing.close(Duration::from_millis(200)))
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn without_settings_there_is_nothing() {
    let spans = Spans::start(None, "192.0.2.1:7101").unwrap();
    assert!(spans.counts().is_none());
    let parent = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(call(&spans, APPLY, Some(&parent), Code::Ok).await, None);
    spans.close(BOUND);
}
