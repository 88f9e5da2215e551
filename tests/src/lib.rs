//! What end-to-end tests and benchmarks share: whole clusters of real processes, and ways to look at this machine.

pub mod bench;
pub mod cluster;
pub mod machine;
pub mod managers;
pub mod wait;

pub use cluster::Cluster;
pub use machine::Machine;
pub use managers::Managers;
pub use wait::{eventually, eventually_within};
