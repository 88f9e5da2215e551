//! How long ago this manager last heard from a leader.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Takes note of every word of a leader. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Contact {
    begun: Instant,
    /// Milliseconds after `begun`.
    heard: Arc<AtomicU64>,
}

impl Default for Contact {
    /// Counts from now, as if a leader had been heard.
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            heard: Arc::default(),
        }
    }
}

impl Contact {
    /// A leader was heard now.
    pub fn heard(&self) {
        self.heard.fetch_max(self.age(), Ordering::Relaxed);
    }

    /// How long ago that was.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.age() - self.heard.load(Ordering::Relaxed).min(self.age()))
    }

    fn age(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_from_the_last_word() {
        let contact = Contact::default();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(contact.silence(), Duration::from_secs(3));
        contact.heard();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(contact.silence(), Duration::from_secs(1));
    }
}
