//! The layer that makes a span of each call.

use std::{
    sync::{Arc, OnceLock},
    task::{self, Poll},
};

use futures::future::{BoxFuture, Either};
use http::{Request, Response};
use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanKind, Status as Outcome, Tracer},
};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{Current, origin, within};
use crate::net::Rules;

/// Makes spans of calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls(Option<Arc<Making>>);

#[derive(Debug)]
struct Making {
    tracer: SdkTracer,
    rules: Rules,
}

/// A call that is being answered.
#[derive(Debug)]
pub struct Call {
    /// Boxed, because requests by the thousand are moved about.
    span: Box<Span>,
    current: Arc<Current>,
}

impl Calls {
    pub(super) const fn off() -> Self {
        Self(None)
    }

    pub(super) fn new(tracer: SdkTracer, rules: Rules) -> Self {
        Self(Some(Arc::new(Making { tracer, rules })))
    }

    /// A call of `path` begins; absent when no spans are made, or none of this RPC. One that is not sampled has a span, too,
    /// which remembers nothing: others are told so.
    pub fn begin(&self, path: &str, origin: impl FnOnce() -> Context) -> Option<Call> {
        let making = self.0.as_ref()?;
        let rule = making.rules.traced(path)?;
        let tracer = &making.tracer;
        let builder = tracer
            .span_builder(path.to_owned())
            .with_kind(SpanKind::Server);
        let mut span = tracer.build_with_context(builder, &origin());
        if span.is_recording() {
            span.set_attribute(KeyValue::new("rpc.system", "grpc"));
            span.set_attribute(KeyValue::new("barge.verb", rule.verb.clone()));
            span.set_attribute(KeyValue::new("barge.resource", rule.resource.clone()));
        }
        let current = Arc::new(Current {
            tracer: tracer.clone(),
            context: span.span_context().clone(),
            role: OnceLock::new(),
        });
        Some(Call {
            span: Box::new(span),
            current,
        })
    }
}

impl Call {
    pub(super) fn current(&self) -> Arc<Current> {
        self.current.clone()
    }

    /// It was answered.
    pub fn end(mut self, code: Code) {
        if !self.span.is_recording() {
            return;
        }
        let number = i64::from(i32::from(code));
        self.span
            .set_attribute(KeyValue::new("rpc.grpc.status_code", number));
        if let Some(role) = self.current.role.get() {
            self.span.set_attribute(KeyValue::new("barge.role", *role));
        }
        if is_own_failure(code) {
            self.span.set_status(Outcome::error(code.description()));
        }
        self.span.end();
    }
}

/// Whether an answer says that the server failed, by OpenTelemetry's conventions; the others are about the request.
const fn is_own_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

impl<S> Layer<S> for Calls {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced {
            inner,
            calls: self.clone(),
        }
    }
}

/// A service whose calls have spans, which end when the answer begins.
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
    calls: Calls,
}

type Answer<E> = BoxFuture<'static, Result<Response<Body>, E>>;

impl<S> Service<Request<Body>> for Traced<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Answer<S::Error>, S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let begun = self
            .calls
            .begin(request.uri().path(), || origin(request.headers()));
        let Some(call) = begun else {
            return Either::Right(self.inner.call(request));
        };
        let answer = within(Some(&call), self.inner.call(request));
        Either::Left(Box::pin(async move {
            let response = answer.await?;
            let code = Status::from_header_map(response.headers());
            call.end(code.map_or(Code::Ok, |status| status.code()));
            Ok(response)
        }))
    }
}
