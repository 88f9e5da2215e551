//! Verifies that the other end is a manager of the right cluster: by known roots, or by the digest of one root.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::ShownRoots;
use crate::{
    identity::{NotValid, Validity},
    token,
};

/// A handshake that failed for a reason worth a sentence.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The chain does not lead to a root that is trusted.
    #[error(
        "it belongs to another cluster, or the cluster's CA was rotated while this credential was not used: its certificate is \
         not of the CA in this credential"
    )]
    AnotherCluster,
    /// The chain holds no root with the token's digest.
    #[error(
        "it presents another cluster's CA, or one that replaced the token's since it was made (then make another token): the \
         token is for the cluster whose CA has the SHA-256 {expected}"
    )]
    AnotherCa {
        /// The digest in the token, in hex.
        expected: String,
    },
    /// By this machine's clock the certificate is not valid (yet, or any more).
    #[error(
        "its {0}: correct the clock that is wrong, or wait until the manager has renewed its certificate"
    )]
    Clock(NotValid),
    /// The pinned root is there, but did not sign the leaf (or the leaf is no manager's, or expired).
    #[error("its certificate is not a manager's of the pinned CA: {0}")]
    NotSigned(Error),
}

impl Refused {
    /// Whether the other side is another cluster's, which no other try would change.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::Clock(_))
    }
}

fn refuse(reason: Refused) -> Error {
    Error::Other(OtherError(Arc::new(reason)))
}

/// What the clocks have to do with a refusal, if anything.
fn by_the_clock(error: &Error, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Refused> {
    use CertificateError as Why;
    let Error::InvalidCertificate(
        Why::Expired
        | Why::ExpiredContext { .. }
        | Why::NotValidYet
        | Why::NotValidYetContext { .. },
    ) = error
    else {
        return None;
    };
    let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let not_valid = Validity::of(certificate).ok()?.check(now).err()?;
    Some(Refused::Clock(not_valid))
}

/// WebPKI over the identity's roots, with a sentence for the failures that people meet.
#[derive(Debug)]
pub struct ClusterVerifier {
    inner: Arc<WebPkiServerVerifier>,
    shown: ShownRoots,
}

impl ClusterVerifier {
    pub fn new(inner: Arc<WebPkiServerVerifier>, shown: ShownRoots) -> Self {
        Self { inner, shown }
    }
}

impl ServerCertVerifier for ClusterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .inspect(|_| self.shown.note(intermediates))
            .map_err(|error| match error {
                Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => refuse(Refused::AnotherCluster),
                other => by_the_clock(&other, end_entity, now).map_or(other, refuse),
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Finds the root with the pinned digest in the presented chain, and then trusts exactly that root.
#[derive(Debug)]
pub struct PinnedVerifier {
    ca_digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    pub fn new(ca_digest: [u8; 32], provider: Arc<CryptoProvider>) -> Self {
        Self {
            ca_digest,
            provider,
        }
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Only what stands behind the leaf: a leaf that is its own root proves nothing.
        let root = intermediates
            .iter()
            .find(|certificate| token::ca_digest(certificate) == self.ca_digest)
            .ok_or_else(|| {
                refuse(Refused::AnotherCa {
                    expected: token::hex(&self.ca_digest),
                })
            })?;
        let not_signed = |error: Error| {
            let reason = by_the_clock(&error, end_entity, now);
            refuse(reason.unwrap_or(Refused::NotSigned(error)))
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.clone().into_owned()).map_err(not_signed)?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(not_signed)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
