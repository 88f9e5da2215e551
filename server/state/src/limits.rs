//! Bounds of what the state keeps. They are part of `apply`: every manager has to use the same.

/// Events kept about one object; a new one evicts the one that was seen least recently.
pub const EVENTS_PER_OBJECT: usize = 32;

/// Events kept in one namespace from feature level 5 on; a new one evicts the one that was seen least recently.
pub const EVENTS_PER_NAMESPACE: usize = 2048;

/// Events kept in all; a new one evicts the one that was seen least recently: of all up to feature level 4, later of the namespace that has the
/// most events, so that those of one namespace never push out another's.
pub const EVENTS: usize = 16_384;

/// Events that one new event evicts at most from feature level 5 on, for each bound: more than one where there are more than the bound,
/// which the rise to that level may leave behind.
pub const EVICTED: usize = 8;

/// Tombstones kept for one node; a new one evicts the oldest. An agent that never heard of the evicted deletion leaves that pod
/// running, and tells so. A healthy node confirms each within seconds.
pub const TOMBSTONES_PER_NODE: usize = 1024;

/// Tombstones kept of nodes; a new one evicts the oldest. An agent that comes back after its node's was evicted leaves its pods running, and says
/// so.
pub const NODE_TOMBSTONES: usize = 4096;

/// Answered requests that are remembered. The oldest are forgotten, and with them every request id whose
/// client had not seen a newer revision: it is refused from then on. At 20,000 writes a second this gives
/// a client 13 seconds to retry.
pub const REQUESTS: usize = 262_144;

/// Records that one deletion reaches at once. What has more of them is marked, and deleted in slices.
pub const SLICE: usize = 500;

/// Seconds between TERM and KILL for pods whose template does not say.
pub const GRACE_PERIOD_SECONDS: i64 = 30;

/// The bounds of one state, for tests that want to reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Default [`EVENTS_PER_OBJECT`].
    pub events_per_object: usize,
    /// Default [`EVENTS_PER_NAMESPACE`].
    pub events_per_namespace: usize,
    /// Default [`EVENTS`].
    pub events: usize,
    /// Default [`TOMBSTONES_PER_NODE`].
    pub tombstones_per_node: usize,
    /// Default [`NODE_TOMBSTONES`].
    pub node_tombstones: usize,
    /// Default [`REQUESTS`].
    pub requests: usize,
    /// Default [`SLICE`].
    pub slice: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            events_per_object: EVENTS_PER_OBJECT,
            events_per_namespace: EVENTS_PER_NAMESPACE,
            events: EVENTS,
            tombstones_per_node: TOMBSTONES_PER_NODE,
            node_tombstones: NODE_TOMBSTONES,
            requests: REQUESTS,
            slice: SLICE,
        }
    }
}
