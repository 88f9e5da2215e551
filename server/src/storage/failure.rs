//! The one way in which storage tells the process that it cannot go on.

use std::sync::Arc;

use tokio::sync::watch;

/// The first fatal error of this manager. After it nothing more is acknowledged; the process should say why and exit,
/// so that its supervisor starts it afresh.
#[derive(Debug, Clone)]
pub struct Failure(watch::Sender<Option<Arc<str>>>);

impl Default for Failure {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Failure {
    /// Records why; later reasons are consequences of the first and only logged.
    pub fn report(&self, reason: &str) {
        tracing::error!(reason, "storage failed");
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(reason.into());
            }
            is_first
        });
    }

    /// The reason, if there is one.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    /// Waits for a failure, for ever if there is none.
    pub async fn wait(&self) -> Arc<str> {
        let mut receiver = self.0.subscribe();
        // The sender is held by self, so the channel cannot close while waiting.
        let reason = receiver
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|r| r.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_first_reason() {
        let failure = Failure::default();
        assert_eq!(failure.reason(), None);
        failure.report("disk gone");
        failure.report("log stopped");
        assert_eq!(&*failure.wait().await, "disk gone");
    }
}
