//! What end-to-end tests and benchmarks share: whole clusters of real processes, and ways to look at this machine.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod bench;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod links;
pub mod machine;
pub mod managers;
pub mod raw;
pub mod rolling;
pub mod s3;
pub mod visitor;
pub mod wait;
pub mod witness;
pub mod writer;

pub use cluster::Cluster;
pub use disk::Disk;
pub use machine::Machine;
pub use managers::{Managers, said};
pub use visitor::Visitor;
pub use wait::{eventually, eventually_within};
pub use witness::Witness;
