//! Work that is shared by all who ask for it at the same time, and not cancelled when they stop asking.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// Running work by key.
#[derive(Debug)]
pub struct Flights<V>(Arc<Mutex<Running<V>>>);

type Running<V> = HashMap<String, watch::Receiver<Option<V>>>;

impl<V> Default for Flights<V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<V: Clone + Send + Sync + 'static> Flights<V> {
    /// Joins the work of this key, or begins it. `None` when it panicked.
    pub async fn run<F>(&self, key: &str, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let landing = {
            let mut running = lock(&self.0);
            match running.get(key) {
                Some(landing) => landing.clone(),
                None => {
                    let (sender, landing) = watch::channel(None);
                    running.insert(key.to_owned(), landing.clone());
                    let flight = Flight {
                        key: key.to_owned(),
                        all: Arc::clone(&self.0),
                    };
                    let work = work();
                    tokio::spawn(async move {
                        let value = work.await;
                        // Off the list first: whoever comes after the landing begins anew.
                        drop(flight);
                        sender.send_replace(Some(value));
                    });
                    landing
                }
            }
        };
        land(landing).await
    }

    /// Waits for the work of this key, if there is any.
    pub async fn settled(&self, key: &str) {
        let landing = lock(&self.0).get(key).cloned();
        if let Some(landing) = landing {
            land(landing).await;
        }
    }

    /// Keys of what is running.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
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
    all: Arc<Mutex<Running<V>>>,
}

impl<V> Drop for Flight<V> {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.key);
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
    async fn a_panic_strands_nobody() {
        let flights = Flights::<()>::default();
        assert_eq!(
            flights.run("key", || async { panic!("on purpose") }).await,
            None
        );
        assert_eq!(flights.run("key", || async {}).await, Some(()));
    }
}
