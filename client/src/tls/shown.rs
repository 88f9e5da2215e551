//! The roots that a manager showed in the handshake. From them a client learns that the cluster's CA is being replaced.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use crate::identity::roots_sha256;

/// The roots that the manager of the last handshake showed behind its certificate. It proved that it is a manager, and
/// the handshake is signed, so what it shows is its word. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ShownRoots(Arc<Mutex<Option<[u8; 32]>>>);

impl ShownRoots {
    /// Notes the certificates behind a leaf that was verified.
    pub(crate) fn note(&self, behind: &[CertificateDer<'_>]) {
        let roots: Vec<_> = behind.iter().filter(|der| is_root(der)).collect();
        if !roots.is_empty() {
            *self.lock() = Some(roots_sha256(&roots));
        }
    }

    /// Whether the manager showed other roots than these, or these in another order.
    #[must_use]
    pub fn differ_from(&self, roots: &[CertificateDer<'_>]) -> bool {
        self.lock()
            .is_some_and(|shown| shown != roots_sha256(roots))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<[u8; 32]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A root names itself as its issuer; a root that another one vouches for does not.
fn is_root(certificate: &[u8]) -> bool {
    parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer() && parsed.is_ca())
}
