//! Shares of this manager: how much of it each caller may use at a time, so that a greedy one starves nobody.
//!
//! Raft, sessions of agents and requests between managers have connections of their own and are not counted here. Under load, a manager first
//! refuses the requests that cost least to try again: lists and new watches, then other reads, then writes. A
//! refusal says when to try again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use barge_proto::v1::Role;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error::ApiError,
    security::{auth::Caller, tokens::Holder},
};

mod layer;

pub use layer::SharesLayer;

/// How much may go on at a time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests of one caller that are not answered yet. Default 2,048; an agent has 16.
    pub requests: usize,
    /// Requests of all callers. Default 6,144.
    pub all_requests: usize,
    /// Bytes of requests of one caller that are being received or worked on. Default 64 MiB.
    pub bytes: usize,
    /// Of all callers. Default 256 MiB.
    pub all_bytes: usize,
    /// Lists of one caller that are made at the same time; further ones wait. Default 8.
    pub lists: usize,
    /// Watches and log streams of one caller. Default 20,000.
    pub streams: usize,
    /// Of all callers. Default 50,000.
    pub all_streams: usize,
    /// For a request to arrive whole and be answered. Default 60 s.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 2048,
            all_requests: 6144,
            bytes: 64 << 20,
            all_bytes: 256 << 20,
            lists: 8,
            streams: 20_000,
            all_streams: 50_000,
            patience: Duration::from_secs(60),
        }
    }
}

const AGENT_REQUESTS: usize = 16;

/// What a request costs whom it is refused to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A list, or the beginning of a watch.
    List,
    /// Anything else that is only read.
    Read,
    /// A change.
    Write,
}

impl Class {
    /// By the verb of the RPC's rule.
    #[must_use]
    pub fn of(verb: &str) -> Self {
        match verb {
            "list" | "watch" => Self::List,
            "get" => Self::Read,
            _ => Self::Write,
        }
    }

    /// How much of a limit is for requests of this class.
    fn part(self, limit: usize) -> usize {
        match self {
            Self::List => limit / 2,
            Self::Read => limit / 4 * 3,
            Self::Write => limit,
        }
    }
}

/// Hands out shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: Counts,
    callers: HashMap<Arc<str>, (Counts, Arc<Semaphore>)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    requests: usize,
    bytes: usize,
    streams: usize,
}

impl Shares {
    /// Shares within these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            limits,
            used: Mutex::default(),
        }))
    }

    /// A share for a request, given back when it is dropped.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn request(&self, caller: &Caller, class: Class) -> Result<Share, ApiError> {
        self.begin(&name_of(caller), role_of(caller), class)
    }

    fn begin(&self, name: &Arc<str>, role: Option<Role>, class: Class) -> Result<Share, ApiError> {
        let limits = &self.0.limits;
        let (own, all) = match role {
            // Few, and the cluster's own.
            Some(Role::Agent) => (AGENT_REQUESTS, usize::MAX),
            _ => (class.part(limits.requests), class.part(limits.all_requests)),
        };
        let mut used = self.lock();
        if used.all.requests >= all {
            return Err(overloaded(format!(
                "this manager is answering {} requests, as many as it can",
                used.all.requests
            )));
        }
        let (counts, lists) = used.of(name, limits);
        if counts.requests >= own {
            return Err(overloaded(format!(
                "{} requests of this caller are being answered, as many as one may have at a time",
                counts.requests
            )));
        }
        counts.requests += 1;
        let lists = lists.clone();
        used.all.requests += 1;
        drop(used);
        Ok(Share {
            shares: self.clone(),
            name: name.clone(),
            lists,
            own: Mutex::new(Counts {
                requests: 1,
                ..Counts::default()
            }),
        })
    }

    /// A share for a watch or another stream that lasts, given back when it is dropped.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn stream(&self, caller: &Caller) -> Result<StreamShare, ApiError> {
        let limits = &self.0.limits;
        let name = name_of(caller);
        let mut used = self.lock();
        if used.all.streams >= limits.all_streams {
            return Err(overloaded(format!(
                "this manager has {} watches, as many as it can: try another manager",
                limits.all_streams
            )));
        }
        let (counts, _) = used.of(&name, limits);
        if counts.streams >= limits.streams {
            return Err(overloaded(format!(
                "this caller has {} watches at this manager, as many as one may have: end some, or watch whole namespaces",
                limits.streams
            )));
        }
        counts.streams += 1;
        used.all.streams += 1;
        drop(used);
        Ok(StreamShare {
            shares: self.clone(),
            name,
            role: role_of(caller),
        })
    }

    /// How many requests are being answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.lock().all.requests
    }

    /// How many watches and other streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.lock().all.streams
    }

    fn give_back(&self, name: &Arc<str>, what: Counts) {
        let mut used = self.lock();
        used.all.subtract(what);
        if let Some((counts, _)) = used.callers.get_mut(name) {
            counts.subtract(what);
            if *counts == Counts::default() {
                used.callers.remove(name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn of(&mut self, name: &Arc<str>, limits: &Limits) -> &mut (Counts, Arc<Semaphore>) {
        self.callers
            .entry(name.clone())
            .or_insert_with(|| (Counts::default(), Arc::new(Semaphore::new(limits.lists))))
    }
}

impl Counts {
    fn subtract(&mut self, what: Self) {
        self.requests -= what.requests;
        self.bytes -= what.bytes;
        self.streams -= what.streams;
    }
}

/// Strangers share by the address they come from, and the pods of a service account share as one.
fn name_of(caller: &Caller) -> Arc<str> {
    let holder = caller.principal.as_ref();
    if let Some(holder) = holder.and_then(|it| Holder::parse(&it.uid)) {
        return holder.without_pod().to_string().into();
    }
    match &caller.principal {
        Some(principal) => principal.to_string().into(),
        None => caller.peer.address.ip().to_string().into(),
    }
}

fn role_of(caller: &Caller) -> Option<Role> {
    caller.principal.as_ref().map(|principal| principal.role)
}

/// What goes away by itself within a moment, and comes back less often when all who are refused wait a little.
fn overloaded(what: String) -> ApiError {
    ApiError::Overloaded {
        what,
        retry_after: Duration::from_millis(rand::random_range(200..=800)),
    }
}

/// The share of a request.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    name: Arc<str>,
    lists: Arc<Semaphore>,
    /// What of it has not been given back yet.
    own: Mutex<Counts>,
}

impl Share {
    /// Adds bytes that have arrived.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn receive(&self, bytes: usize) -> Result<(), ApiError> {
        let limits = &self.shares.0.limits;
        let mut used = self.shares.lock();
        if used.all.bytes + bytes > limits.all_bytes {
            return Err(overloaded(format!(
                "requests with {} bytes are being received, as many as this manager can hold",
                used.all.bytes
            )));
        }
        let (counts, _) = used.of(&self.name, limits);
        if counts.bytes + bytes > limits.bytes {
            return Err(overloaded(format!(
                "requests of this caller with {} bytes are being received, as many as one may have at a time",
                counts.bytes
            )));
        }
        counts.bytes += bytes;
        used.all.bytes += bytes;
        drop(used);
        self.own().bytes += bytes;
        Ok(())
    }

    /// Gives back what counts as a request: it is a stream, and counted as one.
    pub fn is_stream(&self) {
        let mut own = self.own();
        self.shares.give_back(
            &self.name,
            Counts {
                requests: std::mem::take(&mut own.requests),
                ..Counts::default()
            },
        );
    }

    /// Bytes that another counter has taken over; never more than were received.
    pub fn give_back(&self, bytes: usize) {
        let mut own = self.own();
        let bytes = bytes.min(own.bytes);
        own.bytes -= bytes;
        self.shares.give_back(
            &self.name,
            Counts {
                bytes,
                ..Counts::default()
            },
        );
    }

    fn own(&self) -> MutexGuard<'_, Counts> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn to make a list; it ends when what is returned is dropped.
    pub async fn list_turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.lists.clone().acquire_owned().await.ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let own = *self.own();
        self.shares.give_back(&self.name, own);
    }
}

/// The share of a stream that lasts.
#[derive(Debug)]
pub struct StreamShare {
    shares: Shares,
    name: Arc<str>,
    role: Option<Role>,
}

impl StreamShare {
    /// A share for a request that came in on the stream.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn request(&self, class: Class) -> Result<Share, ApiError> {
        self.shares.begin(&self.name, self.role, class)
    }
}

impl Drop for StreamShare {
    fn drop(&mut self) {
        self.shares.give_back(
            &self.name,
            Counts {
                streams: 1,
                ..Counts::default()
            },
        );
    }
}

#[cfg(test)]
mod tests;
