//! Channels to the other managers, one per address, shared by all who talk to it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use barge_client::{
    channel::{AddressError, ChannelOptions, channel},
    tls,
};
use rustls::ClientConfig;
use tonic::transport::Channel;

use super::Credentials;

/// More addresses than a cluster has managers; beyond, the cache begins anew.
const CACHED: usize = 64;

/// Makes and keeps channels that show this manager's certificate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    config: Arc<ClientConfig>,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Dialer {
    /// A dialer that dials with the credentials as they are whenever it connects.
    #[must_use]
    pub fn new(credentials: &Credentials) -> Self {
        Self::with(credentials.client())
    }

    /// A dialer of connections for life signs. A channel belongs to the runtime on which it was asked for first.
    #[must_use]
    pub fn for_life_signs(credentials: &Credentials) -> Self {
        Self::with(tls::for_life_signs(&credentials.client()))
    }

    /// A dialer of connections for Raft.
    #[must_use]
    pub fn for_raft(credentials: &Credentials) -> Self {
        Self::with(tls::for_raft(&credentials.client()))
    }

    /// A dialer that shares no connection with this one: what is not read over its connections holds up nothing else.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self::with(self.config.clone())
    }

    fn with(config: Arc<ClientConfig>) -> Self {
        Self {
            config,
            channels: Arc::default(),
        }
    }

    /// The channel to the manager at `address`; it connects when it is used, and again when it broke.
    ///
    /// # Errors
    /// The address is not `host:port`.
    pub fn channel(&self, address: &str) -> Result<Channel, AddressError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = channel(address, self.config.clone(), &options())?;
        if channels.len() >= CACHED {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Managers are close to each other: a dead one should be noticed within an election.
fn options() -> ChannelOptions {
    ChannelOptions {
        connect_timeout: Duration::from_secs(1),
        keep_alive_interval: Duration::from_secs(2),
        keep_alive_timeout: Duration::from_secs(2),
    }
}
