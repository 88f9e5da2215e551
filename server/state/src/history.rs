//! The history of recent changes: watches resume from it, and further pages of a list are taken back to their revision with it.

use std::{collections::VecDeque, sync::Arc};

use crate::changed::Changed;

/// Changes that are handed out together.
const BLOCK: usize = 64;

/// The revision is older than the history that is kept: the caller has to list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes are kept after revision {floor} only")]
pub struct Expired {
    /// The oldest revision that can be resumed from.
    pub floor: u64,
}

/// The newest changes, removals included, bounded by their number and by what they take in memory.
///
/// They are kept in blocks that never change, so that whoever reads many of them takes the blocks and looks through them
/// while the history goes on. A block stays until the last of its changes is dropped.
#[derive(Debug)]
pub struct History {
    blocks: VecDeque<Block>,
    /// Changes of the first block that have been dropped.
    dropped: usize,
    changes: usize,
    bytes: usize,
    max_bytes: usize,
    max_changes: usize,
    floor: u64,
}

#[derive(Debug)]
struct Block {
    changes: Arc<[Changed]>,
    sizes: Box<[usize]>,
}

impl Block {
    /// The revision of its last change.
    fn last(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.revision)
    }
}

impl History {
    /// An empty history that begins after `revision`, the state's at that time.
    pub fn new(revision: u64, max_bytes: usize, max_changes: usize) -> History {
        History {
            blocks: VecDeque::new(),
            dropped: 0,
            changes: 0,
            bytes: 0,
            max_bytes,
            max_changes,
            floor: revision,
        }
    }

    /// Bounds the bytes from the next change on.
    pub fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// Adds what a transaction changed, in order, and drops the oldest changes above the bounds. A single
    /// change that is larger than the bound is dropped too.
    pub fn push(&mut self, changes: &[Changed]) {
        for changes in changes.chunks(BLOCK) {
            let sizes: Box<[usize]> = changes.iter().map(Changed::size).collect();
            self.bytes += sizes.iter().sum::<usize>();
            self.changes += changes.len();
            self.blocks.push_back(Block {
                changes: changes.into(),
                sizes,
            });
            while self.bytes > self.max_bytes || self.changes > self.max_changes {
                if !self.drop_first() {
                    break;
                }
            }
        }
    }

    /// Drops blocks whose changes are all at or below `revision`. They are returned, so that a caller that holds a lock around the history lets go
    /// of it before their memory is given back.
    pub fn drop_through(&mut self, revision: u64) -> Vec<Arc<[Changed]>> {
        let blocks = self
            .blocks
            .partition_point(|block| block.last() <= revision);
        let mut dropped = Vec::with_capacity(blocks);
        for block in self.blocks.drain(..blocks) {
            // Of the first one, some may have been dropped before.
            let sizes = block.sizes.get(self.dropped..).unwrap_or_default();
            self.bytes -= sizes.iter().sum::<usize>();
            self.changes -= sizes.len();
            self.dropped = 0;
            self.floor = block.last();
            dropped.push(block.changes);
        }
        if self.blocks.is_empty() {
            self.blocks.shrink_to_fit();
        }
        dropped
    }

    fn drop_first(&mut self) -> bool {
        let Some(block) = self.blocks.front() else {
            return false;
        };
        let first = block.changes.get(self.dropped);
        let (Some(first), Some(size)) = (first, block.sizes.get(self.dropped)) else {
            return false;
        };
        self.floor = first.revision;
        self.bytes -= size;
        self.changes -= 1;
        self.dropped += 1;
        if self.dropped == block.changes.len() {
            self.blocks.pop_front();
            self.dropped = 0;
        }
        true
    }

    /// All changes after `revision`, in order. Revisions are per change: one in the middle of a transaction
    /// gets the rest of it.
    ///
    /// # Errors
    /// [`Expired`] when changes after `revision` were dropped.
    pub fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Changed>, Expired> {
        let start = self.start(revision)?;
        let changes = self.blocks.range(start..).flat_map(|b| b.changes.iter());
        Ok(changes.filter(move |change| change.revision > revision))
    }

    /// The first blocks with changes after `revision`, at most so many. The first of them may begin with changes up to
    /// `revision`.
    ///
    /// # Errors
    /// [`Expired`] when changes after `revision` were dropped.
    pub fn blocks_since(
        &self,
        revision: u64,
        limit: usize,
    ) -> Result<Vec<Arc<[Changed]>>, Expired> {
        let blocks = self.blocks.range(self.start(revision)?..).take(limit);
        Ok(blocks.map(|block| block.changes.clone()).collect())
    }

    /// The first block with changes after a revision.
    fn start(&self, revision: u64) -> Result<usize, Expired> {
        match revision < self.floor {
            true => Err(Expired { floor: self.floor }),
            false => Ok(self
                .blocks
                .partition_point(|block| block.last() <= revision)),
        }
    }

    /// The oldest revision that can be resumed from.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many changes are kept, and their size in bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.changes, self.bytes)
    }
}
