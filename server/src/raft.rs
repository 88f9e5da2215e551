//! Consensus between managers: openraft, its network and its thread.

pub mod command;
pub mod config;
pub mod contact;
pub mod lane;
pub mod network;
pub mod service;
pub mod snapshots;
pub mod types;
mod wire;

pub use config::Timing;
pub use contact::Contact;
pub use network::{Channels, Connect};

/// Messages between managers may have this many bytes: an append is cut near 1 MiB, but a single entry is never cut.
const MAX_MESSAGE: usize = 4 << 20;
