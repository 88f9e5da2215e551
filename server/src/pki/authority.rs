//! The certificate authority: the root and what it signs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use barge_client::identity::{SubjectError, Validity};
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use super::{PkiError, Subject};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Life of the root.
pub const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Life of everything else, unless a setting says otherwise.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates are valid a little before they are made: clocks differ. At most a tenth of their life.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// A root certificate with its key.
pub struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// The public key out of a certificate request, its possession proven by the request's signature.
#[derive(Debug)]
pub struct RequestedKey {
    spki: SubjectPublicKeyInfo,
    /// SHA-256 of the SubjectPublicKeyInfo's DER.
    pub sha256: Vec<u8>,
}

impl RequestedKey {
    /// Takes the public key from a PKCS#10 request and ignores everything else that it asks for.
    ///
    /// # Errors
    /// [`PkiError::Malformed`] when it is no request, not signed by its own key, or not an ECDSA P-256 key.
    pub fn from_csr(der: &[u8]) -> Result<Self, PkiError> {
        let malformed = |e: String| PkiError::Malformed(format!("certificate request: {e}"));
        // rcgen verifies the signature.
        rcgen::CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|e| malformed(e.to_string()))?;
        let (_, request) =
            X509CertificationRequest::from_der(der).map_err(|e| malformed(e.to_string()))?;
        Self::from_spki(request.certification_request_info.subject_pki.raw)
    }

    /// Takes a public key whose possession is proven otherwise.
    ///
    /// # Errors
    /// [`PkiError::Malformed`] when it is not an ECDSA P-256 key.
    pub fn from_spki(der: &[u8]) -> Result<Self, PkiError> {
        let spki = SubjectPublicKeyInfo::from_der(der)
            .map_err(|e| PkiError::Malformed(format!("public key: {e}")))?;
        if spki.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(PkiError::Malformed(
                "the key must be an ECDSA key on the curve P-256".to_owned(),
            ));
        }
        Ok(Self {
            sha256: Sha256::digest(der).to_vec(),
            spki,
        })
    }
}

impl Authority {
    /// Makes a new root. No two have the same name, so a root that another one vouches for is told from one that vouches for
    /// itself.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn create(cluster_id: &str, now: SystemTime) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        validity(&mut params, now, ROOT_LIFE);
        params.serial_number = Some(serial());
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, cluster_id);
        let number: u32 = rand::rng().random();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Barge cluster CA {number:08x}"));
        // One below it: the root that replaces it, for as long as both are trusted.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key)?.der().clone();
        Ok(Self {
            root,
            issuer: Issuer::new(params, key),
        })
    }

    /// Opens an existing root with its key (PKCS#8 DER).
    ///
    /// # Errors
    /// When either is malformed.
    pub fn open(root: &[u8], key: &[u8]) -> Result<Self, PkiError> {
        let root = CertificateDer::from(root.to_vec());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(key),
            &PKCS_ECDSA_P256_SHA256,
        )?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&root, key)?,
            root,
        })
    }

    /// The root, DER.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root's key, PKCS#8 DER, to be sealed before it goes anywhere.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// Signs the key of another root: with this certificate in the chain, who trusts only this root believes what the other
    /// one signs.
    ///
    /// # Errors
    /// When this root has ended, or the other one is malformed.
    pub fn vouch_for(
        &self,
        other: &Self,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name_of(&other.root)?;
        validity(&mut params, now, self.life_left(now)?);
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(params
            .signed_by(other.issuer.key(), &self.issuer)?
            .der()
            .clone())
    }

    /// Signs a certificate that says that the holder of `key` is `subject`, for `life` or until the root ends.
    ///
    /// # Errors
    /// When the subject's role has no certificates, or the root has ended.
    pub fn issue(
        &self,
        subject: &Subject,
        key: &RequestedKey,
        now: SystemTime,
        life: Duration,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let mut params = CertificateParams::new(subject.dns_names())?;
        validity(&mut params, now, life.min(self.life_left(now)?));
        params.serial_number = Some(serial());
        params.distinguished_name = subject.distinguished_name()?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !params.subject_alt_names.is_empty() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        Ok(params.signed_by(&key.spki, &self.issuer)?.der().clone())
    }

    /// Makes a key and signs a certificate for it: the key (PKCS#8 DER) and the certificate.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn issue_with_new_key(
        &self,
        subject: &Subject,
        now: SystemTime,
        life: Duration,
    ) -> Result<(KeyPair, CertificateDer<'static>), PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let requested = RequestedKey::from_spki(&key.subject_public_key_info())?;
        let certificate = self.issue(subject, &requested, now, life)?;
        Ok((key, certificate))
    }

    /// The rest of the root's life: a certificate that outlives its root is not trusted.
    fn life_left(&self, now: SystemTime) -> Result<Duration, PkiError> {
        let malformed = |error: SubjectError| PkiError::Malformed(format!("the root: {error}"));
        let until = Validity::of(&self.root).map_err(malformed)?.until;
        until.duration_since(now).map_err(|_| PkiError::RootEnded)
    }
}

/// The name of a root, as it was made.
fn name_of(root: &[u8]) -> Result<DistinguishedName, PkiError> {
    let malformed = |what: String| PkiError::Malformed(format!("the root: {what}"));
    let (_, root) =
        X509Certificate::from_der(root).map_err(|error| malformed(error.to_string()))?;
    let subject = root.subject();
    let mut name = DistinguishedName::new();
    for (kind, part) in [
        (DnType::OrganizationName, subject.iter_organization().next()),
        (DnType::CommonName, subject.iter_common_name().next()),
    ] {
        let part = part.and_then(|part| part.as_str().ok());
        name.push(
            kind,
            part.ok_or_else(|| malformed("it has no name".to_owned()))?,
        );
    }
    Ok(name)
}

fn validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(DAY);
    // rcgen wants a type of the `time` crate; its sum with a standard duration saves the dependency.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(SKEW.min(life / 10));
    params.not_after = epoch + since_epoch + life;
}

fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::rng().random();
    // Positive and never zero, as X.509 demands.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use barge_proto::v1::Role;

    use super::*;

    fn subject(role: Role, raft_id: Option<u64>) -> Subject {
        Subject {
            cluster_id: "c".to_owned(),
            role,
            uid: "u".to_owned(),
            raft_id,
        }
    }

    #[test]
    fn a_leaf_says_who_it_is() {
        let ca = Authority::create("c", SystemTime::now()).unwrap();
        for subject in [
            subject(Role::Manager, Some(7)),
            subject(Role::Agent, None),
            subject(Role::Admin, None),
        ] {
            let (_, der) = ca
                .issue_with_new_key(&subject, SystemTime::now(), LEAF_LIFE)
                .unwrap();
            assert_eq!(Subject::from_certificate(&der).unwrap(), subject);
        }
    }

    #[test]
    fn an_opened_authority_signs_like_the_created_one() {
        let ca = Authority::create("c", SystemTime::now()).unwrap();
        let again = Authority::open(ca.root(), ca.key()).unwrap();
        let (_, der) = again
            .issue_with_new_key(&subject(Role::Agent, None), SystemTime::now(), LEAF_LIFE)
            .unwrap();
        let (_, root) = x509_parser::parse_x509_certificate(ca.root()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();
        assert_eq!(leaf.issuer(), root.subject());
    }

    #[test]
    fn a_request_with_a_broken_signature_is_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        assert!(RequestedKey::from_csr(csr.der()).is_ok());
        let mut bad = csr.der().to_vec();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        assert!(RequestedKey::from_csr(&bad).is_err());
    }

    #[test]
    fn a_leaf_lives_as_long_as_it_is_told_but_not_longer_than_the_root() {
        let now = SystemTime::now();
        let ca = Authority::create("c", now).unwrap();
        let life = |life| {
            let (_, der) = ca
                .issue_with_new_key(&subject(Role::Agent, None), now, life)
                .unwrap();
            let validity = Validity::of(&der).unwrap();
            validity.until.duration_since(validity.from).unwrap()
        };
        // Begun a tenth early; certificates count whole seconds.
        assert_eq!(life(Duration::from_secs(100)).as_secs(), 110);
        assert!(life(ROOT_LIFE * 2) <= ROOT_LIFE + SKEW);
        let late = ca.issue_with_new_key(
            &subject(Role::Agent, None),
            now + ROOT_LIFE * 2,
            Duration::from_secs(100),
        );
        assert!(matches!(late, Err(PkiError::RootEnded)));
    }

    #[test]
    fn no_certificate_for_a_role_without_identity() {
        let ca = Authority::create("c", SystemTime::now()).unwrap();
        assert!(
            ca.issue_with_new_key(&subject(Role::Anyone, None), SystemTime::now(), LEAF_LIFE)
                .is_err()
        );
    }
}
