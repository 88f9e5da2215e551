//! Counts of attempts, for the benchmark, tests and whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::state::Kind;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The container answered as it should.
    Success,
    /// It did not.
    Failure,
    /// It counts nothing: the node could not ask, or stood still.
    Void,
}

/// Counts since the process began.
#[derive(Debug, Default)]
pub struct Meters {
    kinds: [Meter; 3],
}

#[derive(Debug, Default)]
struct Meter {
    outcomes: [AtomicU64; 3],
    late: AtomicU64,
    took_ms: AtomicU64,
}

impl Meters {
    pub(super) fn began(&self, kind: Kind, is_late: bool) {
        let meter = &self.kinds[kind as usize];
        meter.late.fetch_add(u64::from(is_late), Relaxed);
    }

    pub(super) fn ended(&self, kind: Kind, outcome: Outcome, took_ms: i64) {
        let meter = &self.kinds[kind as usize];
        meter.outcomes[outcome as usize].fetch_add(1, Relaxed);
        let took = u64::try_from(took_ms).unwrap_or(0);
        meter.took_ms.fetch_add(took, Relaxed);
    }

    /// Attempts of a kind that ended so.
    pub fn count(&self, kind: Kind, outcome: Outcome) -> u64 {
        self.kinds[kind as usize].outcomes[outcome as usize].load(Relaxed)
    }

    /// Attempts of a kind that began more than a second after they were due.
    pub fn late(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize].late.load(Relaxed)
    }

    /// How long all attempts of a kind took together, in milliseconds.
    pub fn took_ms(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize].took_ms.load(Relaxed)
    }
}
