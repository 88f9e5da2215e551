//! Against clients that keep a connection busy with nothing: few at a time from one address, and a beginning with a deadline.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Sleep, sleep},
};

/// What a client of HTTP/2 says first. From then on pings find out whether it lives.
const PREFACE: usize = 24;

/// How many there are of something from each address, at most so many. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Addresses {
    limit: usize,
    turns: usize,
    counts: Arc<Mutex<HashMap<IpAddr, Count>>>,
}

/// How many there are from one address, and the turns that they share.
#[derive(Debug)]
struct Count {
    count: usize,
    turns: Arc<Semaphore>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Address {
    addresses: Addresses,
    address: IpAddr,
    turns: Arc<Semaphore>,
}

impl Addresses {
    /// None yet; each may have its turn at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self::with_turns(limit, limit)
    }

    /// None yet; those from one address share so many turns.
    #[must_use]
    pub fn with_turns(limit: usize, turns: usize) -> Self {
        Self {
            limit,
            turns,
            counts: Arc::default(),
        }
    }

    /// One more from this address; absent when there are as many as there may be.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Option<Address> {
        let mut counts = self.lock();
        let there = counts.entry(address).or_insert_with(|| Count {
            count: 0,
            turns: Arc::new(Semaphore::new(self.turns)),
        });
        if there.count >= self.limit {
            return None;
        }
        there.count += 1;
        Some(Address {
            addresses: self.clone(),
            address,
            turns: there.turns.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Address {
    /// The turns of all from this address.
    #[must_use]
    pub fn turns(&self) -> &Arc<Semaphore> {
        &self.turns
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let mut counts = self.addresses.lock();
        if let Some(there) = counts.get_mut(&self.address) {
            there.count -= 1;
            if there.count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// The beginning of a connection: the preface has to arrive in time.
#[derive(Debug)]
pub struct Beginning {
    missing: usize,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Beginning {
    /// Begins now.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            missing: PREFACE,
            deadline: Some(Box::pin(sleep(limit))),
        }
    }

    /// So many bytes were read. Answers whether the connection may go on; when it waits, it is woken at its deadline.
    pub fn poll(&mut self, cx: &mut Context<'_>, read: usize) -> bool {
        self.missing = self.missing.saturating_sub(read);
        if self.missing == 0 {
            self.deadline = None;
        }
        match &mut self.deadline {
            None => true,
            Some(deadline) => deadline.as_mut().poll(cx) == Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_fn;

    use super::*;

    #[test]
    fn an_address_has_so_many_and_others_theirs() {
        let addresses = Addresses::new(2);
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let held = [addresses.enter(one), addresses.enter(one)];
        assert!(held.iter().all(Option::is_some));
        assert!(addresses.enter(one).is_none());
        assert!(addresses.enter(other).is_some());
        drop(held);
        assert!(addresses.enter(one).is_some());
        assert!(addresses.lock().is_empty(), "nobody is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_at_the_deadline_and_a_client_does_not() {
        let limit = Duration::from_secs(10);
        let (mut trickle, mut client) = (Beginning::new(limit), Beginning::new(limit));
        assert!(poll_fn(|cx| Poll::Ready(client.poll(cx, PREFACE))).await);
        assert!(poll_fn(|cx| Poll::Ready(trickle.poll(cx, 1))).await);
        sleep(limit * 2).await;
        assert!(poll_fn(|cx| Poll::Ready(client.poll(cx, 0))).await);
        assert!(!poll_fn(|cx| Poll::Ready(trickle.poll(cx, 1))).await);
    }
}
