//! The way to the managers, as life signs and sessions use it.

use std::time::Duration;

use tonic::{Status, transport::Channel};

/// The way to the managers.
pub trait Managers: Send + Sync + 'static {
    /// Where they are (`host:port`), as they said last.
    fn addresses(&self) -> Vec<String>;
    /// Where else they may be: given by hand.
    fn by_hand(&self) -> Vec<String> {
        Vec::new()
    }
    /// A connection of its own to one of them, which is made when it is used.
    fn channel(&self, address: &str) -> Result<Channel, String>;
    /// The same for life signs only, by the protocol that managers serve them under.
    fn life_channel(&self, address: &str) -> Result<Channel, String>;
    /// A manager said where all of them are. Blocks until the disk has it.
    fn learned(&self, addresses: &[String]);
    /// The roots that this node trusts, in PEM. Must not block.
    fn roots_pem(&self) -> String {
        String::new()
    }
    /// What this node trusts, as `LifeSign` has it. Must not block.
    fn roots_sha256(&self) -> [u8; 32];
    /// A manager said what is to be trusted, and within what time to renew when that is something else.
    fn told_roots(&self, roots_sha256: [u8; 32], within: Duration);
}

/// What went wrong, below the layers of transport.
pub fn cause(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => barge_client::channel::root_cause(source),
        None => status.message().to_owned(),
    }
}
