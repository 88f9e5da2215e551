//! A TLS configuration for the whole life of the process. Its certificate and roots can be replaced: a channel keeps
//! the configuration and uses the current ones whenever it connects again.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

use super::{ALPN, ShownRoots, TlsError, builder, provider, verifier::ClusterVerifier, webpki};
use crate::identity::Identity;

/// The TLS configuration for connections to managers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveTls {
    current: Arc<Current>,
    config: Arc<ClientConfig>,
}

impl LiveTls {
    /// Shows the certificate of `identity` and trusts its roots, until they are replaced.
    ///
    /// # Errors
    /// The identity's key, certificate or roots are of no use.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        Self::noting(identity, ShownRoots::default())
    }

    /// As [`LiveTls::new`]; what roots managers show is noted, until the identity is replaced.
    ///
    /// # Errors
    /// As [`LiveTls::new`].
    pub fn noting(identity: &Identity, shown: ShownRoots) -> Result<Self, TlsError> {
        let material = Material::of(identity, shown)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(material))));
        let mut config = builder(current.clone())?.with_client_cert_resolver(current.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            current,
            config: Arc::new(config),
        })
    }

    /// The configuration; it stays the same for ever.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// Shows and trusts what `identity` has from the next handshake on; connections that are open stay.
    ///
    /// # Errors
    /// As [`LiveTls::new`]; then nothing changes.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        let material = Arc::new(Material::of(identity, ShownRoots::default())?);
        *self
            .current
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = material;
        Ok(())
    }
}

#[derive(Debug)]
struct Current(RwLock<Arc<Material>>);

/// The certificate to show, and the roots to trust.
#[derive(Debug)]
struct Material {
    shown: Arc<CertifiedKey>,
    verifier: ClusterVerifier,
}

impl Material {
    fn of(identity: &Identity, roots: ShownRoots) -> Result<Self, TlsError> {
        let shown =
            CertifiedKey::from_der(identity.chain.clone(), identity.key_der()?, &provider())?;
        Ok(Self {
            shown: Arc::new(shown),
            verifier: ClusterVerifier::new(webpki(&identity.roots)?, roots),
        })
    }
}

impl Current {
    fn get(&self) -> Arc<Material> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get().shown.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for Current {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.get().verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get()
            .verifier
            .verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get()
            .verifier
            .verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.get().verifier.supported_verify_schemes()
    }
}
