//! Records by namespace and name: hashed to look one up, in a tree to list them.
//!
//! A search in the tree touches a record on each level, and these are scattered over the memory. So lookups are hashed. The
//! tree's entries hold the beginning of the name, so most comparisons need no record.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::Hashed;
use crate::kept::Kept;

/// The records of one kind by namespace and name.
#[derive(Debug)]
pub struct Names<K> {
    hashed: Hashed<K>,
    /// By namespace.
    ordered: BTreeMap<String, BTreeSet<ByName<K>>>,
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Names {
            hashed: Hashed::default(),
            ordered: BTreeMap::new(),
        }
    }
}

impl<K: Kept> Names<K> {
    /// Puts a record in the place of the one of its name.
    pub fn insert(&mut self, record: &Arc<K>) {
        let key = full_name(&**record);
        self.hashed
            .replace(key, |k| full_name(k) == key, record.clone());
        let named = ByName {
            beginning: beginning(record.name()),
            record: record.clone(),
        };
        match self.ordered.get_mut(record.namespace()) {
            Some(names) => {
                names.replace(named);
            }
            None => {
                let names = BTreeSet::from([named]);
                self.ordered.insert(record.namespace().to_owned(), names);
            }
        }
    }

    /// Removes the record of this one's name.
    pub fn remove(&mut self, record: &Arc<K>) {
        let key = full_name(&**record);
        self.hashed.remove(key, |k| full_name(k) == key);
        if let Some(names) = self.ordered.get_mut(record.namespace()) {
            let name: &dyn Name = &record.name();
            names.remove(name);
            if names.is_empty() {
                self.ordered.remove(record.namespace());
            }
        }
    }

    /// The record of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        let key = (namespace, name);
        self.hashed.get(key, |k| full_name(k) == key)
    }

    /// How many records a namespace has.
    pub fn count(&self, namespace: &str) -> usize {
        self.ordered.get(namespace).map_or(0, BTreeSet::len)
    }

    /// Of [`Names::list`], those whose names begin with `prefix`. In each namespace it begins with the first of them.
    pub fn list_prefixed(
        &self,
        prefix: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &Arc<K>> + use<'_, K> {
        let after = after.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let first = namespace.or(after.as_ref().map(|(namespace, _)| namespace.as_str()));
        let first = first.map_or(Bound::Unbounded, Bound::Included);
        let last = namespace.map_or(Bound::Unbounded, Bound::Included);
        let groups = self.ordered.range::<str, _>((first, last));
        let prefix = prefix.to_owned();
        groups.flat_map(move |(namespace, names)| {
            let past = match &after {
                Some((past, name)) if namespace == past && *name >= prefix => Some(name.as_str()),
                _ => None,
            };
            let from: &dyn Name = &past.unwrap_or(&prefix);
            let names = names.range::<dyn Name, _>((Bound::Excluded(from), Bound::Unbounded));
            let is_past = matches!(&after, Some((past, _)) if namespace < past);
            let prefix = prefix.clone();
            let all = names.map(|entry| &entry.record);
            all.take_while(move |record| !is_past && record.name().starts_with(&prefix))
        })
    }

    /// Records by namespace and name: those of one namespace or of all, after a position.
    pub fn list(
        &self,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &Arc<K>> + use<'_, K> {
        let after = after.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let first = match (namespace, &after) {
            (Some(namespace), _) => Bound::Included(namespace),
            (None, Some((namespace, _))) => Bound::Included(namespace.as_str()),
            (None, None) => Bound::Unbounded,
        };
        let last = namespace.map_or(Bound::Unbounded, Bound::Included);
        let groups = self.ordered.range::<str, _>((first, last));
        groups.flat_map(move |(namespace, names)| {
            let names = match &after {
                Some((past, _)) if namespace < past => None,
                Some((past, name)) if namespace == past => {
                    let name: &dyn Name = &name.as_str();
                    let rest = (Bound::Excluded(name), Bound::Unbounded);
                    Some(names.range::<dyn Name, _>(rest))
                }
                _ => Some(names.range::<dyn Name, _>(..)),
            };
            names.into_iter().flatten().map(|entry| &entry.record)
        })
    }
}

fn full_name<K: Kept>(record: &K) -> (&str, &str) {
    (record.namespace(), record.name())
}

/// Compared by name, within one namespace.
#[derive(Debug)]
struct ByName<K> {
    beginning: [u64; 2],
    record: Arc<K>,
}

/// The first bytes of a name, as numbers in their order. Shorter ones end with zeros, which names do not have.
fn beginning(name: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    let length = name.len().min(bytes.len());
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    let whole = u128::from_be_bytes(bytes);
    [(whole >> 64) as u64, whole as u64]
}

/// A name, to look for where it would be.
trait Name {
    fn beginning(&self) -> [u64; 2];
    fn name(&self) -> &str;
}

impl<K: Kept> Name for ByName<K> {
    fn beginning(&self) -> [u64; 2] {
        self.beginning
    }

    fn name(&self) -> &str {
        self.record.name()
    }
}

impl Name for &str {
    fn beginning(&self) -> [u64; 2] {
        beginning(self)
    }

    fn name(&self) -> &str {
        self
    }
}

fn compare<A: Name + ?Sized, B: Name + ?Sized>(a: &A, b: &B) -> Ordering {
    let beginnings = a.beginning().cmp(&b.beginning());
    beginnings.then_with(|| a.name().cmp(b.name()))
}

macro_rules! compare_by_name {
    ([$($generic:tt)*] $name:ty) => {
        impl $($generic)* PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                compare(self, other).is_eq()
            }
        }

        impl $($generic)* Eq for $name {}

        impl $($generic)* PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $($generic)* Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                compare(self, other)
            }
        }
    };
}
compare_by_name!([<K: Kept>] ByName<K>);
compare_by_name!([] dyn Name + '_);

impl<'a, K: Kept> Borrow<dyn Name + 'a> for ByName<K> {
    fn borrow(&self) -> &(dyn Name + 'a) {
        self
    }
}
