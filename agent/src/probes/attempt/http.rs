//! By HTTP: redirects on the same host are followed, connections are closed, bodies are read to a bound.

use std::pin::pin;

use barge_proto::v1::HttpHeader;
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, StatusCode,
    header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT},
};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Finding, Trouble, connect, quoted, tls};

/// As Kubernetes follows.
const REDIRECTS: usize = 10;
/// Bytes of a body that are read.
const BODY: usize = 10 << 10;
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("barge-probe/", env!("CARGO_PKG_VERSION")));

pub struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: Vec<u8>,
}

/// Asks once, and again where the same host sends it to. A status from 200 to 399 is success.
pub async fn get(url: &Url, headers: &[HttpHeader]) -> Result<Finding, Trouble> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTS {
        let answer = ask(&url, headers).await?;
        let status = answer.status;
        if !status.is_success() && !status.is_redirection() {
            let said = String::from_utf8_lossy(&answer.body);
            let how = format!("HTTP status {} from {url}", status.as_u16());
            return Err(Trouble::Theirs(quoted(&how, &said)));
        }
        let Some(next) = answer.location.and_then(|it| url.join(&it).ok()) else {
            return Ok(Finding::Success);
        };
        if next.host() != url.host() || !matches!(next.scheme(), "http" | "https") {
            let message = format!("{url} sends to another host, {next}, which is not asked");
            return Ok(Finding::Warning(message));
        }
        url = next;
    }
    let why = format!("more than {REDIRECTS} redirects, the last one to {url}");
    Err(Trouble::Theirs(why))
}

/// Asks once, and follows nowhere.
pub async fn ask(url: &Url, headers: &[HttpHeader]) -> Result<Answer, Trouble> {
    let theirs = |why: String| Trouble::Theirs(why);
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(80);
    let request = request(url, headers).map_err(Trouble::Ours)?;
    let stream = connect(host, port).await?;
    if url.scheme() == "http" {
        return exchange(stream, request).await;
    }
    let stream = tls::connect(host, stream).await;
    let stream = stream.map_err(|error| theirs(format!("TLS with {url}: {error}")))?;
    exchange(stream, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, Trouble> {
    let broken = |error: hyper::Error| Trouble::Theirs(format!("no HTTP answer: {error}"));
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(broken)?;
    let answer = async {
        let mut response = sender.send_request(request).await.map_err(broken)?;
        let location = match response.status().as_u16() {
            301..=303 | 307 | 308 => response.headers().get(LOCATION),
            _ => None,
        };
        let location = location.and_then(|it| it.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while body.len() < BODY {
            let Some(frame) = response.frame().await else {
                break;
            };
            if let Some(data) = frame.map_err(broken)?.data_ref() {
                let room = BODY - body.len();
                body.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        Ok(Answer {
            status: response.status(),
            location,
            body,
        })
    };
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    tokio::select! {
        answer = &mut answer => return answer,
        // What came before the end is still there to read.
        _ = &mut connection => {}
    }
    answer.await
}

fn request(url: &Url, headers: &[HttpHeader]) -> Result<Request<Empty<Bytes>>, String> {
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
    let all = request.headers_mut();
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let name = name.map_err(|error| format!("header {:?}: {error}", header.name))?;
        let value = HeaderValue::from_str(&header.value);
        let value = value.map_err(|error| format!("header {name}: {error}"))?;
        all.append(name, value);
    }
    // An empty value leaves out a header that is sent otherwise.
    for (name, default) in [
        (USER_AGENT, AGENT),
        (ACCEPT, HeaderValue::from_static("*/*")),
    ] {
        match all.get(&name) {
            None => {
                all.insert(name, default);
            }
            Some(value) if value.is_empty() => {
                all.remove(name);
            }
            Some(_) => {}
        }
    }
    if all.get(HOST).is_none_or(HeaderValue::is_empty) {
        let host = url.host_str().unwrap_or_default();
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let host = HeaderValue::from_str(&host).map_err(|error| format!("{host}: {error}"))?;
        all.insert(HOST, host);
    }
    all.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}
