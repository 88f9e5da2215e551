//! Room for the proposals of clients: less than all of it, so that the cluster's own work goes on, and less than that for each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How clients' proposals begin: those of managers, agents and the leader's loops do not.
const CLIENTS: &str = "admin/";

/// Bytes of clients' proposals in flight.
#[derive(Debug)]
pub struct ClientRoom {
    all: usize,
    each: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    by_client: HashMap<Arc<str>, usize>,
}

/// A place in the room, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<ClientRoom>,
    client: Arc<str>,
    bytes: usize,
}

impl ClientRoom {
    /// Of a room of so many bytes, three quarters are for clients, and half of these for one.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            all: room / 4 * 3,
            each: room / 8 * 3,
            used: Mutex::default(),
        }
    }

    /// A place for a proposal; absent for callers that need none.
    ///
    /// # Errors
    /// There is no room at the moment.
    pub fn enter(self: &Arc<Self>, principal: &str, bytes: usize) -> Result<Option<Place>, NoRoom> {
        if !principal.starts_with(CLIENTS) {
            return Ok(None);
        }
        let mut used = self.lock();
        let known = used.by_client.get_key_value(principal);
        let (client, own) = match known {
            Some((client, own)) => (client.clone(), *own),
            None => (principal.into(), 0),
        };
        if own + bytes > self.each || used.all + bytes > self.all {
            return Err(NoRoom);
        }
        used.all += bytes;
        used.by_client.insert(client.clone(), own + bytes);
        Ok(Some(Place {
            room: self.clone(),
            client,
            bytes,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = self.room.lock();
        used.all -= self.bytes;
        if let Some(own) = used.by_client.get_mut(&self.client) {
            *own -= self.bytes;
            if *own == 0 {
                used.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_takes_the_room_of_others_nor_all_that_of_the_cluster() {
        let room = Arc::new(ClientRoom::new(80));
        let first = room.enter("admin/a", 30).unwrap();
        assert!(room.enter("admin/a", 1).is_err(), "its part");
        let second = room.enter("admin/b", 30).unwrap();
        assert!(room.enter("admin/c", 1).is_err(), "the clients' part");
        assert!(room.enter("controller/nodes", 1000).unwrap().is_none());
        drop(first);
        assert!(room.enter("admin/c", 30).is_ok());
        drop(second);
        assert!(room.lock().by_client.is_empty());
    }
}
