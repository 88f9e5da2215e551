//! Asking a registry, or a mirror of it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use reqwest::{Response, StatusCode, Url, header::HeaderValue};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    auth::authorize,
    body::{Body, Pace},
    endpoint::Endpoint,
    http::{Http, same_place},
    manifest::{self, Descriptor, LARGEST_DOCUMENT},
    name::Name,
    shares::{Permit, Shares},
};

/// Bytes of a document for which one permit is taken.
pub const DOCUMENT_UNIT: u64 = 64 * 1024;
/// Windows of progress that the documents of one image may take together, and before them the first one alone.
const DOCUMENT_WINDOWS: u32 = 2;
/// Bytes of an error's body that are looked at.
const LARGEST_ERROR: u64 = 16 * 1024;
/// Characters of a registry's own words that are passed on.
const LONGEST_SAYING: usize = 256;

/// Why a registry did not give what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// It has no such image.
    #[error("{0} has no such image")]
    NotFound(String),
    /// It wants to know who asks, or does not like who asks.
    #[error(
        "{0} demands credentials or refuses those it got; name a Secret with credentials for it in imagePullSecrets of the pod, or give the node some \
         (registry_config, or username and password of the registry, in the agent's configuration)"
    )]
    Unauthorized(String),
    /// It could not be reached.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// It sent something else than it was asked for.
    #[error("{0} sent data with another digest than it was asked for: {1}")]
    Digest(String, String),
    /// It sent more than it may: a limit in bytes.
    #[error("{0} sent more than {1} bytes, which is as much as there may be")]
    TooLong(String, u64),
    /// It sent too little to be waited for.
    #[error("{0} is too slow: {1}")]
    Slow(String, String),
    /// It has an image, but not for this kind of machine.
    #[error("{0} has the image, but not for {1}; it is for {2}")]
    Platform(String, String, String),
    /// This machine trusts nobody.
    #[error(
        "{0} cannot be asked: this machine has no root certificates; install them (Debian: ca-certificates)"
    )]
    NoRoots(String),
    /// It answered something unexpected.
    #[error("{0} answered: {1}")]
    Other(String, String),
}

/// A document in memory, with the permit for it.
pub struct Held {
    /// The document.
    pub bytes: Bytes,
    _permit: Permit,
}

impl Held {
    /// A document, and the room that was waited for.
    pub fn new(bytes: Bytes, permit: Permit) -> Self {
        Self {
            bytes,
            _permit: permit,
        }
    }
}

/// A conversation with one endpoint about one repository. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    endpoint: Endpoint,
    http: Http,
    /// What paths are below.
    base: Url,
    repository: String,
    pace: Pace,
    /// Bounds the documents in memory; a permit is for 64 KiB.
    documents: Shares,
    /// How long the endpoint may still take for the documents of this pull. Waiting for room does not count.
    patience: Arc<Mutex<Duration>>,
    /// What the endpoint asked for.
    authorization: Arc<Mutex<Option<HeaderValue>>>,
}

impl Session {
    /// Prepares to ask an endpoint; nothing is sent yet.
    pub async fn new(
        http: &Http,
        endpoint: &Endpoint,
        name: &Name,
        pace: Pace,
        documents: Shares,
    ) -> Result<Self, FetchError> {
        let repository = format!("{}{}", endpoint.prefix, name.repository);
        let base = format!("{}/{repository}/", endpoint.base());
        let base: Url = base.parse().map_err(|_| {
            let why = "no URL can be made of its host and the image's name";
            FetchError::Unreachable(endpoint.url(), why.to_owned())
        })?;
        http.prepare(&base)
            .await
            .map_err(|error| error.at(endpoint.url()))?;
        Ok(Self {
            http: http.clone(),
            base,
            repository,
            endpoint: endpoint.clone(),
            pace,
            documents,
            patience: Arc::new(Mutex::new(pace.window * DOCUMENT_WINDOWS)),
            authorization: Arc::default(),
        })
    }

    /// Who is asked, for messages.
    pub fn url(&self) -> String {
        self.endpoint.url()
    }

    /// Whose share of the permits this takes.
    pub fn host(&self) -> &str {
        self.endpoint.host()
    }

    /// The document of a tag or digest, and its digest. One with a descriptor has that size.
    pub async fn document(
        &self,
        reference: &str,
        wanted: Option<&Descriptor>,
    ) -> Result<(Held, String), FetchError> {
        let limit = wanted.map_or(LARGEST_DOCUMENT, |wanted| wanted.size.min(LARGEST_DOCUMENT));
        let bytes = self.whole(&format!("manifests/{reference}"), limit).await?;
        // Ours, not theirs: it becomes the name under which the bytes are stored.
        let actual = manifest::sha256(&bytes.bytes);
        match reference.contains(':') && reference != actual {
            true => Err(self.lie(&actual, reference)),
            false => Ok((bytes, actual)),
        }
    }

    /// A small blob whole: an image's configuration.
    pub async fn small_blob(&self, blob: &Descriptor) -> Result<Held, FetchError> {
        let limit = blob.size.min(LARGEST_DOCUMENT);
        let bytes = self
            .whole(&format!("blobs/{}", &*blob.digest), limit)
            .await?;
        match manifest::sha256(&bytes.bytes) {
            actual if actual == *blob.digest => Ok(bytes),
            actual => Err(self.lie(&actual, &blob.digest)),
        }
    }

    /// The bytes of a blob, as they arrive: as many as its descriptor says, or the last item is an error. Whoever stores
    /// them compares the digest.
    pub async fn blob(
        &self,
        blob: &Descriptor,
    ) -> Result<impl Stream<Item = Result<Bytes, FetchError>> + Send + use<>, FetchError> {
        let answer = self.get(&format!("blobs/{}", &*blob.digest)).await?;
        match answer.content_length() {
            Some(length) if length != blob.size => {
                let size = blob.size;
                let why = format!("a layer of {length} bytes instead of {size}");
                Err(FetchError::Other(self.url(), why))
            }
            _ => Ok(Body::new(answer, self.url(), self.pace).exactly(blob.size)),
        }
    }

    async fn whole(&self, path: &str, limit: u64) -> Result<Held, FetchError> {
        let answer = self.patiently(self.get(path)).await?;
        let body = Body::new(answer, self.url(), self.pace);
        // Not a byte of it is read before there is room for all.
        let length = body.length(limit)?;
        let permit = self.room(length).await;
        let window = self.pace.window;
        let whole = async {
            timeout(window, body.whole(limit)).await.map_err(|_| {
                let seconds = window.as_secs_f32();
                FetchError::Slow(self.url(), format!("a document in more than {seconds} s"))
            })?
        };
        let bytes = self.patiently(whole).await?;
        Ok(Held::new(bytes, permit))
    }

    /// Gives the endpoint the time for all documents of an image.
    pub fn renew_patience(&self) {
        *lock(&self.patience) = self.pace.window * DOCUMENT_WINDOWS;
    }

    /// Waits for the endpoint within the time that it still has.
    async fn patiently<T>(
        &self,
        work: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let (begun, left) = (tokio::time::Instant::now(), *lock(&self.patience));
        let done = timeout(left, work).await;
        let mut patience = lock(&self.patience);
        *patience = patience.saturating_sub(begun.elapsed());
        done.unwrap_or_else(|_| {
            let most = (self.pace.window * DOCUMENT_WINDOWS).as_secs_f32();
            let what = format!("its documents in more than {most} s");
            Err(FetchError::Slow(self.url(), what))
        })
    }

    /// Waits for room for a document of so many bytes.
    pub async fn room(&self, length: u64) -> Permit {
        let permits = usize::try_from(length.div_ceil(DOCUMENT_UNIT)).unwrap_or(usize::MAX);
        self.documents.take_many(self.host(), permits).await
    }

    /// A successful answer. A refused request is sent once more with what the refusal asks for.
    async fn get(&self, path: &str) -> Result<Response, FetchError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        let first = self.send(&url).await?;
        // Where a redirection leads, nobody is told who asks.
        if first.status() != StatusCode::UNAUTHORIZED || !same_place(&url, first.url()) {
            return self.judge(first).await;
        }
        let Self { http, endpoint, .. } = self;
        let header = authorize(http, endpoint, &first, &self.repository, self.pace).await?;
        *lock(&self.authorization) = Some(header);
        let second = self.send(&url).await?;
        self.judge(second).await
    }

    async fn send(&self, url: &Url) -> Result<Response, FetchError> {
        let accepted = manifest::ACCEPTED.join(", ");
        let header = lock(&self.authorization).clone();
        let request = self.http.get(url, Some(&accepted), header.as_ref());
        let answer = timeout(self.pace.window, request).await;
        let seconds = self.pace.window.as_secs_f32();
        answer
            .map_err(|_| FetchError::Slow(self.url(), format!("no answer in {seconds} s")))?
            .map_err(|error| error.at(self.url()))
    }

    async fn judge(&self, answer: Response) -> Result<Response, FetchError> {
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer);
        }
        match status {
            StatusCode::NOT_FOUND => return Err(FetchError::NotFound(self.url())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(FetchError::Unauthorized(self.url()));
            }
            _ => {}
        }
        let body = Body::new(answer, self.url(), self.pace).whole(LARGEST_ERROR);
        let body = timeout(self.pace.window, body).await;
        let said = body.ok().and_then(Result::ok).unwrap_or_default();
        let message = format!("{status} {}", saying(&said));
        Err(FetchError::Other(self.url(), message.trim().to_owned()))
    }

    fn lie(&self, actual: &str, wanted: &str) -> FetchError {
        FetchError::Digest(self.url(), format!("{actual} instead of {wanted}"))
    }
}

/// Whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a registry says of an error (OCI's distribution specification, section "Error codes"), in one short line.
fn saying(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => {
            let words = errors.iter().map(|e| format!("{} {}", e.code, e.message));
            words.collect::<Vec<_>>().join(", ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(LONGEST_SAYING).collect()
}

/// An error and its causes; the last one is what helps ("Connection refused").
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod faults;
