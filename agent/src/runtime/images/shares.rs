//! Permits of which no registry gets all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of permits, and how many of them one registry may hold. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shares {
    all: Arc<Semaphore>,
    share: usize,
    /// Registries with a permit or waiting for one.
    registries: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

/// Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _of_all: Option<OwnedSemaphorePermit>,
    _of_share: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// `all` permits, at most `share` for one registry.
    pub fn new(all: usize, share: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all.max(1))),
            share: share.clamp(1, all.max(1)),
            registries: Arc::default(),
        }
    }

    /// Waits for a permit. Who waits for the registry's share is in no other registry's way.
    pub async fn take(&self, registry: &str) -> Permit {
        self.take_many(registry, 1).await
    }

    /// Waits for several permits at once, but for no more than a registry's share.
    pub async fn take_many(&self, registry: &str, permits: usize) -> Permit {
        let permits = permits.clamp(1, self.share);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let share = self.share_of(registry);
        // The semaphores are never closed, so an error cannot be.
        let of_share = share.acquire_many_owned(permits).await.ok();
        let all = Arc::clone(&self.all);
        let of_all = all.acquire_many_owned(permits).await.ok();
        Permit {
            _of_all: of_all,
            _of_share: of_share,
        }
    }

    fn share_of(&self, registry: &str) -> Arc<Semaphore> {
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        let mut registries = self
            .registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = registries.get(registry).and_then(Weak::upgrade) {
            return share;
        }
        registries.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        registries.insert(registry.to_owned(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_registry_leaves_some_for_the_others() {
        let shares = Shares::new(3, 2);
        let first = shares.take("a").await;
        let _second = shares.take("a").await;
        let mut third = Box::pin(shares.take("a"));
        assert!(third.as_mut().now_or_never().is_none());
        // "a" has two and wants a third; "b" is served all the same.
        let other = shares.take("b").now_or_never().unwrap();
        let mut more = Box::pin(shares.take("b"));
        assert!(more.as_mut().now_or_never().is_none());
        drop(other);
        let other = more.as_mut().now_or_never().unwrap();
        drop(first);
        let third = third.as_mut().now_or_never().unwrap();
        drop((third, other));
        assert_eq!(shares.registries.lock().unwrap().len(), 2);
        drop(_second);
        let _new = shares.take("c").await;
        assert_eq!(shares.registries.lock().unwrap().len(), 1);
    }
}
