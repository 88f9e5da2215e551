//! The state itself.

use crate::{limits::Limits, requests::Requests, tables::Tables};

/// Everything that managers agree on. Changed by [`State::apply`] only; an empty one is the default.
#[derive(Debug, Default)]
pub struct State {
    pub(crate) tables: Tables,
    pub(crate) revision: u64,
    pub(crate) requests: Requests,
    pub(crate) limits: Limits,
}

impl State {
    /// An empty state with other bounds. All states that apply the same log have to have the same.
    pub fn with_limits(limits: Limits) -> State {
        State {
            limits,
            ..State::default()
        }
    }

    /// The number of changes there have been: each record that is written has one of its own. A request that
    /// changes nothing may skip one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The bounds of this state.
    pub fn limits(&self) -> Limits {
        self.limits
    }
}
