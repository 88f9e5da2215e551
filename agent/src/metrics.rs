//! What containers, pods and the machine take, measured by this agent: for `barge top` now, for whatever scales by it later.
//!
//! The [`sampler`] reads counters of the kernel and puts them into a [`Store`]: processor and memory of each container and of the machine each second, the
//! network of each pod each five seconds, the disk of each container each minute. The store keeps an hour of it in rings of fixed size, in memory only. Nothing of it
//! is sent unless a manager asks for it over a stream ([`answer`]).

use std::time::Duration;

pub mod answer;
mod machine;
mod ring;
pub mod sampler;
mod shelf;
pub mod store;

pub use ring::Average;
pub use store::Store;

/// Over which time processor and network are averaged where nothing else is asked for.
pub const WINDOW: Duration = Duration::from_secs(15);
/// The longest such time: what the rings hold.
pub const LONGEST: Duration = Duration::from_secs(3600);
