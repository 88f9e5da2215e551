//! The records of one kind, by uid, by name and by owner.
//!
//! The sets hold the records themselves, compared by the key in them: an entry costs one pointer. Most lookups are by
//! uid, so these are hashed; nothing depends on the order of a hash.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::Arc,
};

use crate::kept::Kept;

/// For lookups only: what is never iterated has no order that could differ between managers. The hash is a fixed one.
#[expect(
    clippy::disallowed_types,
    reason = "never iterated, and hashed alike everywhere"
)]
type Hashed<T> = std::collections::HashSet<T, BuildHasherDefault<DefaultHasher>>;

/// A record that is compared by its uid.
#[derive(Debug)]
pub struct ByUid<K>(pub Arc<K>);

/// A record that is compared by its name, within one namespace.
#[derive(Debug)]
struct ByName<K>(Arc<K>);

/// A record that is looked up by its namespace and name together.
#[derive(Debug)]
struct ByFullName<K>(Arc<K>);

/// What has a namespace and a name, borrowed: what a record is looked up by, without putting the two together.
trait FullName {
    fn full_name(&self) -> (&str, &str);
}

impl<K: Kept> FullName for ByFullName<K> {
    fn full_name(&self) -> (&str, &str) {
        (self.0.namespace(), self.0.name())
    }
}

impl FullName for (&str, &str) {
    fn full_name(&self) -> (&str, &str) {
        *self
    }
}

impl Hash for dyn FullName + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.full_name().hash(state);
    }
}

impl PartialEq for dyn FullName + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.full_name() == other.full_name()
    }
}

impl Eq for dyn FullName + '_ {}

impl<'a, K: Kept> Borrow<dyn FullName + 'a> for ByFullName<K> {
    fn borrow(&self) -> &(dyn FullName + 'a) {
        self
    }
}

impl<K: Kept> Hash for ByFullName<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.full_name().hash(state);
    }
}

impl<K: Kept> PartialEq for ByFullName<K> {
    fn eq(&self, other: &Self) -> bool {
        self.full_name() == other.full_name()
    }
}

impl<K: Kept> Eq for ByFullName<K> {}

macro_rules! compare_by {
    ($wrapper:ident, $key:expr) => {
        impl<K: Kept> Borrow<str> for $wrapper<K> {
            fn borrow(&self) -> &str {
                let key: fn(&K) -> &str = $key;
                key(&self.0)
            }
        }

        impl<K: Kept> PartialEq for $wrapper<K> {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }

        impl<K: Kept> Eq for $wrapper<K> {}

        impl<K: Kept> PartialOrd for $wrapper<K> {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<K: Kept> Ord for $wrapper<K> {
            fn cmp(&self, other: &Self) -> Ordering {
                let (this, other): (&str, &str) = (self.borrow(), other.borrow());
                this.cmp(other)
            }
        }
    };
}
compare_by!(ByUid, |record| record.uid());
compare_by!(ByName, |record| record.name());

impl<K: Kept> Hash for ByUid<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As its key's, which it is looked up by.
        self.0.uid().hash(state);
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
    by_uid: Hashed<ByUid<K>>,
    /// For lookups: a search in a tree of names touches as many records as it has levels.
    by_full_name: Hashed<ByFullName<K>>,
    /// For lists.
    by_name: BTreeMap<String, BTreeSet<ByName<K>>>,
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
            self.by_uid.replace(ByUid(after.clone()));
            self.by_full_name.replace(ByFullName(after.clone()));
            match self.by_name.get_mut(after.namespace()) {
                Some(names) => {
                    names.replace(ByName(after.clone()));
                }
                None => {
                    let names = BTreeSet::from([ByName(after.clone())]);
                    self.by_name.insert(after.namespace().to_owned(), names);
                }
            }
            for owner in after.owner_uids() {
                self.by_owner.insert(owner, after);
            }
        } else if let Some(before) = before {
            self.by_uid.remove(before.uid());
            let full_name: &dyn FullName = &(before.namespace(), before.name());
            self.by_full_name.remove(full_name);
            if let Some(names) = self.by_name.get_mut(before.namespace()) {
                names.remove(before.name());
                if names.is_empty() {
                    self.by_name.remove(before.namespace());
                }
            }
        }
    }

    /// The record with this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<K>> {
        self.by_uid.get(uid).map(|entry| &entry.0)
    }

    /// The record of this name.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        let full_name: &dyn FullName = &(namespace, name);
        self.by_full_name.get(full_name).map(|entry| &entry.0)
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

    /// How many records belong to the object with this uid.
    pub fn owned_count(&self, owner: &str) -> usize {
        self.by_owner.count(owner)
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
        let groups = self.by_name.range::<str, _>((first, last));
        groups.flat_map(move |(namespace, names)| {
            let start = match &after {
                Some((past, _)) if namespace < past => None,
                Some((past, name)) if namespace == past => Some(Bound::Excluded(name.as_str())),
                _ => Some(Bound::Unbounded),
            };
            let names = start.map(|start| names.range::<str, _>((start, Bound::Unbounded)));
            names.into_iter().flatten().map(|entry| &entry.0)
        })
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table {
            by_uid: Hashed::default(),
            by_full_name: Hashed::default(),
            by_name: BTreeMap::new(),
            by_owner: Index::default(),
        }
    }
}
