//! Counting the requests that are being answered, so that a manager that stops leaves Raft only after them.

use std::task::{Context, Poll};

use barge_proto::v1::raft_server::SERVICE_NAME as RAFT;
use http::{Request, Response};
use tokio_util::task::{
    TaskTracker,
    task_tracker::{TaskTrackerToken, TrackedFuture},
};
use tonic::body::Body;
use tower::{Layer, Service};

/// Counts requests until their answer begins. Raft's own are not counted: they end with Raft. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct InFlight(TaskTracker);

impl InFlight {
    /// Waits until nothing is being answered; those that come meanwhile are waited for, too.
    pub async fn none(&self) {
        self.0.close();
        self.0.wait().await;
    }

    /// Counts one that comes on a stream, until what is returned is dropped.
    pub fn token(&self) -> TaskTrackerToken {
        self.0.token()
    }
}

impl<S> Layer<S> for InFlight {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            all: self.0.clone(),
            rafts: TaskTracker::new(),
        }
    }
}

/// A service whose requests are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    all: TaskTracker,
    /// Requests of Raft: a stopping manager does not wait for them.
    rafts: TaskTracker,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TrackedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let tracker = match is_rafts(request.uri().path()) {
            true => &self.rafts,
            false => &self.all,
        };
        tracker.track_future(self.inner.call(request))
    }
}

fn is_rafts(path: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .is_some_and(|(service, _)| service == RAFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use tokio::sync::watch;
    use tower::{ServiceExt, service_fn};

    /// A service that answers once `open` is true.
    fn gated(
        open: watch::Receiver<bool>,
    ) -> impl Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
    > + Clone {
        service_fn(move |_: Request<Body>| {
            let mut open = open.clone();
            async move {
                open.wait_for(|open| *open).await.map(drop).unwrap();
                Ok(Response::new(Body::empty()))
            }
        })
    }

    fn request(path: &str) -> Request<Body> {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn waits_for_requests_but_not_for_rafts() {
        let in_flight = InFlight::default();
        let (gate, open) = watch::channel(false);
        let service = in_flight.layer(gated(open));
        let append = format!("/{RAFT}/Append");
        let raft = tokio::spawn(service.clone().oneshot(request(&append)));
        in_flight.none().await;
        let mut api = std::pin::pin!(service.oneshot(request("/barge.v1.Api/Get")));
        // It is called when it is polled first.
        assert!(futures::poll!(&mut api).is_pending());
        let waiting = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.none().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gate.send_replace(true);
        api.await.unwrap();
        waiting.await.unwrap();
        raft.await.unwrap().unwrap();
    }
}
