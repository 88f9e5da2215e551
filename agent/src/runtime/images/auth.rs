//! Answering a registry that wants to know who asks.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_auth::{ChallengeRef, parser::ChallengeParser};
use reqwest::{
    Response, Url,
    header::{HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    body::{Body, Pace},
    endpoint::Endpoint,
    http::Http,
    registry::FetchError,
};
use crate::runtime::keyring::Login;

/// Bytes of an answer with a token.
const LARGEST_TOKEN: u64 = 64 * 1024;

/// What a service for tokens answers (Docker's token authentication; OAuth 2 calls it `access_token`).
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The Authorization header for a registry that refused a request. The endpoint's password goes to the endpoint itself,
/// or to the service for tokens that it names, and to that over TLS alone unless the endpoint has none either.
pub async fn authorize(
    http: &Http,
    endpoint: &Endpoint,
    refusal: &Response,
    repository: &str,
    pace: Pace,
) -> Result<HeaderValue, FetchError> {
    let refused = || FetchError::Unauthorized(endpoint.url());
    let headers: Vec<&str> = refusal
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .collect();
    let challenges: Vec<ChallengeRef<'_>> = headers
        .iter()
        .flat_map(|header| ChallengeParser::new(header))
        .filter_map(Result::ok)
        .collect();
    let scheme = |name: &str| {
        let mut all = challenges.iter();
        all.find(|challenge| challenge.scheme.eq_ignore_ascii_case(name))
    };
    if let Some(bearer) = scheme("bearer") {
        return token(http, endpoint, bearer, repository, pace).await;
    }
    match (scheme("basic"), endpoint.login()) {
        (Some(_), Some(Login::Password(user, password))) => {
            basic(user, password).ok_or_else(refused)
        }
        _ => Err(refused()),
    }
}

async fn token(
    http: &Http,
    endpoint: &Endpoint,
    challenge: &ChallengeRef<'_>,
    repository: &str,
    pace: Pace,
) -> Result<HeaderValue, FetchError> {
    let parameter = |name: &str| {
        let mut all = challenge.params.iter();
        let found = all.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    let strange = |why: &str| FetchError::Other(endpoint.url(), why.to_owned());
    let realm = parameter("realm").unwrap_or_default();
    let mut url: Url = realm
        .parse()
        .map_err(|_| strange("a challenge without a service for tokens"))?;
    if !(url.scheme() == "https" || (url.scheme() == "http" && endpoint.plain_http())) {
        return Err(strange("a service for tokens without TLS"));
    }
    let mut parameters = Vec::new();
    if let Some(service) = parameter("service") {
        parameters.push(("service", service));
    }
    parameters.push(("scope", format!("repository:{repository}:pull")));
    let request = async {
        match endpoint.login() {
            // OAuth 2 (RFC 6749, section 6), as Docker's service for tokens has it.
            Some(Login::Identity(identity)) => {
                parameters.push(("grant_type", "refresh_token".to_owned()));
                parameters.push(("client_id", "barge-agent".to_owned()));
                parameters.push(("refresh_token", identity.clone()));
                let mut form = url.clone();
                form.query_pairs_mut().clear().extend_pairs(&parameters);
                let form = form.query().unwrap_or_default().to_owned();
                http.post(&url, form).await
            }
            other => {
                url.query_pairs_mut().extend_pairs(&parameters);
                let header = match other {
                    Some(Login::Password(user, password)) => basic(user, password),
                    _ => None,
                };
                http.get(&url, None, header.as_ref()).await
            }
        }
    };
    let silent = || FetchError::Slow(endpoint.url(), "no token".to_owned());
    let answer = timeout(pace.window, request)
        .await
        .map_err(|_| silent())?
        .map_err(|error| error.at(endpoint.url()))?;
    if !answer.status().is_success() {
        return Err(FetchError::Unauthorized(endpoint.url()));
    }
    let body = Body::new(answer, endpoint.url(), pace).whole(LARGEST_TOKEN);
    let bytes = timeout(pace.window, body).await.map_err(|_| silent())??;
    let token = serde_json::from_slice::<Answer>(&bytes).ok();
    let token = token.and_then(|answer| answer.token.or(answer.access_token));
    let header = token.and_then(|token| secret(&format!("Bearer {token}")));
    header.ok_or_else(|| strange("no token from the service for tokens"))
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
    secret(&format!("Basic {pair}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
