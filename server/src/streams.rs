//! How streams to clients end.

use futures::{Stream, StreamExt, stream::BoxStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::error::ApiError;

/// A stream that ends with UNAVAILABLE when this manager stops: its client goes on at another one, where a clean end would
/// tell it that there is no more.
pub fn until_stopped<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    stop: &CancellationToken,
) -> BoxStream<'static, Result<T, Status>> {
    let stopped = stop.clone();
    let end = futures::stream::once(async { Err(ApiError::Stopping.into()) })
        .filter(move |_| std::future::ready(stopped.is_cancelled()));
    stream
        .take_until(stop.clone().cancelled_owned())
        .chain(end)
        .boxed()
}

/// The stream, with something that is dropped at its end.
pub fn holding<T, H: Send + 'static>(
    held: H,
    stream: impl Stream<Item = T> + Send + 'static,
) -> impl Stream<Item = T> + Send + 'static {
    stream.inspect(move |_| {
        let _ = &held;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_no_clean_end() {
        let stop = CancellationToken::new();
        let one = || futures::stream::iter([Ok(1)]);
        let all: Vec<_> = until_stopped(one(), &stop).collect().await;
        assert!(matches!(all.as_slice(), [Ok(1)]));
        let endless = one().chain(futures::stream::pending());
        let mut stream = until_stopped(endless, &stop);
        assert!(matches!(stream.next().await, Some(Ok(1))));
        stop.cancel();
        let last = stream.next().await;
        assert!(matches!(last, Some(Err(status)) if status.code() == tonic::Code::Unavailable));
        assert!(stream.next().await.is_none());
    }
}
