//! The layer behind the authorisation layer that takes a share for every request.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use barge_proto::{
    limits::REQUEST_BYTES,
    v1::{Role, raft_server::SERVICE_NAME as RAFT, session_server::SERVICE_NAME as SESSION},
};
use futures::{StreamExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::{BodyStream, StreamBody};
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{Class, Shares};
use crate::{error::ApiError, net::Rules, security::auth::Caller};

/// How much of a request that is refused is taken, in frames of at most 16 KiB, and for how long.
const DRAINED_FRAMES: usize = 64;
const DRAINED_FOR: Duration = Duration::from_secs(1);

/// Takes shares by the rules of the schema. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharesLayer {
    shares: Shares,
    rules: Arc<Rules>,
}

impl SharesLayer {
    /// Takes the shares of requests from `shares`.
    #[must_use]
    pub fn new(shares: Shares, rules: Rules) -> Self {
        Self {
            shares,
            rules: Arc::new(rules),
        }
    }

    /// What the request counts as; nothing for one that has a lane of its own.
    fn class(&self, request: &Request<Body>, caller: &Caller) -> Option<Class> {
        let path = request.uri().path();
        let (service, _) = path.strip_prefix('/')?.split_once('/')?;
        let manager = caller
            .principal
            .as_ref()
            .is_some_and(|principal| principal.role == Role::Manager);
        if service == RAFT || service == SESSION || manager {
            return None;
        }
        let verb = self.rules.get(path).map(|rule| rule.verb.as_str());
        Some(verb.map_or(Class::Read, Class::of))
    }
}

impl<S> Layer<S> for SharesLayer {
    type Service = Shared<S>;

    fn layer(&self, inner: S) -> Shared<S> {
        Shared {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind a [`SharesLayer`].
#[derive(Debug, Clone)]
pub struct Shared<S> {
    inner: S,
    layer: SharesLayer,
}

impl<S> Service<Request<Body>> for Shared<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>();
        let Some((caller, class)) =
            caller.and_then(|caller| Some((caller, self.layer.class(&request, caller)?)))
        else {
            return Box::pin(self.inner.call(request));
        };
        let share = match self.layer.shares.request(caller, class) {
            Ok(share) => Arc::new(share),
            Err(error) => {
                return Box::pin(async move {
                    drain(request.into_body()).await;
                    Ok(Status::from(error).into_http())
                });
            }
        };
        let metered = share.clone();
        let mut request = request.map(|body| {
            let frames = BodyStream::new(body).map(move |frame| {
                if let Ok(frame) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    metered.receive(data.len())?;
                }
                frame
            });
            Body::new(StreamBody::new(frames))
        });
        // A stream gives back what it has read.
        request.extensions_mut().insert(share.clone());
        // The clone has not been polled ready; the one that has is taken.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let patience = self.layer.shares.0.limits.patience;
        Box::pin(async move {
            let answer = async {
                let _turn = match class {
                    Class::List => share.list_turn().await,
                    Class::Read | Class::Write => None,
                };
                inner.call(request).await
            };
            match timeout(patience, answer).await {
                Ok(answer) => answer.map(explained),
                Err(_) => Ok(Status::deadline_exceeded(format!(
                    "the request did not arrive whole, or could not be answered, within {} s",
                    patience.as_secs()
                ))
                .into_http()),
            }
        })
    }
}

/// Takes what a client has sent, or is about to, before it is refused: a stream that ends while its client still sends is a
/// fault of the client's for HTTP/2, and after a thousand of them the whole connection is closed.
async fn drain(body: Body) {
    let mut frames = BodyStream::new(body).take(DRAINED_FRAMES);
    let drained = async { while let Some(Ok(_)) = frames.next().await {} };
    // After this time the rest is not read, and the stream of a slow sender is reset.
    let _ = timeout(DRAINED_FOR, drained).await;
}

/// What the transport says of a message that is too large, in our words.
fn explained(response: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let too_large = status.code() == Code::OutOfRange && status.message().contains(TOO_LARGE);
    match too_large {
        true => Status::from(too_large_request()).into_http(),
        false => response,
    }
}

/// tonic's words, which come without details.
const TOO_LARGE: &str = "decoded message length too large";

fn too_large_request() -> ApiError {
    ApiError::invalid(
        "request",
        format!(
            "it is larger than the {REQUEST_BYTES} bytes (4 MiB) that one request may have: send the objects in several \
             requests, as `barge apply` does"
        ),
    )
}
