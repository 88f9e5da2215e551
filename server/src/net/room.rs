//! The room for clients that the manager waits for: their ClientHello has not come, or they stalled later in the handshake. No client waits
//! for a place in it: when it is full, the manager closes the connection that has been in it for longest.
//!
//! A silent client stays until others need the place. A client whose ClientHello has come leaves the room, and is not
//! pushed out any more (`turns`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// No client is pushed out sooner after coming in: the ClientHello of an honest client may have arrived and not be read yet. So a flood of silent
/// clients holds, beside the room, those that came in the last 100 ms.
const PROMPT: Duration = Duration::from_millis(100);

/// A room with places for so many, and for so many from one address. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room {
    all: usize,
    from_one_address: usize,
    guests: Arc<Mutex<Guests>>,
}

/// By their numbers, which are given in the order in which they come.
#[derive(Debug, Default)]
struct Guests {
    next: u64,
    all: BTreeMap<u64, (IpAddr, CancellationToken)>,
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
}

/// A place in the room, until it is dropped or another guest needs it.
#[derive(Debug)]
pub struct Place {
    room: Room,
    number: u64,
    since: Instant,
    pushed_out: CancellationToken,
}

impl Room {
    /// An empty room.
    #[must_use]
    pub fn new(all: usize, from_one_address: usize) -> Self {
        Self {
            all,
            from_one_address,
            guests: Arc::default(),
        }
    }

    /// Takes a place. The oldest guest from this address is pushed out when there are as many from there as there may be, the
    /// oldest of all when the room is full.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Place {
        let mut guests = self.lock();
        let from_there = guests.by_address.get(&address);
        let oldest = from_there
            .filter(|numbers| numbers.len() >= self.from_one_address)
            .and_then(|numbers| numbers.first().copied());
        let full = guests.all.len() >= self.all;
        let oldest = oldest.or_else(|| guests.all.keys().next().copied().filter(|_| full));
        if let Some(pushed_out) = oldest.and_then(|number| guests.remove(number)) {
            pushed_out.cancel();
        }
        let number = guests.next;
        guests.next += 1;
        let pushed_out = CancellationToken::new();
        guests.all.insert(number, (address, pushed_out.clone()));
        guests.by_address.entry(address).or_default().insert(number);
        Place {
            room: self.clone(),
            number,
            since: Instant::now(),
            pushed_out,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    fn remove(&mut self, number: u64) -> Option<CancellationToken> {
        let (address, pushed_out) = self.all.remove(&number)?;
        if let Some(numbers) = self.by_address.get_mut(&address) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(pushed_out)
    }
}

impl Place {
    /// What a step of the guest's gives.
    ///
    /// # Errors
    /// Those of the step; and that the guest is pushed out before it is done.
    pub async fn unless_pushed_out<T>(
        &self,
        step: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let pushed_out = async {
            self.pushed_out.cancelled().await;
            sleep_until(self.since + PROMPT).await;
        };
        tokio::select! {
            biased;
            done = step => done,
            () = pushed_out => Err(io::Error::other("it says nothing, and others need its place")),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_same_address_goes_first_and_then_the_oldest_of_all() {
        let room = Room::new(3, 2);
        let (one, other, third) = (
            [192, 0, 2, 1].into(),
            [192, 0, 2, 2].into(),
            [192, 0, 2, 3].into(),
        );
        let mut places: Vec<_> = [other, one, one, one, third]
            .map(|address| room.enter(address))
            .into();
        let gone = |places: &[Place]| -> Vec<bool> {
            let gone = |place: &Place| place.pushed_out.is_cancelled();
            places.iter().map(gone).collect()
        };
        assert_eq!(gone(&places), [true, true, false, false, false]);
        places.remove(2);
        places.push(room.enter(other));
        assert_eq!(gone(&places), [true, true, false, false, false]);
        drop(places);
        let guests = room.lock();
        assert!(guests.all.is_empty() && guests.by_address.is_empty());
    }
}
