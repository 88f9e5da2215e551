//! Barge's client library.
//!
//! What a program needs to talk to a cluster, from the ground up:
//!
//! * [`identity`]: a private key, a certificate and the roots to trust, in files;
//! * [`token`] and [`join`]: how a machine gets its identity; [`renew`]: how it renews its certificate;
//! * [`config`]: the files in which a person keeps credentials (`config.toml`, `admin.toml`);
//! * [`tls`] and [`channel`]: mutually authenticated connections to managers;
//! * [`supervisor`]: readiness and watchdog messages to systemd;
//! * [`backup`]: the file format of a cluster's backup;
//! * [`pipeline`]: many writes over one stream;
//! * [`Client`]: the API, over whichever manager can serve it.

#![warn(missing_docs)]

pub mod backoff;
pub mod backup;
pub mod channel;
pub mod client;
pub mod config;
pub mod duration;
pub mod error;
pub mod files;
pub mod identity;
pub mod join;
pub mod pipeline;
pub mod renew;
pub mod supervisor;
#[cfg(test)]
mod test_ca;
pub mod tls;
pub mod token;
pub mod watch;

pub use client::{
    ApplyOptions, Client, ClientOptions, DeleteOptions, ExecEvent, ExecInput, ExecOutput,
    ExecStream, FetchError, Listing, LogStream, PortInput, PortOutput, PortStream, Selection,
    StreamEnded, UpdateOptions, batches,
};
pub use error::ClientError;
pub use watch::{WatchEvent, Watcher};

/// The messages of the API.
pub use barge_proto::v1;
