//! `GET /metrics` and the keys of service accounts' tokens, plain HTTP: meant for loopback or a network of its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::Metrics;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Scrapers at a time; others wait to be accepted.
const CONNECTIONS: usize = 8;
/// A connection is closed after this long: scrapers come back.
const LIFE: Duration = Duration::from_secs(60);
/// After an error of `accept`, which is about this process (no files left), not about one connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until `stop`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
    stop.run_until_cancelled(accept(listener, metrics)).await;
}

async fn accept(listener: TcpListener, metrics: Arc<Metrics>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a scraper");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let _one = permit;
            let service = service_fn(|request| {
                let answer = answer(&metrics, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // How a scraper leaves is its own affair.
            let _ = timeout(LIFE, connection).await;
        });
    }
}

/// Where OpenID Connect looks for the keys of tokens; what comes before is the issuer's own path.
const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

fn answer<B>(metrics: &Metrics, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let found = match (request.method(), path) {
        (&Method::GET, "/metrics") => match metrics.scrape() {
            Ok(text) => Ok((OPEN_METRICS, text)),
            Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
        },
        (&Method::GET, DISCOVERY | KEYS) => match metrics.token_keys() {
            Some(keys) if path == KEYS => Ok(("application/jwk-set+json", keys.jwks)),
            Some(keys) => Ok(("application/json", keys.openid_configuration)),
            None => {
                let text = "this manager has not caught up yet\n".to_owned();
                Err((StatusCode::SERVICE_UNAVAILABLE, text))
            }
        },
        _ => {
            let text = format!("there are GET /metrics, {DISCOVERY} and {KEYS}, nothing else\n");
            Err((StatusCode::NOT_FOUND, text))
        }
    };
    let (status, kind, text) = match found {
        Ok((kind, text)) => (StatusCode::OK, Some(kind), text),
        Err((status, text)) => (status, None, text),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        let kind = http::HeaderValue::from_static(kind);
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}
