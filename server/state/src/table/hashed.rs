//! Records by a unique key, hashed. The table offers lookups only: iteration in hash order could differ between
//! managers.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

/// A table of records. Each stands beside the hash of its key, so that a table that grows does not look for the keys in the
/// records, which are all over the memory: nothing is applied meanwhile.
#[derive(Debug)]
pub struct Hashed<K> {
    records: HashTable<(u64, Arc<K>)>,
    /// Seeded anew in each process, so that no client can choose keys that collide.
    hasher: RandomState,
}

impl<K> Default for Hashed<K> {
    fn default() -> Self {
        Hashed {
            records: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl<K> Hashed<K> {
    /// The record of this key. `has` says whether a record has it.
    pub fn get(&self, key: impl Hash, has: impl Fn(&K) -> bool) -> Option<&Arc<K>> {
        let hash = self.hasher.hash_one(key);
        let found = self.records.find(hash, is(hash, has));
        found.map(|(_, record)| record)
    }

    /// Puts a record in the place of the one of its key.
    pub fn replace(&mut self, key: impl Hash, has: impl Fn(&K) -> bool, record: Arc<K>) {
        let hash = self.hasher.hash_one(key);
        match self.records.entry(hash, is(hash, has), |(hash, _)| *hash) {
            Entry::Occupied(mut entry) => entry.get_mut().1 = record,
            Entry::Vacant(entry) => {
                entry.insert((hash, record));
            }
        }
    }

    /// Removes the record of this key.
    pub fn remove(&mut self, key: impl Hash, has: impl Fn(&K) -> bool) {
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.records.find_entry(hash, is(hash, has)) {
            entry.remove();
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }
}

/// Hardly any record is looked at that is not the one.
fn is<K>(hash: u64, has: impl Fn(&K) -> bool) -> impl Fn(&(u64, Arc<K>)) -> bool {
    move |(known, record)| *known == hash && has(record)
}
