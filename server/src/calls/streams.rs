//! Ending streams to clients: when the manager stops, and when the client loses its right.

use std::time::Duration;

use futures::{Stream, StreamExt, stream::BoxStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
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

/// How long a stream goes on at most after its reader's right to it has ended.
const RECHECK: Duration = Duration::from_secs(5);

/// A stream that ends with a refusal when `check` does not hold any more: it is asked from time to time, and before every item
/// when it depends on bindings (`each`).
pub fn while_allowed<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    each: bool,
    check: impl Fn() -> Result<(), Status> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    // It was asked just now.
    let mut ticks = interval_at(Instant::now() + RECHECK, RECHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = Some((stream.boxed(), ticks, check));
    futures::stream::unfold(open, move |open| async move {
        let (mut stream, mut ticks, check) = open?;
        loop {
            let item = tokio::select! {
                item = stream.next() => Some(item?),
                _ = ticks.tick() => None,
            };
            if (each || item.is_none())
                && let Err(refused) = check()
            {
                return Some((Err(refused), None));
            }
            if let Some(item) = item {
                return Some((item, Some((stream, ticks, check))));
            }
        }
    })
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
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

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

    #[tokio::test(start_paused = true)]
    async fn a_right_that_ends_ends_the_stream() {
        for each in [true, false] {
            let allowed = Arc::new(AtomicBool::new(true));
            let asked = allowed.clone();
            let check = move || match asked.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err(Status::permission_denied("no more")),
            };
            let items = futures::stream::iter([Ok(1), Ok(2)]).chain(futures::stream::pending());
            let mut stream = pin!(while_allowed(items, each, check));
            assert!(matches!(stream.next().await, Some(Ok(1))));
            allowed.store(false, Ordering::Relaxed);
            // What depends on bindings shows nothing more; otherwise it ends in a while.
            let next = stream.next().await;
            assert_eq!(matches!(next, Some(Ok(2))), !each, "{next:?}");
            let last = if each { next } else { stream.next().await };
            assert!(matches!(last, Some(Err(_))), "{last:?}");
            assert!(stream.next().await.is_none());
        }
    }
}
