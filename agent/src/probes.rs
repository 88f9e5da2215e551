//! Probes of containers: what results mean is a pure machine ([`state`]), one loop begins the attempts of all containers of the node
//! ([`prober`]), and each attempt ends by its deadline ([`attempt`]).
//!
//! A pod's worker tells the prober which of its containers run, and reads what is known of them. The prober stops no container.

pub mod attempt;
mod board;
mod meters;
mod prober;
pub(crate) mod remembered;
mod stalls;
pub mod state;
pub mod target;

pub use board::{Known, Probed};
pub use meters::{Meters, Outcome};
pub use prober::{Options, Prober, Registration};
pub use target::has_probes;
