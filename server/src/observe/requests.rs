//! The duration of calls, by verb, resource and code.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::net::Rules;

/// What a call does, by the rules of the schema, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    verb: String,
    resource: String,
    code: String,
}

type Durations = Family<Call, Histogram, fn() -> Histogram>;

/// Measures calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Requests {
    rules: Arc<Rules>,
    durations: Durations,
}

impl Requests {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules: Arc::new(rules),
            durations: Family::new_with_constructor(histogram),
        }
    }

    /// What was measured.
    #[must_use]
    pub fn durations(&self) -> Durations {
        self.durations.clone()
    }

    /// A call that was answered.
    pub fn observe(&self, path: &str, code: Code, begun: Instant) {
        self.series(path, code)
            .observe(begun.elapsed().as_secs_f64());
    }

    /// The durations of calls that end alike, in seconds: for a caller that observes many.
    pub fn series(&self, path: &str, code: Code) -> Histogram {
        // Paths without a rule are anybody's invention: they share one series.
        let (verb, resource) = match self.rules.get(path) {
            Some(rule) => (rule.verb.as_str(), rule.resource.as_str()),
            None => ("unknown", "unknown"),
        };
        let call = Call {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            code: format!("{code:?}"),
        };
        self.durations.get_or_create(&call).clone()
    }
}

/// From a quarter of a millisecond to 16 seconds.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 17))
}

impl<S> Layer<S> for Requests {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured {
            inner,
            requests: self.clone(),
        }
    }
}

/// A service whose calls are measured.
#[derive(Debug, Clone)]
pub struct Measured<S> {
    inner: S,
    requests: Requests,
}

impl<S> Service<Request<Body>> for Measured<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (begun, requests) = (Instant::now(), self.requests.clone());
        let path = request.uri().path().to_owned();
        let call = self.inner.call(request);
        Box::pin(async move {
            let response = call.await?;
            // A call that failed at once says so in its head; one that succeeded says so at its end.
            let code = Status::from_header_map(response.headers());
            requests.observe(&path, code.map_or(Code::Ok, |status| status.code()), begun);
            Ok(response)
        })
    }
}
