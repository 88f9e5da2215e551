//! The certificates that this manager shows and trusts, replaceable while it runs.

use std::sync::Arc;

use barge_client::{
    identity::Identity,
    tls::{TlsError, client_config, provider, root_store},
};
use rustls::{
    ClientConfig, ServerConfig, pki_types::CertificateDer, server::WebPkiClientVerifier, version,
};
use tokio::sync::watch;

/// Both TLS ends of one identity.
#[derive(Clone)]
pub struct Ends {
    /// For those who dial us.
    pub server: Arc<ServerConfig>,
    /// For dialling other managers.
    pub client: Arc<ClientConfig>,
    /// Our certificate, DER.
    pub certificate: CertificateDer<'static>,
}

/// A handle to the current [`Ends`]; new connections use what was set last, open ones stay as they are.
#[derive(Clone)]
pub struct Credentials {
    current: watch::Sender<Ends>,
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
            current: watch::Sender::new(ends(identity)?),
        })
    }

    /// Uses another certificate or other roots from the next connection on.
    ///
    /// # Errors
    /// As [`Credentials::new`]; then nothing changes.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        self.current.send_replace(ends(identity)?);
        Ok(())
    }

    /// What new connections use now.
    #[must_use]
    pub fn current(&self) -> Ends {
        self.current.borrow().clone()
    }

    /// Tells when the ends were replaced.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Ends> {
        self.current.subscribe()
    }
}

fn ends(identity: &Identity) -> Result<Ends, TlsError> {
    let roots = Arc::new(root_store(&identity.roots)?);
    // A certificate is optional here and demanded per RPC: joining and health need none.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        // The root goes with the chain: who joins compares it with the digest in its token.
        .with_single_cert(identity.presented_chain(), identity.key_der()?)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not show its certificate again, and it may have expired meanwhile.
    server.send_tls13_tickets = 0;
    Ok(Ends {
        server: Arc::new(server),
        client: client_config(identity)?,
        certificate: identity
            .chain
            .first()
            .cloned()
            .unwrap_or_else(|| CertificateDer::from(Vec::new())),
    })
}
