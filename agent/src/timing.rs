//! How long each step of a pod's start takes, for whoever asks with `BARGE_LOG=info,barge_agent::timing=debug`.

use tokio::time::Instant;

/// Does some work for a pod and logs how long it took. `about` is the pod's uid, or the id of one of its containers, which begins with it.
pub async fn timed<T>(about: &str, step: &'static str, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = work.await;
    took(about, step, begun);
    done
}

/// Logs how long a step took that began then.
pub fn took(about: &str, step: &'static str, begun: Instant) {
    let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(about, step, us, "step");
}
