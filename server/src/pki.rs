//! The cluster's own certificate authority: subjects ([`subject`]), issuing ([`authority`]), sealing
//! of secrets ([`seal`]), also under a passphrase ([`passphrase`]), this manager's
//! copy of the sealing key ([`keyring`]), and signed tokens ([`jws`]).

pub mod authority;
mod chain;
pub mod jws;
pub mod keyring;
pub mod passphrase;
pub mod seal;
pub mod subject;

pub use authority::{Authority, RequestedKey};
pub use chain::chain;
pub use keyring::Keyring;
pub use seal::{Purpose, SealingKey};
pub use subject::Subject;

/// What can go wrong with certificates and sealed data.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or certificate could not be made.
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A certificate or request from another party is not valid for its purpose.
    #[error("{0}")]
    Malformed(String),
    /// The root's own life is over.
    #[error("the cluster's CA has expired, or this machine's clock is wrong")]
    RootEnded,
    /// Sealed data that this key does not open: another key, another purpose, or damaged.
    #[error("sealed data does not open: the sealing key is another one, or the data is damaged")]
    Sealed,
    /// The sealing key is under a passphrase, and this manager was not given that since it began.
    #[error(
        "the manager that was to do this is locked, because it was started again: `barge cluster unlock` gives it its sealing key \
         back, and `barge cluster status` shows which managers are locked"
    )]
    Locked,
}
