//! The certificates that this manager shows and trusts, replaceable while it runs.

use std::sync::Arc;

use barge_client::{
    identity::Identity,
    tls::{ALPN, LiveTls, TlsError, provider, root_store},
};
use rustls::{ClientConfig, ServerConfig, server::WebPkiClientVerifier, version};
use tokio::sync::watch;

/// Both TLS ends of one identity; new connections use what was set last, open ones stay as they are. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    server: watch::Sender<Arc<ServerConfig>>,
    client: LiveTls,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Prepares both ends for an identity.
    ///
    /// # Errors
    /// When its key, certificate or roots are of no use.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self {
            server: watch::Sender::new(server_config(identity)?),
            client: LiveTls::new(identity)?,
        })
    }

    /// Uses another certificate or other roots from the next connection on.
    ///
    /// # Errors
    /// As [`Credentials::new`]; then nothing changes.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        let server = server_config(identity)?;
        self.client.replace(identity)?;
        self.server.send_replace(server);
        Ok(())
    }

    /// For the next incoming connection.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.borrow().clone()
    }

    /// As [`Credentials::server`], for clients that ask for `protocol` by ALPN.
    #[must_use]
    pub fn server_for(&self, protocol: &[u8]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.server.borrow());
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// For dialling other managers; it stays the same and shows what is current.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.config()
    }
}

fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let roots = Arc::new(root_store(&identity.roots)?);
    // A certificate is optional here and demanded per RPC: joining and health need none.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        // The root goes with the chain: a joiner compares it with the digest in its token.
        .with_single_cert(identity.presented_chain(), identity.key_der()?)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not show its certificate again, and it may have expired meanwhile.
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}
