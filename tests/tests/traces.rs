//! Spans of calls: one trace across the managers that a call passes, and a collector that is away.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use barge_client::ApplyOptions;
use barge_tests::{
    Managers, eventually, said,
    writer::{client, counter, runtime},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

const APPLY: &str = "/barge.v1.Api/Apply";
const PORT: u16 = 4317;
const MANIFEST: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: traced}
data: {a: b}
";

/// Keeps what it is sent: each span with the manager that made it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let manager = text(&attributes, "service.instance.id");
            let spans = of_resource.scope_spans.into_iter().flat_map(|it| it.spans);
            let made = spans.map(|span| (manager.clone(), span));
            self.0.lock().unwrap().extend(made);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn listen(&self, address: &str) {
        let service = TraceServiceServer::new(self.clone());
        let listener = runtime().block_on(TcpListener::bind(address)).unwrap();
        runtime().spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
    }

    /// The first span that fits.
    fn find(&self, fits: impl Fn(&str, &Span) -> bool) -> Result<Span, String> {
        let spans = self.0.lock().unwrap();
        let found = spans.iter().find(|(manager, span)| fits(manager, span));
        let names = || {
            spans
                .iter()
                .map(|(manager, span)| format!("{manager} {}\n", span.name))
        };
        found
            .map(|(_, span)| span.clone())
            .ok_or_else(|| names().collect())
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|it| it.key == key);
    match found.and_then(|it| it.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}

/// Where managers reach this process: the other end of their bridge.
fn here(managers: &Managers) -> String {
    let address = managers.address(0);
    let (network, _) = address.rsplit_once('.').unwrap();
    format!("{network}.1:{PORT}")
}

#[test]
fn a_call_that_is_sent_on_is_one_trace() {
    let mut managers = Managers::prepare(2);
    let (collector, address) = (Collector::default(), here(&managers));
    collector.listen(&address);
    managers.form(&["--otlp-endpoint", &format!("http://{address}")]);
    let leader = managers.leader();
    let (leads, follows) = (managers.address(leader), managers.address(1 - leader));
    let manifest = managers.dir().join("traced.yaml");
    fs::write(&manifest, MANIFEST).unwrap();
    let config = managers.config_for(1 - leader);
    let applied = managers.try_barge_with(&config, &["apply", "-f", manifest.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", said(&applied));

    // From below: a client's first try only learns the revision, and is planned by nobody.
    let propose = eventually("a write", || {
        collector.find(|manager, span| manager == leads && span.name == "propose")
    });
    let above = |child: &Span, manager: &str| {
        eventually("the span above", || {
            collector.find(|made_by, span| {
                let related =
                    span.trace_id == child.trace_id && span.span_id == child.parent_span_id;
                made_by == manager && related && span.name == APPLY
            })
        })
    };
    let second = above(&propose, &leads);
    let first = above(&second, &follows);
    assert!(first.parent_span_id.is_empty(), "the trace begins there");
    let planned =
        |_: &str, span: &Span| span.name == "plan" && span.parent_span_id == second.span_id;
    eventually("the plan", || collector.find(planned));
    for span in [&first, &second] {
        assert_eq!(text(&span.attributes, "barge.role"), "admin");
    }
    // What comes in on a stream has a span of its own, too, at both.
    let options = ApplyOptions {
        pipelined: true,
        ..ApplyOptions::default()
    };
    let client = client(&config, Duration::from_secs(60));
    let applied = runtime().block_on(client.apply(vec![counter(1)], &options));
    applied.unwrap();
    let item = eventually("another write", || {
        collector.find(|manager, span| {
            let other = span.trace_id != propose.trace_id;
            manager == leads && span.name == "propose" && other
        })
    });
    above(&above(&item, &leads), &follows);
    assert!(
        managers.stop(leader),
        "it ends as without a collector:\n{}",
        managers.log(leader)
    );
}

#[test]
fn without_the_collector_calls_go_on() {
    let mut managers = Managers::prepare(1);
    let (collector, address) = (Collector::default(), here(&managers));
    managers.form(&["--otlp-endpoint", &format!("http://{address}")]);
    eventually("it is told", || {
        managers.barge(&["token", "list"]);
        let log = managers.log(0);
        match log.matches("the collector of spans is away").count() {
            1 => Ok(()),
            _ => Err(log),
        }
    });
    collector.listen(&address);
    eventually("spans arrive", || {
        managers.barge(&["token", "list"]);
        collector.find(|_, _| true)
    });
    assert!(managers.stop(0));
}

#[test]
fn a_setting_that_does_not_work_is_named() {
    let managers = Managers::prepare(1);
    for (flags, says) in [
        (
            &["--otlp-endpoint", "collector:4317"][..],
            "http://host:port",
        ),
        (
            &["--otlp-endpoint", "http://c:4317", "--otlp-sample", "2"],
            "from 0 to 1",
        ),
    ] {
        let flags = [&["--bootstrap"], flags].concat();
        let output = managers.command(0, &flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(says), "{}", said(&output));
    }
}
