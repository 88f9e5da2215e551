//! Hooks of containers: what is done after a start and before an end.

use std::time::Duration;

use barge_proto::v1::{Container, LifecycleHandler, Pod};
use tokio::time::{Instant, sleep, timeout_at};

use super::hands::Hands;
use crate::{
    events::{Severity, pod_reference},
    pods::{
        memory::{LEAST_GRACE, LONGEST_GRACE},
        spec,
    },
    probes::{attempt, target},
    runtime::RuntimeError,
};

/// How long a pod that was deleted may go on serving while nodes take it out of their rules. A node that is slow, silent or of an older version costs each pod this much at most.
const DEPARTURE: Duration = Duration::from_secs(2);

/// Kubernetes does not bound the hook after a start. Nobody waits as long.
const POST_START: Duration = Duration::from_secs(24 * 3600);

/// The hook after a container's start.
pub fn post_start(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref()?.post_start.as_ref()
}

fn pre_stop(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref()?.pre_stop.as_ref()
}

impl Hands {
    /// Does what is to be done after a container's start. When that fails the container is stopped; it starts again as its policy says.
    pub(super) async fn after_start(&self, pod: &Pod, container: &Container, id: &str) {
        let Some(hook) = post_start(container) else {
            return;
        };
        let done = self.run_hook(container, hook, id, POST_START);
        // Whoever ends the pod stops the container.
        let done = self.ended.run_until_cancelled(self.while_wanted(done));
        let Some(Some(Err(why))) = done.await else {
            return;
        };
        let message = format!("PostStartHook failed: {why}. The container is stopped");
        self.tell(pod, "FailedPostStartHook", &message);
        let stopped = self.stop_container(Some(pod), Some(container), id, spec::grace(Some(pod)));
        if let Some(Err(error)) = self.stop.run_until_cancelled(stopped).await {
            let message = format!("The container runs on: {}", error.message);
            self.tell(pod, "FailedKillPod", &message);
        }
    }

    /// Stops a container, after what is to be done before its end and when no node sends the pod new connections any more: the one runs while the other is waited for, and
    /// all of it together takes the grace. A shorter grace that is asked for meanwhile takes effect at once.
    pub(super) async fn stop_container(
        &self,
        pod: Option<&Pod>,
        container: Option<&Container>,
        id: &str,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let begun = Instant::now();
        // A probe's own is not bounded yet.
        let mut grace = grace.min(LONGEST_GRACE);
        let hook = container.and_then(pre_stop).filter(|_| !grace.is_zero());
        let hook = pod.zip(container).zip(hook);
        let hooked = async {
            match hook {
                Some(((pod, container), hook)) => {
                    self.before_end(pod, container, hook, id, grace).await
                }
                None => grace,
            }
        };
        let (waited, shorter) = tokio::join!(self.until_left(grace), hooked);
        grace = shorter;
        loop {
            let passed = match hook {
                Some(_) => begun.elapsed(),
                None => waited,
            };
            // However long that took, or this process stood still: nothing that has a grace ends without TERM.
            let left = grace.saturating_sub(passed).max(LEAST_GRACE.min(grace));
            tokio::select! {
                result = self.shared.runtime.stop_container(id, left) => return result,
                shorter = self.shorter(grace) => grace = shorter,
            }
        }
    }

    /// Does what is to be done before a container's end; answers the grace, which may have become shorter meanwhile.
    async fn before_end(
        &self,
        pod: &Pod,
        container: &Container,
        hook: &LifecycleHandler,
        id: &str,
        mut grace: Duration,
    ) -> Duration {
        let begun = Instant::now();
        let mut done = std::pin::pin!(self.run_hook(container, hook, id, grace));
        let failed = loop {
            tokio::select! {
                done = timeout_at(begun + grace, &mut done) => match done {
                    Ok(done) => break done.err(),
                    Err(_) => break Some("it did not end within the grace".to_owned()),
                },
                shorter = self.shorter(grace) => grace = shorter,
            }
        };
        if let Some(why) = failed {
            let message = format!("PreStopHook failed: {why}");
            self.tell(pod, "FailedPreStopHook", &message);
        }
        grace
    }

    /// Waits until no node sends a pod that was deleted new connections: for [`DEPARTURE`] since its end began at most, for what the grace has beyond [`LEAST_GRACE`], and until a shorter
    /// grace is asked for. Answers how long. Of an end that an earlier agent may have begun nothing is waited for: agents that die one after the other would never send TERM.
    async fn until_left(&self, grace: Duration) -> Duration {
        let is_deleted = {
            let wanted = self.wanted.borrow();
            wanted.deleted || wanted.pod.as_deref().is_none_or(spec::is_ending)
        };
        if !is_deleted {
            return Duration::ZERO;
        }
        let now_ms = self.shared.clock.now_ms();
        let Some(since_ms) = self.ending_ms else {
            return Duration::ZERO;
        };
        let since = u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0);
        let rest = DEPARTURE.saturating_sub(Duration::from_millis(since));
        let most = rest.min(grace.saturating_sub(LEAST_GRACE));
        let begun = Instant::now();
        tokio::select! {
            biased;
            () = self.shared.departures.left(&self.uid) => {}
            _ = self.shorter(grace) => {}
            () = sleep(most) => {}
        }
        begun.elapsed()
    }

    /// Waits until the pod is to end within less than this grace, and answers within which.
    async fn shorter(&self, grace: Duration) -> Duration {
        let mut wanted = self.wanted.clone();
        let shorter = wanted.wait_for(|wanted| {
            let pod = wanted.pod.as_deref();
            pod.is_some_and(|pod| spec::is_ending(pod) && spec::grace(Some(pod)) < grace)
        });
        let shorter = shorter.await.ok();
        let shorter = shorter.map(|wanted| spec::grace(wanted.pod.as_deref()));
        match shorter {
            Some(shorter) => shorter,
            None => std::future::pending().await,
        }
    }

    async fn run_hook(
        &self,
        container: &Container,
        hook: &LifecycleHandler,
        id: &str,
        within: Duration,
    ) -> Result<(), String> {
        if let Some(pause) = &hook.sleep {
            sleep(Duration::from_secs(
                u64::try_from(pause.seconds).unwrap_or(0),
            ))
            .await;
            return Ok(());
        }
        if let Some(get) = &hook.http_get {
            let target = target::http(container, get, self.ips.first().copied())?;
            // Boxed: most containers have no hook, and all of their steps would be as large.
            return Box::pin(attempt::reach(&target, within)).await;
        }
        let command = hook.exec.as_ref().map(|exec| exec.command.as_slice());
        let command = command.ok_or("it does not say what to do")?;
        Box::pin(attempt::run(
            self.shared.runtime.as_ref(),
            id,
            command,
            within,
        ))
        .await
    }

    fn tell(&self, pod: &Pod, reason: &str, message: &str) {
        let recorder = &self.shared.recorder;
        recorder.record(pod_reference(pod), Severity::Warning, reason, message);
    }
}
