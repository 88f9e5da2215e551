//! The records of one kind, by uid, by name and by owner.
//!
//! The sets hold the records themselves, compared by the key in them, and no copy of the key. Most lookups are by uid, so these are
//! hashed; nothing depends on the order of a hash.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

mod hashed;
mod names;

use self::{hashed::Hashed, names::Names};
use crate::kept::Kept;

/// A record that is compared by its uid.
#[derive(Debug)]
pub struct ByUid<K>(pub Arc<K>);

impl<K: Kept> Borrow<str> for ByUid<K> {
    fn borrow(&self) -> &str {
        self.0.uid()
    }
}

impl<K: Kept> PartialEq for ByUid<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid() == other.0.uid()
    }
}

impl<K: Kept> Eq for ByUid<K> {}

impl<K: Kept> PartialOrd for ByUid<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Kept> Ord for ByUid<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.uid().cmp(other.0.uid())
    }
}

/// Records by a key that several of them share; each group is ordered by uid.
#[derive(Debug)]
pub struct Index<K>(BTreeMap<String, BTreeSet<ByUid<K>>>);

impl<K: Kept> Index<K> {
    /// Puts `record` under `key`, in the place of the record with its uid.
    pub fn insert(&mut self, key: &str, record: &Arc<K>) {
        match self.0.get_mut(key) {
            Some(group) => {
                group.replace(ByUid(record.clone()));
            }
            None => {
                self.0
                    .insert(key.to_owned(), BTreeSet::from([ByUid(record.clone())]));
            }
        }
    }

    /// Removes the record with that uid from the group of `key`.
    pub fn remove(&mut self, key: &str, uid: &str) {
        if let Some(group) = self.0.get_mut(key) {
            group.remove(uid);
            if group.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// Moves a record from one key to another; absent keys stand for a record that is not there.
    pub fn swap(&mut self, before: Option<(&str, &Arc<K>)>, after: Option<(&str, &Arc<K>)>) {
        if let Some((key, record)) = before
            && after.is_none_or(|(new, _)| new != key)
        {
            self.remove(key, record.uid());
        }
        if let Some((key, record)) = after {
            self.insert(key, record);
        }
    }

    /// The group of `key`, by uid.
    pub fn get(&self, key: &str) -> impl DoubleEndedIterator<Item = &Arc<K>> + use<'_, K> {
        self.0.get(key).into_iter().flatten().map(|entry| &entry.0)
    }

    /// As [`Index::get`], from the record after the one with this uid on; "" for all.
    pub fn after(&self, key: &str, uid: &str) -> impl Iterator<Item = &Arc<K>> + use<'_, K> {
        let rest = (Bound::Excluded(uid), Bound::Unbounded);
        let group = self.0.get(key).map(|group| group.range::<str, _>(rest));
        group.into_iter().flatten().map(|entry| &entry.0)
    }

    /// How many records the group of `key` has.
    pub fn count(&self, key: &str) -> usize {
        self.0.get(key).map_or(0, BTreeSet::len)
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Index(BTreeMap::new())
    }
}

/// The records of one kind.
#[derive(Debug)]
pub struct Table<K> {
    by_uid: Hashed<K>,
    by_name: Names<K>,
    by_owner: Index<K>,
}

impl<K: Kept> Table<K> {
    /// Replaces `before` by `after`, which have the same uid, namespace and name where both are present.
    pub fn swap(&mut self, before: Option<&Arc<K>>, after: Option<&Arc<K>>) {
        if let Some(before) = before {
            let kept = after.map(|after| after.owner_uids()).unwrap_or_default();
            for owner in before
                .owner_uids()
                .into_iter()
                .filter(|owner| !kept.contains(owner))
            {
                self.by_owner.remove(owner, before.uid());
            }
        }
        if let Some(after) = after {
            let uid = after.uid();
            self.by_uid.replace(uid, |k| k.uid() == uid, after.clone());
            self.by_name.insert(after);
            for owner in after.owner_uids() {
                self.by_owner.insert(owner, after);
            }
        } else if let Some(before) = before {
            let uid = before.uid();
            self.by_uid.remove(uid, |k| k.uid() == uid);
            self.by_name.remove(before);
        }
    }

    /// The record with this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<K>> {
        self.by_uid.get(uid, |k| k.uid() == uid)
    }

    /// The record of this name.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.by_name.get(namespace, name)
    }

    /// All records, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> + use<'_, K> {
        self.list(None, None)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// Records that belong to the object with this uid, by their own uid.
    pub fn owned(&self, owner: &str) -> impl DoubleEndedIterator<Item = &Arc<K>> + use<'_, K> {
        self.by_owner.get(owner)
    }

    /// As [`Table::owned`], from the record after the one with this uid on; "" for all.
    pub fn owned_after(
        &self,
        owner: &str,
        uid: &str,
    ) -> impl Iterator<Item = &Arc<K>> + use<'_, K> {
        self.by_owner.after(owner, uid)
    }

    /// How many records belong to the object with this uid.
    pub fn owned_count(&self, owner: &str) -> usize {
        self.by_owner.count(owner)
    }

    /// How many records a namespace has.
    pub fn count_in(&self, namespace: &str) -> usize {
        self.by_name.count(namespace)
    }

    /// Records by namespace and name: those of one namespace or of all, after a position.
    pub fn list(
        &self,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &Arc<K>> + use<'_, K> {
        self.by_name.list(namespace, after)
    }

    /// Of [`Table::list`], those whose names begin with `prefix`.
    pub fn list_prefixed(
        &self,
        prefix: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &Arc<K>> + use<'_, K> {
        self.by_name.list_prefixed(prefix, namespace, after)
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table {
            by_uid: Hashed::default(),
            by_name: Names::default(),
            by_owner: Index::default(),
        }
    }
}
