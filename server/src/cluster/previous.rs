//! Joining again: a machine whose certificate has expired sends it beside a new token, and proves that it still has its key.

use barge_proto::v1::{ClusterRecord, JoinRequest, Role};
use barge_state::Kind;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{error::ApiError, pki::Subject};

/// The uid in the certificate that the request shows, if it shows one. The request itself is signed by `key_sha256`'s
/// key; that has to be the certificate's.
///
/// # Errors
/// INVALID for a certificate that is none, TOKEN for one that proves nothing here.
pub fn uid(
    cluster: &ClusterRecord,
    role: Role,
    request: &JoinRequest,
    key_sha256: &[u8],
) -> Result<Option<String>, ApiError> {
    let der = request.previous_certificate.as_slice();
    if der.is_empty() {
        return Ok(None);
    }
    let invalid = |what: String| ApiError::invalid("previous_certificate", what);
    let subject = Subject::from_certificate(der).map_err(|error| invalid(error.to_string()))?;
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| invalid(error.to_string()))?;
    let refused = |what: &str| {
        Err(ApiError::Token(format!(
            "{what}: move the data folder's identity away to join as another machine"
        )))
    };
    if subject.cluster_id != cluster.uid() {
        return refused("the certificate in the data folder is of another cluster");
    }
    if subject.role != role {
        return refused("the certificate in the data folder is of another role than the token");
    }
    let signed = cluster.roots.iter().any(|root| {
        X509Certificate::from_der(root).is_ok_and(|(_, root)| {
            certificate
                .verify_signature(Some(root.public_key()))
                .is_ok()
        })
    });
    if !signed {
        return refused("the certificate in the data folder is not of a CA that is trusted");
    }
    if Sha256::digest(certificate.public_key().raw).as_slice() != key_sha256 {
        return refused("the request is not signed by the key of the certificate");
    }
    Ok(Some(subject.uid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::{Duration, SystemTime};

    use barge_proto::v1::ObjectMeta;

    use super::*;
    use crate::pki::{Authority, RequestedKey};

    /// A request that shows a certificate of `ca` which expired long ago, and the key it is signed by.
    fn expired(ca: &Authority, role: Role) -> (JoinRequest, Vec<u8>) {
        let subject = Subject {
            cluster_id: "c".to_owned(),
            role,
            uid: "n1".to_owned(),
            raft_id: (role == Role::Manager).then_some(1),
        };
        let then = SystemTime::now() - Duration::from_secs(86_400);
        let (key, certificate) = ca
            .issue_with_new_key(&subject, then, Duration::from_secs(60))
            .unwrap();
        let request = JoinRequest {
            previous_certificate: certificate.to_vec(),
            ..JoinRequest::default()
        };
        let key = RequestedKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(&key));
        (request, key.unwrap().sha256)
    }

    fn cluster(ca: &Authority, id: &str) -> ClusterRecord {
        ClusterRecord {
            metadata: Some(ObjectMeta {
                uid: id.to_owned(),
                ..ObjectMeta::default()
            }),
            roots: vec![ca.root().to_vec()],
            ..ClusterRecord::default()
        }
    }

    fn authority() -> Authority {
        Authority::create("c", SystemTime::now()).unwrap()
    }

    #[test]
    fn an_expired_certificate_and_its_key_bring_the_uid_back() {
        let ca = authority();
        let (request, key) = expired(&ca, Role::Agent);
        let found = uid(&cluster(&ca, "c"), Role::Agent, &request, &key).unwrap();
        assert_eq!(found.as_deref(), Some("n1"));
        let nothing = JoinRequest::default();
        assert_eq!(
            uid(&cluster(&ca, "c"), Role::Agent, &nothing, &key).unwrap(),
            None
        );
    }

    #[test]
    fn what_proves_nothing_is_refused_with_its_reason() {
        let ca = authority();
        let (request, key) = expired(&ca, Role::Agent);
        let refused = |cluster: &ClusterRecord, role, key: &[u8]| {
            uid(cluster, role, &request, key).unwrap_err().to_string()
        };
        assert!(refused(&cluster(&ca, "other"), Role::Agent, &key).contains("another cluster"));
        assert!(refused(&cluster(&ca, "c"), Role::Manager, &key).contains("another role"));
        assert!(refused(&cluster(&authority(), "c"), Role::Agent, &key).contains("not of a CA"));
        assert!(refused(&cluster(&ca, "c"), Role::Agent, &[7; 32]).contains("not signed by"));
        let nonsense = JoinRequest {
            previous_certificate: b"x".to_vec(),
            ..JoinRequest::default()
        };
        assert!(uid(&cluster(&ca, "c"), Role::Agent, &nonsense, &key).is_err());
    }
}
