//! Permits of which no registry gets all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of permits, and how many of them one registry may hold. When others hold all of them, a registry gets one
/// beyond their number: however many registries are slow, none of them stops another one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shares {
    all: Arc<Semaphore>,
    share: usize,
    /// Registries with a permit or waiting for one.
    registries: Arc<Mutex<HashMap<String, Weak<Registry>>>>,
}

#[derive(Debug)]
struct Registry {
    share: Arc<Semaphore>,
    /// The one beyond the number. It is enough for one request, of however many permits.
    beyond: Arc<Semaphore>,
}

/// Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _of_all: Option<OwnedSemaphorePermit>,
    _of_share: Option<OwnedSemaphorePermit>,
    /// On the registry's list as long as it is held.
    _registry: Arc<Registry>,
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
        let registry = self.registry(registry);
        // The semaphores are never closed, so an error cannot be.
        let share = Arc::clone(&registry.share);
        let of_share = share.acquire_many_owned(permits).await.ok();
        let (all, beyond) = (Arc::clone(&self.all), Arc::clone(&registry.beyond));
        let of_all = tokio::select! {
            biased;
            permit = all.acquire_many_owned(permits) => permit.ok(),
            permit = beyond.acquire_owned() => permit.ok(),
        };
        Permit {
            _of_all: of_all,
            _of_share: of_share,
            _registry: registry,
        }
    }

    /// A permit, if there is one at once.
    pub fn try_take(&self, registry: &str) -> Option<Permit> {
        self.take(registry).now_or_never()
    }

    fn registry(&self, registry: &str) -> Arc<Registry> {
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        let mut registries = self
            .registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = registries.get(registry).and_then(Weak::upgrade) {
            return known;
        }
        registries.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(Registry {
            share: Arc::new(Semaphore::new(self.share)),
            beyond: Arc::new(Semaphore::new(1)),
        });
        registries.insert(registry.to_owned(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test]
    async fn two_slow_registries_leave_one_for_a_third() {
        let shares = Shares::new(4, 2);
        let mut slow = Vec::new();
        for registry in ["a", "b"] {
            slow.push(shares.take_many(registry, 2).await);
        }
        let first = shares.take_many("c", 2).now_or_never();
        let first = first.expect("one beyond the total");
        let mut second = Box::pin(shares.take("c"));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        // The same one again.
        let second = second.as_mut().now_or_never().unwrap();
        let mut third = Box::pin(shares.take("c"));
        assert!(third.as_mut().now_or_never().is_none(), "only one");
        slow.clear();
        let third = third.as_mut().now_or_never().unwrap();
        drop((second, third));
    }

    #[tokio::test]
    async fn one_registry_leaves_some_for_the_others() {
        let shares = Shares::new(3, 2);
        let first = shares.take("a").await;
        let _second = shares.take("a").await;
        let mut third = Box::pin(shares.take("a"));
        assert!(third.as_mut().now_or_never().is_none());
        // "a" has two and wants a third; "b" is served all the same.
        let other = shares.take("b").now_or_never().unwrap();
        drop(first);
        let third = third.as_mut().now_or_never().unwrap();
        drop((third, other));
        assert_eq!(shares.registries.lock().unwrap().len(), 2);
        drop(_second);
        let _new = shares.take("c").await;
        assert_eq!(shares.registries.lock().unwrap().len(), 1);
    }
}
