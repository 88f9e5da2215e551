//! TLS configurations for connections to a manager. The crypto provider (ring) is passed explicitly;
//! nothing depends on a process-wide default.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    client::danger::ServerCertVerifier,
    client::{VerifierBuilderError, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::CertificateDer,
};

use crate::identity::{Identity, IdentityError};

mod live;
mod shown;
mod verifier;

pub use live::LiveTls;
pub use shown::ShownRoots;
pub(crate) use verifier::Refused;
use verifier::{ClusterVerifier, PinnedVerifier};

/// The name in every manager's certificate. Certificates do not name hosts, so this is what clients ask for
/// whatever the address.
pub const SERVER_NAME: &str = "manager.barge";

/// What connections of most services ask for by ALPN.
pub const ALPN: &[u8] = b"h2";

/// What connections for life signs ask for by ALPN. A manager serves them on a thread of their own, where nothing else runs; what
/// is spoken is HTTP/2 as well.
pub const LIFE_ALPN: &[u8] = b"barge-life/1";

/// What connections for Raft ask for by ALPN, for the same reason.
pub const RAFT_ALPN: &[u8] = b"barge-raft/1";

/// The crypto provider of all connections.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The configuration of a party that has an identity, which does not change: trusts the identity's roots, shows its
/// certificate.
///
/// # Errors
/// The identity's key, certificate or roots are of no use.
pub fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_noting(identity, ShownRoots::default())
}

/// As [`client_config`]; what roots managers show is noted.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_noting(
    identity: &Identity,
    shown: ShownRoots,
) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(LiveTls::noting(identity, shown)?.config())
}

/// The configuration of a party that sends a bearer token: trusts `roots`, and shows no certificate. What roots managers
/// show is noted.
///
/// # Errors
/// The roots are of no use.
pub fn bearer_config(
    roots: &[CertificateDer<'static>],
    shown: ShownRoots,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(ClusterVerifier::new(webpki(roots)?, shown));
    let mut config = builder(verifier)?.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The configuration of a party that has only a join token: trusts a manager whose chain leads to the root with
/// this SHA-256, and shows no certificate.
///
/// # Errors
/// The crypto provider does not know the protocol versions; it does.
pub fn pinned_config(ca_digest: [u8; 32]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config =
        builder(Arc::new(PinnedVerifier::new(ca_digest, provider())))?.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each joiner dials once; resumption would skip the comparison for nothing.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The same configuration for connections that carry nothing but life signs: it shows and trusts what `config` does, also when
/// that is replaced ([`LiveTls`]).
#[must_use]
pub fn for_life_signs(config: &ClientConfig) -> Arc<ClientConfig> {
    for_protocol(config, LIFE_ALPN)
}

/// As [`for_life_signs`], for connections that carry nothing but what one manager's Raft says to another's.
#[must_use]
pub fn for_raft(config: &ClientConfig) -> Arc<ClientConfig> {
    for_protocol(config, RAFT_ALPN)
}

fn for_protocol(config: &ClientConfig, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

/// The set of trust anchors of some root certificates.
///
/// # Errors
/// One of them is not a certificate.
pub fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    Ok(store)
}

fn webpki(roots: &[CertificateDer<'static>]) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let store = Arc::new(root_store(roots)?);
    Ok(WebPkiServerVerifier::builder_with_provider(store, provider()).build()?)
}

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The identity is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Key and certificate do not belong together, or are not what they should be.
    #[error("unusable certificate or key: {0}")]
    Rustls(#[from] rustls::Error),
    /// There is no root to trust.
    #[error("unusable roots: {0}")]
    Roots(#[from] VerifierBuilderError),
}

#[cfg(test)]
mod tests;
