//! The managers that a client knows, and which of them to ask next.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustls::ClientConfig;

use crate::{
    channel::{AddressError, ApiChannel, Bearer, ChannelOptions, channel},
    error::ClientError,
};

#[derive(Debug)]
pub(super) struct Managers {
    /// Never empty.
    all: Vec<Manager>,
    current: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Manager {
    pub address: String,
    pub channel: ApiChannel,
}

impl Managers {
    pub(super) fn new(
        addresses: &[String],
        tls: &Arc<ClientConfig>,
        bearer: &Bearer,
        options: &ChannelOptions,
    ) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(AddressError(String::new()).into());
        }
        let manager = |address: &String| -> Result<Manager, AddressError> {
            Ok(Manager {
                address: address.clone(),
                channel: ApiChannel::new(channel(address, tls.clone(), options)?, bearer.clone()),
            })
        };
        Ok(Self {
            all: addresses.iter().map(manager).collect::<Result<_, _>>()?,
            current: AtomicUsize::new(0),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The one that worked last, with its number.
    pub(super) fn current(&self) -> (usize, &Manager) {
        let index = self.current.load(Ordering::Relaxed) % self.all.len();
        (index, &self.all[index])
    }

    /// Goes on to the next, unless another call has done so since.
    pub(super) fn rotate(&self, from: usize) {
        let next = (from + 1) % self.all.len();
        // Lost races are fine: somebody else has moved on.
        let _ = self
            .current
            .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}
