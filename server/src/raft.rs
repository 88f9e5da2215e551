//! Consensus between managers: openraft, its network and its thread.

pub mod config;
pub mod contact;
pub mod lane;
pub mod network;
pub mod service;
pub mod snapshots;
mod wire;

pub use config::Timing;
pub use contact::Contact;
pub use network::{Channels, Connect};
