//! Adds the addresses of all managers to every answer, so that a client that was given a single address knows the others when
//! that manager dies.

use std::task::{Context, Poll};

use barge_client::{channel::MANAGERS_HEADER, identity::KeptIdentity};
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::security::auth::Caller;

/// Adds the addresses that this manager remembers to the answers to callers whom it knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Announce(pub KeptIdentity);

impl Announce {
    fn header(&self) -> Option<HeaderValue> {
        // An address that no header can hold is none that anybody could use.
        HeaderValue::from_str(&self.0.current().members.join(",")).ok()
    }
}

impl<S> Layer<S> for Announce {
    type Service = Announced<S>;

    fn layer(&self, inner: S) -> Announced<S> {
        Announced {
            inner,
            announce: self.clone(),
        }
    }
}

/// A service whose answers name the managers.
#[derive(Debug, Clone)]
pub struct Announced<S> {
    inner: S,
    announce: Announce,
}

impl<S> Service<Request<Body>> for Announced<S>
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
        let caller = request.extensions().get::<Caller>();
        let known = caller.and_then(|caller| caller.principal.as_ref());
        let header = known.and_then(|_| self.announce.header());
        let call = self.inner.call(request);
        Box::pin(async move {
            let mut response = call.await?;
            if let Some(header) = header {
                response.headers_mut().insert(MANAGERS_HEADER, header);
            }
            Ok(response)
        })
    }
}
