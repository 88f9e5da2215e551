//! The typed client: one object for all managers of a cluster.
//!
//! Every answer carries the addresses of all managers, so one address is enough to begin with. A call goes to the manager that answered last.
//! When that manager cannot serve it, the client tries the next one, with a bounded back-off after it has tried all. The client repeats reads
//! freely. A change has a request id: the cluster carries it out at most once, however often it arrives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{
    channel::{Bearer, ChannelOptions},
    config::{Context, Credential},
    error::ClientError,
    identity::Identity,
    tls::{self, ShownRoots},
};

use rustls::{ClientConfig, pki_types::CertificateDer};

mod access;
mod accounts;
mod attempt;
mod backup;
mod batches;
mod cluster;
mod credentials;
mod logs;
mod managers;
mod metrics;
mod objects;
mod request;
mod streams;

pub use backup::FetchError;
pub use batches::batches;
pub use credentials::NewCredential;
pub use logs::LogStream;
pub use objects::{ApplyOptions, DeleteOptions, Listing, Selection, UpdateOptions};
pub use streams::{
    ExecEvent, ExecInput, ExecOutput, ExecStream, PortInput, PortOutput, PortStream, StreamEnded,
};

use managers::Managers;

/// How patient a client is.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// For one attempt at one manager. Default 12 s: a manager waits up to 5 s for a leader before it gives up.
    pub attempt_timeout: Duration,
    /// For a call with all its attempts. Default 30 s.
    pub deadline: Duration,
    /// Give up earlier, after this long, when not even a connection to any manager came about. Default 5 s.
    pub unreachable_after: Duration,
    /// Of each connection.
    pub channel: ChannelOptions,
    /// Ask only the managers that were given. Default false: a client also asks those that a manager has named since.
    pub only_given: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(12),
            deadline: Duration::from_secs(30),
            unreachable_after: Duration::from_secs(5),
            channel: ChannelOptions::default(),
            only_given: false,
        }
    }
}

/// A client of one cluster. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    managers: Managers,
    options: ClientOptions,
    /// The newest revision that an answer named: part of request ids.
    seen: AtomicU64,
    /// What managers showed, and what is trusted.
    shown: ShownRoots,
    roots: Vec<CertificateDer<'static>>,
}

impl Client {
    /// A client that shows `identity` to the managers at these addresses (`host:port`). Connects with the first call.
    ///
    /// # Errors
    /// The identity cannot be used or is not valid by this machine's clock, or an address is not `host:port`.
    pub fn new(
        identity: &Identity,
        managers: &[String],
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        // Said here in full: the manager's alert would be one word.
        if let Ok(validity) = identity.validity() {
            validity.check(SystemTime::now())?;
        }
        let shown = ShownRoots::default();
        let tls = tls::client_config_noting(identity, shown.clone())?;
        let trust = (shown, identity.roots.clone());
        Self::over(trust, &tls, &Bearer::default(), managers, options)
    }

    fn over(
        (shown, roots): (ShownRoots, Vec<CertificateDer<'static>>),
        tls: &Arc<ClientConfig>,
        bearer: &Bearer,
        managers: &[String],
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            shared: Arc::new(Shared {
                managers: Managers::new(managers, tls, bearer, &options.channel)?,
                options,
                seen: AtomicU64::new(0),
                shown,
                roots,
            }),
        })
    }

    /// A client for a context of a configuration file.
    ///
    /// # Errors
    /// The context's credential or addresses cannot be used.
    pub fn from_context(
        context: &Context,
        mut options: ClientOptions,
    ) -> Result<Self, ClientError> {
        options.only_given |= context.only_these_managers;
        match context.credential()? {
            Credential::Certificate(identity) => Self::new(&identity, &context.managers, options),
            Credential::Bearer { roots, header } => {
                let shown = ShownRoots::default();
                let tls = tls::bearer_config(&roots, shown.clone())?;
                let bearer = Bearer(Some(header));
                Self::over((shown, roots), &tls, &bearer, &context.managers, options)
            }
        }
    }

    /// Where all managers are (`host:port`), as one of them said with its last answer; empty before the first, and for a client that
    /// asks only those it was given.
    #[must_use]
    pub fn managers(&self) -> Vec<String> {
        self.shared.managers.told()
    }

    /// The newest revision of the cluster that an answer to this client named; 0 before the first.
    #[must_use]
    pub fn seen_revision(&self) -> u64 {
        self.shared.seen.load(Ordering::Relaxed)
    }

    /// Whether the manager that was connected last shows other roots than this client trusts: the cluster's CA is being
    /// replaced, and the credential should be renewed, which also learns the roots, before the old one is not trusted any more.
    #[must_use]
    pub fn other_roots(&self) -> bool {
        self.shared.shown.differ_from(&self.shared.roots)
    }

    pub(crate) fn saw(&self, revision: u64) {
        self.shared.seen.fetch_max(revision, Ordering::Relaxed);
    }

    /// Turns to the next manager, after a stream from the current one broke.
    pub(crate) fn rotate(&self) {
        let managers = &self.shared.managers;
        managers.rotate(&managers.current());
    }

    /// The options that this client was made with.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }
}

#[cfg(test)]
mod tests;
