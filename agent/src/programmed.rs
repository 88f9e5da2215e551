//! How far the rules of Services are, on this node and on all nodes: revisions of the cluster's state.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::watch;

/// Written by the loop that keeps the rules and by the lane of life signs, read by all who care. Nobody waits here. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Programmed(Arc<Revisions>);

#[derive(Debug, Default)]
struct Revisions {
    assigned: AtomicU64,
    here: AtomicU64,
    /// What `everywhere` has.
    known: AtomicU64,
    everywhere: watch::Sender<u64>,
}

impl Programmed {
    /// Rules of this revision are about to be written.
    pub fn begin(&self, revision: u64) {
        self.0.assigned.store(revision, Relaxed);
    }

    /// The kernel has the rules of this revision.
    pub fn wrote(&self, revision: u64) {
        self.0.here.store(revision, Relaxed);
    }

    /// The revision that this node's rules were last to have, whether they have it or not.
    pub fn assigned(&self) -> u64 {
        self.0.assigned.load(Relaxed)
    }

    /// The revision that this node's rules have; 0: not known yet.
    pub fn here(&self) -> u64 {
        self.0.here.load(Relaxed)
    }

    /// The leader said that the rules of all live nodes have this revision. What a node's kernel has stays there, so an earlier word holds, too.
    pub fn told(&self, everywhere: u64) {
        // The lane of life signs takes no lock for what is known.
        if self.0.known.fetch_max(everywhere, Relaxed) < everywhere {
            self.0.everywhere.send_replace(everywhere);
        }
    }

    /// The revision that the rules of all live nodes have, as far as is known; 0: nothing is.
    pub fn everywhere(&self) -> watch::Receiver<u64> {
        self.0.everywhere.subscribe()
    }

    /// Whether the rules of all live nodes have this revision.
    pub fn is_everywhere(&self, revision: u64) -> bool {
        *self.0.everywhere.borrow() >= revision
    }
}
