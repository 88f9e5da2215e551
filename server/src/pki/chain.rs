//! What a holder shows beside its certificate.

use barge_proto::v1::{CaRotationPhase, ClusterRecord};
use rustls::pki_types::CertificateDer;

/// A certificate that the first root signed, and while the CA is rotated the word of the root before for that one.
#[must_use]
pub fn chain(
    cluster: &ClusterRecord,
    certificate: CertificateDer<'static>,
) -> Vec<CertificateDer<'static>> {
    let rotation = cluster.ca_rotation.as_ref();
    let cross = rotation
        .filter(|rotation| rotation.phase() == CaRotationPhase::Renewing)
        .map(|rotation| rotation.cross_certificate.clone().into());
    std::iter::once(certificate).chain(cross).collect()
}
