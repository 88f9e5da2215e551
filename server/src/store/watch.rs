//! Watches: each watcher gets every change that concerns it once, in order.
//!
//! A watch is found by kind, namespace and node, so a change costs only the watches that it concerns. Changes that a watch has not taken yet
//! wait in a short list. When the list is full, it is dropped, and the watch catches up from the shared
//! history, so a watch whose client does not read costs next to nothing. A watch that is slower than the history has lost changes and ends.

mod scope;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use barge_state::{Changed, Expired, History};
use tokio::sync::Notify;

use scope::Key;
pub use scope::{Scope, Scopes};

use super::heads::Heads;
use crate::storage::applier::Observer;

/// Changes that are kept for one watch before it has to read the history.
const QUEUE: usize = 256;
/// Bytes of such changes.
const QUEUE_BYTES: usize = 256 * 1024;
/// Changes stay in the history for so long, if there is room. A watcher that comes back sooner goes on where it stopped.
const AGE: Duration = Duration::from_secs(300);
/// What a node's record takes in memory, about, in bytes.
const NODE: usize = 4096;
/// Blocks of the history that a watch which catches up takes at once; it looks through them without holding the lock.
const CATCH_UP: usize = 4;

/// A watch lost changes because it was too slow, or because the state was replaced by a snapshot: read again, and watch
/// from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes were lost: the watch was slower than the history that is kept")]
pub struct Lagged;

/// All watches of this manager, and the history they share.
pub struct Hub {
    inner: Mutex<Inner>,
    history_bytes: usize,
    history_changes: usize,
}

struct Inner {
    history: History,
    /// The newest revision that was published.
    head: u64,
    heads: Heads,
    next_id: u64,
    watchers: HashMap<u64, Watcher>,
    index: HashMap<Key, BTreeSet<u64>>,
}

struct Watcher {
    scopes: Scopes,
    /// Everything up to here has been taken or does not concern it.
    cursor: u64,
    queue: VecDeque<Changed>,
    queued_bytes: usize,
    /// The queue ran over, or the watch began in the past: go on from the history.
    behind: bool,
    /// The history was replaced.
    lost: bool,
    wake: Arc<Notify>,
}

impl Hub {
    /// Keeps a history of at most so many bytes and changes.
    pub fn new(history_bytes: usize, history_changes: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                history: History::new(0, history_bytes, history_changes),
                head: 0,
                heads: Heads::new(AGE),
                next_id: 0,
                watchers: HashMap::new(),
                index: HashMap::new(),
            }),
            history_bytes,
            history_changes,
        }
    }

    /// Watches what changes after a revision.
    pub fn watch(
        self: &Arc<Self>,
        after: u64,
        scopes: impl Into<Scopes>,
    ) -> Result<Watch, Expired> {
        let scopes = scopes.into();
        let mut inner = self.lock();
        if after < inner.history.floor() {
            return Err(Expired {
                floor: inner.history.floor(),
            });
        }
        let id = inner.next_id;
        inner.next_id += 1;
        for key in scopes.keys() {
            inner.index.entry(key).or_default().insert(id);
        }
        let wake = Arc::new(Notify::new());
        let watcher = Watcher {
            behind: after < inner.head,
            scopes: scopes.clone(),
            cursor: after,
            queue: VecDeque::new(),
            queued_bytes: 0,
            lost: false,
            wake: wake.clone(),
        };
        inner.watchers.insert(id, watcher);
        Ok(Watch {
            hub: self.clone(),
            id,
            scopes,
            wake,
        })
    }

    /// Calls `look` with every change after a revision and up to another, in order; others get the lock in between.
    ///
    /// # Errors
    /// [`Expired`] when the history does not go back that far, or no longer does.
    pub fn changes(
        &self,
        after: u64,
        up_to: u64,
        mut look: impl FnMut(&Changed),
    ) -> Result<(), Expired> {
        let mut cursor = after;
        while cursor < up_to {
            let blocks = self.lock().history.blocks_since(cursor, CATCH_UP)?;
            let before = cursor;
            for change in blocks.iter().flat_map(|block| block.iter()) {
                if change.revision > cursor && change.revision <= up_to {
                    look(change);
                    cursor = change.revision;
                }
            }
            // What is left changed nothing: there are revisions without a record.
            if cursor == before {
                break;
            }
        }
        Ok(())
    }

    /// Drops changes from the history that are older than five minutes, and answers how many bytes they had. Called every few seconds.
    pub fn forget_old(&self, now: Instant) -> usize {
        let mut inner = self.lock();
        let head = inner.head;
        let old = inner.heads.note(now, head);
        let (_, before) = inner.history.size();
        let dropped = inner.history.drop_through(old);
        let (_, after) = inner.history.size();
        drop(inner);
        // Nobody waits for that.
        drop(dropped);
        before - after
    }

    /// Makes room in the history for four changes of each of so many nodes, if that is more than it was made with: when all of them change at once, nobody who
    /// watches has lost anything.
    pub fn fit(&self, nodes: usize) {
        let bytes = self.history_bytes.max(nodes.saturating_mul(NODE * 4));
        self.lock().history.set_max_bytes(bytes);
    }

    /// How many changes the history has, and what they take in memory, in bytes.
    pub fn size(&self) -> (usize, usize) {
        self.lock().history.size()
    }

    /// How many watches there are.
    pub fn len(&self) -> usize {
        self.lock().watchers.len()
    }

    /// Whether there are no watches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Hub {
    fn applied(&self, changes: Vec<Changed>) {
        let Some(last) = changes.last() else {
            return;
        };
        let mut inner = self.lock();
        inner.head = last.revision;
        inner.history.push(&changes);
        for change in changes {
            inner.publish(&change);
        }
    }

    fn replaced(&self, revision: u64) {
        let mut inner = self.lock();
        inner.history = History::new(revision, self.history_bytes, self.history_changes);
        inner.head = revision;
        for watcher in inner.watchers.values_mut() {
            // One that waits for the future, or was told of everything up to here, has lost nothing.
            watcher.lost |= watcher.cursor < revision;
            watcher.clear();
            watcher.wake.notify_one();
        }
    }
}

impl Inner {
    /// A change that looks under this key no longer finds the watch.
    fn unlist(&mut self, key: &Key, id: u64) {
        if let Some(ids) = self.index.get_mut(key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.index.remove(key);
            }
        }
    }

    fn publish(&mut self, change: &Changed) {
        let Some(kind) = change.kind() else {
            return;
        };
        let key = |namespace: Option<&str>, name: Option<&str>, node: Option<&str>| Key {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            node: node.map(str::to_owned),
        };
        let mut keys = vec![key(None, None, None)];
        if !change.namespace().is_empty() {
            keys.push(key(Some(change.namespace()), None, None));
            keys.push(key(Some(change.namespace()), Some(change.name()), None));
        }
        keys.extend(change.node_uids().map(|node| key(None, None, Some(node))));
        let (size, mut told) = (change.size(), BTreeSet::new());
        for id in keys.iter().filter_map(|key| self.index.get(key)).flatten() {
            if told.insert(*id)
                && let Some(watcher) = self.watchers.get_mut(id)
            {
                watcher.offer(change, size);
            }
        }
    }
}

impl Watcher {
    fn offer(&mut self, change: &Changed, size: usize) {
        if self.behind || change.revision <= self.cursor || !self.scopes.matches(change) {
            return;
        }
        if self.queue.is_empty() {
            // What came before did not concern it. The history may have forgotten that by now.
            self.cursor = change.revision - 1;
        }
        let fits = self.queue.len() < QUEUE && self.queued_bytes + size <= QUEUE_BYTES;
        if fits || self.queue.is_empty() {
            self.queue.push_back(change.clone());
            self.queued_bytes += size;
        } else {
            // The history has all of it, for as long as it is kept for anybody.
            self.behind = true;
            self.clear();
        }
        self.wake.notify_one();
    }

    fn clear(&mut self) -> VecDeque<Changed> {
        self.queued_bytes = 0;
        std::mem::take(&mut self.queue)
    }

    /// What it has not taken yet, or nothing.
    fn take(&mut self, history: &History, head: u64) -> Result<Taken, Lagged> {
        if self.lost {
            return Err(Lagged);
        }
        if !self.queue.is_empty() {
            let taken: Vec<_> = self.clear().into();
            self.cursor = taken.last().map_or(self.cursor, |change| change.revision);
            return Ok(Taken::Changes(taken));
        }
        if self.behind {
            let after = self.cursor;
            let blocks = history.blocks_since(after, CATCH_UP).map_err(|_| Lagged)?;
            let last = blocks.last().and_then(|block| block.last());
            self.cursor = last.map_or(head, |change| change.revision);
            self.behind = self.cursor < head;
            return Ok(Taken::Blocks { blocks, after });
        }
        // Nothing up to here concerned it.
        self.cursor = self.cursor.max(head);
        Ok(Taken::Changes(Vec::new()))
    }
}

/// What a watch takes at once.
enum Taken {
    /// All of it is for this watch.
    Changes(Vec<Changed>),
    /// Of what is after a revision, what is in its scope.
    Blocks {
        blocks: Vec<Arc<[Changed]>>,
        after: u64,
    },
}

/// A stream of changes. Dropping it ends the watch.
pub struct Watch {
    hub: Arc<Hub>,
    id: u64,
    scopes: Scopes,
    wake: Arc<Notify>,
}

impl Watch {
    /// The next changes, in order, at least one. Safe to cancel.
    ///
    /// # Errors
    /// [`Lagged`] when changes were lost; it stays so.
    pub async fn next(&mut self) -> Result<Vec<Changed>, Lagged> {
        loop {
            // Registered before looking, so that nothing comes in between.
            let woken = self.wake.notified();
            let (taken, behind) = self.take()?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            if behind {
                // A long stretch of history that did not concern it; others may want the lock.
                tokio::task::yield_now().await;
            } else {
                woken.await;
            }
        }
    }

    /// Adds what there is at the moment to changes that were taken, as long as these are fewer than `enough`. So who was busy with
    /// something else goes on with all that came meanwhile.
    ///
    /// # Errors
    /// [`Lagged`] when changes were lost; it stays so.
    pub async fn gather(
        &mut self,
        changes: &mut Vec<Changed>,
        enough: usize,
    ) -> Result<(), Lagged> {
        while changes.len() < enough {
            let (taken, behind) = self.take()?;
            if taken.is_empty() && !behind {
                break;
            }
            changes.extend(taken);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// From now on the watch is about something else. Changes that were published before and not taken yet may be of the old scopes; of the
    /// new ones, what was published before may be missing: who watches reads the state afterwards.
    pub fn rescope(&mut self, scopes: impl Into<Scopes>) {
        let scopes = scopes.into();
        // Names are copied before everybody waits.
        let (old, new) = (self.scopes.keys(), scopes.keys());
        let mut inner = self.hub.lock();
        for key in old.difference(&new) {
            inner.unlist(key, self.id);
        }
        for key in new.difference(&old) {
            inner.index.entry(key.clone()).or_default().insert(self.id);
        }
        if let Some(watcher) = inner.watchers.get_mut(&self.id) {
            watcher.scopes = scopes.clone();
        }
        drop(inner);
        self.scopes = scopes;
    }

    /// Some of what there is, and whether there is more in the history.
    fn take(&self) -> Result<(Vec<Changed>, bool), Lagged> {
        let (taken, behind) = {
            let mut inner = self.hub.lock();
            let inner = &mut *inner;
            let watcher = inner.watchers.get_mut(&self.id).ok_or(Lagged)?;
            (watcher.take(&inner.history, inner.head)?, watcher.behind)
        };
        let taken = match taken {
            Taken::Changes(changes) => changes,
            Taken::Blocks { blocks, after } => self.filtered(&blocks, after),
        };
        Ok((taken, behind))
    }

    fn filtered(&self, blocks: &[Arc<[Changed]>], after: u64) -> Vec<Changed> {
        let changes = blocks.iter().flat_map(|block| block.iter());
        let wanted =
            changes.filter(|change| change.revision > after && self.scopes.matches(change));
        wanted.cloned().collect()
    }

    /// Every change up to this revision that this watch is about has been returned by [`Watch::next`].
    pub fn progress(&self) -> u64 {
        let mut inner = self.hub.lock();
        let head = inner.head;
        inner.watchers.get_mut(&self.id).map_or(0, |watcher| {
            if watcher.queue.is_empty() && !watcher.behind && !watcher.lost {
                watcher.cursor = watcher.cursor.max(head);
            }
            watcher.cursor
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut inner = self.hub.lock();
        let Some(watcher) = inner.watchers.remove(&self.id) else {
            return;
        };
        for key in watcher.scopes.keys() {
            inner.unlist(&key, self.id);
        }
    }
}
