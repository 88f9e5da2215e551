//! Reading documents without holding up the runtime's threads.

use bytes::Bytes;

/// Bytes of a document that is read at once, in well under a millisecond.
const SMALL: usize = 64 * 1024;

/// Reads a document: a large one on a thread of its own, because 4 MiB take tens of milliseconds.
pub async fn apart<T: Send + 'static>(
    bytes: Bytes,
    parse: impl FnOnce(&[u8]) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    if bytes.len() <= SMALL {
        return parse(&bytes);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&bytes)).await;
    parsed.unwrap_or_else(|_| Err("reading it ended unexpectedly".to_owned()))
}
