//! The managers that a client knows, and which of them to ask next.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::ClientConfig;
use tonic::metadata::MetadataMap;

use crate::{
    channel::{AddressError, ApiChannel, Bearer, ChannelOptions, MANAGERS_HEADER, channel},
    error::ClientError,
    pipeline::Pipeline,
};

/// No cluster has more managers.
const MOST: usize = 64;

/// Those that were given, and those that a manager named since.
#[derive(Debug)]
pub(super) struct Managers {
    tls: Arc<ClientConfig>,
    bearer: Bearer,
    options: ChannelOptions,
    given: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// Never empty.
    all: Vec<Manager>,
    /// The place of the one that worked last.
    current: usize,
    /// As a manager named them last; empty before.
    told: String,
}

#[derive(Debug, Clone)]
pub(super) struct Manager {
    pub address: Arc<str>,
    pub channel: ApiChannel,
    /// Made when it is used.
    pipeline: Arc<OnceLock<Pipeline>>,
}

impl Manager {
    /// What pipelined requests to this manager share.
    pub(super) fn pipeline(&self) -> Pipeline {
        let new = || Pipeline::new(self.channel.clone());
        self.pipeline.get_or_init(new).clone()
    }
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
        let mut managers = Self {
            tls: tls.clone(),
            bearer: bearer.clone(),
            options: options.clone(),
            given: addresses.to_vec(),
            known: Mutex::new(Known {
                all: Vec::new(),
                current: 0,
                told: String::new(),
            }),
        };
        let all = addresses.iter().map(|address| managers.dial(address));
        managers.known = Mutex::new(Known {
            all: all.collect::<Result<_, _>>()?,
            current: 0,
            told: String::new(),
        });
        Ok(managers)
    }

    fn dial(&self, address: &str) -> Result<Manager, AddressError> {
        let channel = channel(address, self.tls.clone(), &self.options)?;
        Ok(Manager {
            address: address.into(),
            channel: ApiChannel::new(channel, self.bearer.clone()),
            pipeline: Arc::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.known().all.len()
    }

    /// The one that worked last.
    pub(super) fn current(&self) -> Manager {
        let known = self.known();
        known.all[known.current].clone()
    }

    /// Goes on to the next, unless another call has done so since.
    pub(super) fn rotate(&self, from: &Manager) {
        let mut known = self.known();
        if known.all[known.current].address == from.address {
            known.current = (known.current + 1) % known.all.len();
        }
    }

    /// Takes note of where the managers are, if an answer says so: they are asked from now on, beside those that were given.
    pub(super) fn learn(&self, answer: &MetadataMap) {
        let told = answer
            .get(MANAGERS_HEADER)
            .and_then(|told| told.to_str().ok());
        let Some(told) = told.filter(|told| !told.is_empty()) else {
            return;
        };
        let mut known = self.known();
        if known.told == told {
            return;
        }
        known.told = told.to_owned();
        let current = known.all[known.current].address.clone();
        let mut all: Vec<Manager> = Vec::new();
        for address in self.given.iter().map(String::as_str).chain(told.split(',')) {
            if all.len() >= MOST || all.iter().any(|manager| *manager.address == *address) {
                continue;
            }
            let there = known
                .all
                .iter()
                .find(|manager| *manager.address == *address);
            match there.map_or_else(|| self.dial(address), |manager| Ok(manager.clone())) {
                Ok(manager) => all.push(manager),
                Err(error) => tracing::debug!(%error, "a manager has an address of no use"),
            }
        }
        // Those that were given are still there, so there is at least one.
        known.current = all
            .iter()
            .position(|manager| manager.address == current)
            .unwrap_or_default();
        known.all = all;
    }

    /// Where the managers are, as one of them said last; empty before the first answer.
    pub(super) fn told(&self) -> Vec<String> {
        let known = self.known();
        let told = known.told.split(',').filter(|address| !address.is_empty());
        told.map(str::to_owned).collect()
    }
}
