//! Which of the nodes that can take a pod is the best: `argmin R/P`, the least required over
//! available.
//!
//! A node's score is the maximum over its resources (cpu, memory, pods) of
//! `request / (allocatable - allocated)`; the lowest wins. For this, and only for this, a pod that requests neither cpu nor
//! memory counts as 100m and 200Mi, the one being placed and those already there alike: otherwise a
//! thousand such pods would all find the same largest node the emptiest.

use super::cluster::{Class, NodeInfo};
use barge_state::Usage;
use std::cmp::Ordering;

/// What a pod without requests counts as.
const ASSUMED_CPU_MILLI: i64 = 100;
const ASSUMED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// What a pod with this request counts as when nodes are scored.
pub fn counted(request: Usage) -> Usage {
    if request.cpu_milli == 0 && request.memory_bytes == 0 {
        Usage {
            cpu_milli: ASSUMED_CPU_MILLI,
            memory_bytes: ASSUMED_MEMORY_BYTES,
            ..request
        }
    } else {
        request
    }
}

/// A fraction, compared exactly: a rounding error would decide between two nodes, and differently after a change of the formula's order. A denominator of
/// zero is infinity.
#[derive(Debug, Clone, Copy)]
pub struct Score {
    required: u64,
    available: u64,
}

impl Score {
    /// The score of a node for a pod of this class.
    pub fn of(class: &Class, node: &NodeInfo) -> Self {
        let free = node.allocatable.minus(node.counted);
        let request = class.counted;
        [
            Self::new(request.cpu_milli, free.cpu_milli),
            Self::new(request.memory_bytes, free.memory_bytes),
            Self::new(request.pods, free.pods),
        ]
        .into_iter()
        .max()
        .unwrap_or(Self::new(0, 1))
    }

    fn new(required: i64, available: i64) -> Self {
        match u64::try_from(required) {
            // Nothing is required: whatever is available is enough.
            Ok(0) | Err(_) => Self {
                required: 0,
                available: 1,
            },
            Ok(required) => Self {
                required,
                available: u64::try_from(available).unwrap_or(0),
            },
        }
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.available, other.available) {
            (0, 0) => Ordering::Equal,
            (0, _) => Ordering::Greater,
            (_, 0) => Ordering::Less,
            _ => {
                let left = u128::from(self.required) * u128::from(other.available);
                let right = u128::from(other.required) * u128::from(self.available);
                left.cmp(&right)
            }
        }
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn fractions_compare_exactly() {
        let third = Score::new(1, 3);
        assert_eq!(third, Score::new(2, 6));
        assert!(third > Score::new(333_333_333_333, 1_000_000_000_000));
        assert!(Score::new(i64::MAX, i64::MAX - 1) > Score::new(i64::MAX - 1, i64::MAX - 1));
    }

    #[test]
    fn nothing_left_is_worse_than_anything() {
        let full = Score::new(1, 0);
        assert_eq!(full, Score::new(7, -3));
        assert!(full > Score::new(i64::MAX, 1));
        assert!(Score::new(0, 0) < Score::new(1, i64::MAX));
    }

    #[test]
    fn only_a_pod_without_any_request_counts_as_the_default() {
        let request = |cpu_milli, memory_bytes| Usage {
            cpu_milli,
            memory_bytes,
            pods: 1,
            ..Usage::default()
        };
        assert_eq!(counted(request(0, 0)), request(100, 209_715_200));
        assert_eq!(counted(request(5, 0)), request(5, 0));
        assert_eq!(counted(request(0, 5)), request(0, 5));
    }
}
