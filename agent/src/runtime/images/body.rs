//! What a registry sends, as it arrives: counted, and cut off when it is too long or too slow.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use reqwest::Response;
use tokio::time::{Instant, timeout};

use super::registry::{FetchError, chain};

/// What a registry has to send at least to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes …
    pub bytes: u64,
    /// … in this time, of which only waiting for the registry counts.
    pub window: Duration,
}

/// The rest of an answer.
pub struct Body {
    response: Response,
    url: String,
    pace: Pace,
    /// Waited for the registry in this window.
    waited: Duration,
    /// Came in this window.
    came: u64,
    total: u64,
}

impl Body {
    /// The body of an answer from this registry.
    pub fn new(response: Response, url: String, pace: Pace) -> Self {
        Self {
            response,
            url,
            pace,
            waited: Duration::ZERO,
            came: 0,
            total: 0,
        }
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let begun = Instant::now();
        let left = self.pace.window.saturating_sub(self.waited);
        let chunk = match timeout(left, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| {
                FetchError::Unreachable(self.url.clone(), chain(&error.without_url()))
            })?,
            Err(_) => return Err(self.too_slow()),
        };
        self.waited += begun.elapsed();
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        self.came += length;
        self.total += length;
        if self.came >= self.pace.bytes {
            (self.came, self.waited) = (0, Duration::ZERO);
        } else if self.waited >= self.pace.window {
            return Err(self.too_slow());
        }
        Ok(chunk)
    }

    fn too_slow(&self) -> FetchError {
        let (came, seconds) = (self.came, self.pace.window.as_secs_f32());
        FetchError::Slow(
            self.url.clone(),
            format!("{came} bytes in {seconds} s, {} in all", self.total),
        )
    }

    /// Its length as the registry says it, `limit` when it does not; an error when that is more than `limit` bytes.
    pub fn length(&self, limit: u64) -> Result<u64, FetchError> {
        match self.response.content_length() {
            Some(length) if length > limit => Err(self.too_long(limit)),
            length => Ok(length.unwrap_or(limit)),
        }
    }

    /// All of it, unless it is longer than `limit` bytes.
    pub async fn whole(mut self, limit: u64) -> Result<Bytes, FetchError> {
        // Once and for all: a buffer that grows is there twice while it does. Untouched pages cost nothing.
        let expected = usize::try_from(self.length(limit)?).unwrap_or(0);
        let mut whole = BytesMut::with_capacity(expected);
        while let Some(chunk) = self.next().await? {
            if self.total > limit {
                return Err(self.too_long(limit));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Exactly `size` bytes, piece by piece; the last item is an error when they are others.
    pub fn exactly(self, size: u64) -> impl Stream<Item = Result<Bytes, FetchError>> + Send {
        stream::try_unfold(self, move |mut body| async move {
            match body.next().await? {
                Some(_) if body.total > size => Err(body.too_long(size)),
                Some(chunk) => Ok(Some((chunk, body))),
                None if body.total < size => Err(FetchError::Other(
                    body.url,
                    format!("{} bytes instead of {size}", body.total),
                )),
                None => Ok(None),
            }
        })
    }

    fn too_long(&self, limit: u64) -> FetchError {
        FetchError::TooLong(self.url.clone(), limit)
    }
}
