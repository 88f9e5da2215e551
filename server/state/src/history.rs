//! Recent changes, so that watches can go on where they stopped.

use std::collections::VecDeque;

use crate::{changed::Changed, kind::Stored};

/// What a change costs besides its records, in bytes.
const OVERHEAD: usize = 128;

/// The revision is older than the history that is kept: whoever asked has to list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes are kept after revision {floor} only")]
pub struct Expired {
    /// The oldest revision that can be resumed from.
    pub floor: u64,
}

/// The newest changes, removals included, bounded by their number and their encoded size.
#[derive(Debug)]
pub struct History {
    changes: VecDeque<(Changed, usize)>,
    bytes: usize,
    max_bytes: usize,
    max_changes: usize,
    floor: u64,
}

impl History {
    /// An empty history that begins after `revision`, the state's at that time.
    pub fn new(revision: u64, max_bytes: usize, max_changes: usize) -> History {
        History {
            changes: VecDeque::new(),
            bytes: 0,
            max_bytes,
            max_changes,
            floor: revision,
        }
    }

    /// Adds what a transaction changed, in order, and drops the oldest changes above the bounds. A single
    /// change that is larger than the bound is dropped too.
    pub fn push(&mut self, changes: &[Changed]) {
        for change in changes {
            let size = OVERHEAD + change.record().map_or(0, Stored::encoded_len);
            self.bytes += size;
            self.changes.push_back((change.clone(), size));
            while self.bytes > self.max_bytes || self.changes.len() > self.max_changes {
                let Some((dropped, size)) = self.changes.pop_front() else {
                    break;
                };
                self.bytes -= size;
                self.floor = dropped.revision;
            }
        }
    }

    /// All changes after `revision`, in order. Revisions are per change: one in the middle of a transaction
    /// gets the rest of it.
    ///
    /// # Errors
    /// [`Expired`] when changes after `revision` were dropped.
    pub fn since(&self, revision: u64) -> Result<impl ExactSizeIterator<Item = &Changed>, Expired> {
        if revision < self.floor {
            return Err(Expired { floor: self.floor });
        }
        let start = self
            .changes
            .partition_point(|(change, _)| change.revision <= revision);
        Ok(self.changes.range(start..).map(|(change, _)| change))
    }

    /// The oldest revision that can be resumed from.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many changes are kept, and their size in bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.changes.len(), self.bytes)
    }
}
