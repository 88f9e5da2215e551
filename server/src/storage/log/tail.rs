//! The newest entries of the log, in memory: those that are not on disk yet, and before them those that followers and `apply` are
//! about to read.

use std::collections::VecDeque;

use crate::storage::{
    codec::entry_size,
    types::{Entry, LogId},
};

/// A contiguous end of the log. Entries that are written stay for as long as they fit into the budget.
#[derive(Debug)]
pub struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    budget: usize,
    /// The last index that is on disk; only meaningful for indexes of the present epoch.
    written: Option<u64>,
    /// Counts truncations. A write that was queued before one says nothing about the entries that came after it.
    epoch: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    /// Where a log began that was not purged yet.
    begin: u64,
}

impl Tail {
    /// The tail of a log whose entries up to `last` are on disk. `budget` is in bytes.
    pub fn new(purged: Option<LogId>, last: Option<LogId>, budget: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            budget,
            written: last.as_ref().map(|id| id.index),
            epoch: 0,
            last,
            purged,
            begin: 0,
        }
    }

    /// The last entry of the log, or what was purged last if there is none.
    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// The last entry that was purged.
    pub fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// Changes with every truncation.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The first index the log may still have.
    pub fn first_index(&self) -> u64 {
        next(self.purged).max(self.begin)
    }

    /// The index of the first entry in memory, or of the next entry if none is.
    pub fn start(&self) -> u64 {
        self.entries
            .front()
            .map_or_else(|| next(self.last), |entry| entry.log_id.index)
    }

    /// Adds entries that follow the last one.
    pub fn append(&mut self, entries: &[Entry]) {
        if let (None, Some(first)) = (self.last, entries.first()) {
            self.begin = first.log_id.index;
        }
        for entry in entries {
            self.bytes += entry_size(entry);
            self.last = Some(entry.log_id);
            self.entries.push_back(entry.clone());
        }
    }

    /// Forgets everything after `last`, which may lie beyond the end.
    pub fn truncate_after(&mut self, last: Option<LogId>) {
        let keep_below = next(last);
        if keep_below >= next(self.last) {
            return;
        }
        self.epoch += 1;
        while self
            .entries
            .back()
            .is_some_and(|entry| entry.log_id.index >= keep_below)
        {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry_size(&entry);
            }
        }
        self.written = self.written.min(last.map(|id| id.index));
        self.last = last.max(self.purged);
    }

    /// Forgets everything up to `upto`, which may lie beyond the end.
    pub fn purge(&mut self, upto: LogId) {
        if self.purged >= Some(upto) {
            return;
        }
        self.purged = Some(upto);
        self.last = self.last.max(Some(upto));
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.log_id.index <= upto.index)
        {
            self.pop_front();
        }
    }

    /// Notes that everything up to `index` that was appended in `epoch` is on disk.
    pub fn written(&mut self, epoch: u64, index: u64) {
        if epoch == self.epoch {
            self.written = self.written.max(Some(index));
        }
        self.keep(self.budget);
    }

    /// What the entries in memory take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the oldest entries that are on disk until the rest fits into so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        self.keep(bytes);
        self.entries.shrink_to_fit();
    }

    fn keep(&mut self, bytes: usize) {
        while self.bytes > bytes
            && self
                .entries
                .front()
                .is_some_and(|entry| Some(entry.log_id.index) <= self.written)
        {
            self.pop_front();
        }
    }

    /// The entries in memory within `from..to`, up to about `limit` bytes but at least one.
    pub fn range(&self, from: u64, to: u64, limit: usize) -> Vec<Entry> {
        let start = self.start();
        let skip = usize::try_from(from.saturating_sub(start)).unwrap_or(usize::MAX);
        let mut room = Some(limit);
        self.entries
            .iter()
            .skip(skip)
            .take_while(|entry| entry.log_id.index < to)
            .take_while(|entry| {
                let fits = room.is_some();
                room = room.and_then(|room| room.checked_sub(entry_size(entry)));
                fits
            })
            .cloned()
            .collect()
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_size(&entry);
        }
    }
}

fn next(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;

    use openraft::{entry::RaftEntry as _, vote::RaftLeaderId as _};
    use proptest::prelude::*;

    use super::*;
    use crate::storage::types::{Command, LeaderId, Payload};

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, 1), index)
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry::new(
            id(term, index),
            Payload::Normal(Command::from_encoded(vec![7; 36].into())),
        )
    }

    #[derive(Debug, Clone)]
    enum Op {
        Append(u64),
        Truncate(u64),
        Purge(u64),
        Write,
        Shrink(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (1u64..6).prop_map(Op::Append),
            1 => (0u64..6).prop_map(Op::Truncate),
            1 => (0u64..6).prop_map(Op::Purge),
            3 => Just(Op::Write),
            1 => (0usize..300).prop_map(Op::Shrink),
        ]
    }

    proptest! {
        /// Memory and disk together are always the log, however writes lag behind.
        #[test]
        fn memory_and_disk_are_the_log(ops in proptest::collection::vec(op(), 1..60)) {
            let mut tail = Tail::new(None, None, 300);
            let mut log = BTreeMap::new();
            let mut disk = BTreeMap::new();
            let mut queue: Vec<(u64, Op, Vec<Entry>, Option<u64>)> = Vec::new();
            let mut term = 1;
            for op in ops {
                let end = next(tail.last());
                match op {
                    Op::Append(count) => {
                        let entries: Vec<_> = (end..end + count).map(|i| entry(term, i)).collect();
                        log.extend(entries.iter().map(|e| (e.log_id.index, e.clone())));
                        tail.append(&entries);
                        queue.push((tail.epoch(), op, entries, None));
                    }
                    Op::Truncate(back) => {
                        let keep = end.saturating_sub(back).max(tail.first_index());
                        log.split_off(&keep);
                        let last = log.last_key_value().map(|(_, e)| e.log_id);
                        term += 1;
                        tail.truncate_after(last.or(tail.purged()));
                        queue.push((tail.epoch(), op, vec![], Some(keep)));
                    }
                    Op::Purge(count) => {
                        let upto = (tail.first_index() + count).min(end);
                        if upto == 0 || upto <= tail.first_index() { continue }
                        let at = log.get(&(upto - 1)).map(|e| e.log_id).unwrap();
                        log = log.split_off(&upto);
                        tail.purge(at);
                        queue.push((tail.epoch(), op, vec![], Some(upto)));
                    }
                    Op::Write if !queue.is_empty() => {
                        let (epoch, op, entries, at) = queue.remove(0);
                        match (op, at) {
                            (Op::Append(_), _) => {
                                let last = entries.last().unwrap().log_id.index;
                                disk.extend(entries.into_iter().map(|e| (e.log_id.index, e)));
                                tail.written(epoch, last);
                            }
                            (Op::Truncate(_), Some(keep)) => { disk.split_off(&keep); }
                            (_, Some(upto)) => disk = disk.split_off(&upto),
                            _ => {}
                        }
                    }
                    Op::Shrink(bytes) => tail.shrink(bytes),
                    Op::Write => {}
                }
                let (from, to) = (tail.first_index(), next(tail.last()));
                let mut seen: Vec<_> =
                    disk.range(from..tail.start().max(from)).map(|(_, e)| e.clone()).collect();
                seen.extend(tail.range(tail.start(), to, usize::MAX));
                prop_assert_eq!(seen, log.values().cloned().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_range_is_cut_by_bytes_but_never_empty() {
        let mut tail = Tail::new(None, None, 1 << 20);
        tail.append(&(0..10).map(|i| entry(1, i)).collect::<Vec<_>>());
        assert_eq!(tail.range(2, 9, 1).len(), 1);
        assert_eq!(tail.range(2, 9, 250).len(), 3);
        assert_eq!(tail.range(2, 9, usize::MAX).len(), 7);
    }
}
