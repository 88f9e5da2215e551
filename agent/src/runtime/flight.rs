//! Work that is shared by all who ask for it at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Running work by key.
#[derive(Debug)]
pub struct Flights<V>(Arc<Mutex<Running<V>>>);

#[derive(Debug)]
struct Running<V> {
    by_key: HashMap<String, Entry<V>>,
    /// Tells a flight from a later one of its key.
    next: u64,
}

#[derive(Debug)]
struct Entry<V> {
    number: u64,
    landing: watch::Receiver<Option<V>>,
    /// Who would be disappointed by its end.
    waiting: usize,
    unwanted: CancellationToken,
}

impl<V> Default for Flights<V> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Running {
            by_key: HashMap::new(),
            next: 0,
        })))
    }
}

impl<V: Clone + Send + Sync + 'static> Flights<V> {
    /// Joins the work of this key, or begins it. It goes on when nobody waits any more. `None` when it panicked.
    pub async fn run<F>(&self, key: &str, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (landing, _) = self.join(key, |_| work());
        land(landing).await
    }

    /// Joins the work of this key, or begins it. Once nobody waits for it any more, its token is cancelled, and whoever
    /// asks next begins anew. `None` when it panicked.
    pub async fn run_while_wanted<F>(
        &self,
        key: &str,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (landing, number) = self.join(key, work);
        let _waiter = Waiter {
            key,
            number,
            all: &self.0,
        };
        land(landing).await
    }

    fn join<F>(
        &self,
        key: &str,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> (watch::Receiver<Option<V>>, u64)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = lock(&self.0);
        if let Some(entry) = running.by_key.get_mut(key) {
            entry.waiting += 1;
            return (entry.landing.clone(), entry.number);
        }
        let (sender, landing) = watch::channel(None);
        let unwanted = CancellationToken::new();
        let number = running.next;
        running.next += 1;
        let entry = Entry {
            number,
            landing: landing.clone(),
            waiting: 1,
            unwanted: unwanted.clone(),
        };
        running.by_key.insert(key.to_owned(), entry);
        let flight = Flight {
            key: key.to_owned(),
            number,
            all: Arc::clone(&self.0),
        };
        let work = work(unwanted);
        tokio::spawn(async move {
            let value = work.await;
            // Off the list first: whoever comes after the landing begins anew.
            drop(flight);
            sender.send_replace(Some(value));
        });
        (landing, number)
    }

    /// Waits for the work of this key, if there is any.
    pub async fn settled(&self, key: &str) {
        let landing = lock(&self.0).by_key.get(key).map(|e| e.landing.clone());
        if let Some(landing) = landing {
            land(landing).await;
        }
    }

    /// Keys of what is running.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.0).by_key.keys().cloned().collect()
    }
}

async fn land<V: Clone>(mut landing: watch::Receiver<Option<V>>) -> Option<V> {
    match landing.wait_for(Option::is_some).await {
        Ok(value) => value.clone(),
        Err(_) => None,
    }
}

/// On the list as long as it lives, also when the work panics.
struct Flight<V> {
    key: String,
    number: u64,
    all: Arc<Mutex<Running<V>>>,
}

impl<V> Drop for Flight<V> {
    fn drop(&mut self) {
        let mut running = lock(&self.all);
        if running.by_key.get(&self.key).map(|e| e.number) == Some(self.number) {
            running.by_key.remove(&self.key);
        }
    }
}

/// Somebody who waits, as long as it lives.
struct Waiter<'a, V> {
    key: &'a str,
    number: u64,
    all: &'a Mutex<Running<V>>,
}

impl<V> Drop for Waiter<'_, V> {
    fn drop(&mut self) {
        let mut running = lock(self.all);
        let entry = running.by_key.get_mut(self.key);
        let Some(entry) = entry.filter(|entry| entry.number == self.number) else {
            return;
        };
        entry.waiting -= 1;
        if entry.waiting == 0 {
            entry.unwanted.cancel();
            running.by_key.remove(self.key);
        }
    }
}

/// The map is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<V>(running: &Mutex<Running<V>>) -> MutexGuard<'_, Running<V>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn all_share_one_flight_and_the_next_begins_anew() {
        let flights = Flights::<usize>::default();
        let (count, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (count, gate) = (Arc::clone(&count), Arc::clone(&gate));
            flights.run("key", move || async move {
                gate.notified().await;
                count.fetch_add(1, Ordering::SeqCst)
            })
        };
        let open = async { gate.notify_one() };
        assert_eq!(
            tokio::join!(ask(), ask(), ask(), open),
            (Some(0), Some(0), Some(0), ())
        );
        gate.notify_one();
        assert_eq!(ask().await, Some(1));
        assert!(flights.keys().is_empty());
    }

    #[tokio::test]
    async fn goes_on_when_nobody_waits() {
        let flights = Flights::<()>::default();
        let (gate, done) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let work = {
            let (gate, done) = (Arc::clone(&gate), Arc::clone(&done));
            move || async move {
                gate.notified().await;
                done.store(1, Ordering::SeqCst);
            }
        };
        let asked = tokio::time::timeout(std::time::Duration::ZERO, flights.run("key", work));
        assert!(asked.await.is_err());
        gate.notify_one();
        flights.settled("key").await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn ends_with_the_last_who_wants_it_and_begins_anew() {
        let flights = Flights::<&str>::default();
        let gate = Arc::new(Notify::new());
        let ask = || {
            let gate = Arc::clone(&gate);
            flights.run_while_wanted("key", |unwanted| async move {
                tokio::select! {
                    () = unwanted.cancelled() => {
                        // It takes its time to tidy up.
                        gate.notified().await;
                        "unwanted"
                    }
                    () = gate.notified() => "done",
                }
            })
        };
        let mut one = Box::pin(ask());
        let mut two = Box::pin(ask());
        assert!(futures::poll!(one.as_mut()).is_pending());
        assert!(futures::poll!(two.as_mut()).is_pending());
        drop(one);
        assert_eq!(flights.keys(), ["key"], "one still wants it");
        drop(two);
        assert!(flights.keys().is_empty());
        // The old one still tidies up; the new one is not mixed up with it.
        let mut three = Box::pin(ask());
        assert!(futures::poll!(three.as_mut()).is_pending());
        tokio::task::yield_now().await;
        gate.notify_waiters();
        assert_eq!(three.await, Some("done"));
        assert!(flights.keys().is_empty());
    }

    #[tokio::test]
    async fn a_panic_strands_nobody() {
        let flights = Flights::<()>::default();
        assert_eq!(
            flights.run("key", || async { panic!("on purpose") }).await,
            None
        );
        assert_eq!(flights.run("key", || async {}).await, Some(()));
    }
}
