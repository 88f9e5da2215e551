//! A cluster's CA for tests: it issues the same certificates as a manager.

use std::time::{SystemTime, UNIX_EPOCH};

use barge_proto::v1::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;

use crate::{
    identity::{Identity, role_word},
    tls::SERVER_NAME,
};

pub(crate) struct TestCa {
    pub root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "barge root");
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            root,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for a public key.
    pub(crate) fn sign(
        &self,
        role: Role,
        uid: &str,
        key: &impl PublicKeyData,
    ) -> CertificateDer<'static> {
        self.certify(role, uid, key, None)
    }

    fn certify(
        &self,
        role: Role,
        uid: &str,
        key: &impl PublicKeyData,
        life: Option<(SystemTime, SystemTime)>,
    ) -> CertificateDer<'static> {
        let names = match role {
            Role::Manager => vec![SERVER_NAME.to_owned()],
            _ => vec![],
        };
        let mut params = CertificateParams::new(names).unwrap();
        let name = &mut params.distinguished_name;
        name.remove(DnType::CommonName);
        name.push(DnType::OrganizationName, "test-cluster");
        name.push(DnType::OrganizationalUnitName, role_word(role));
        name.push(DnType::CommonName, uid);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if let Some((from, until)) = life {
            let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap();
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            params.not_before = epoch + since(from);
            params.not_after = epoch + since(until);
        }
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    pub(crate) fn issue(&self, role: Role, uid: &str) -> Identity {
        self.identity(role, uid, None)
    }

    /// As `issue`, valid from one moment to another.
    pub(crate) fn issue_for(
        &self,
        role: Role,
        uid: &str,
        from: SystemTime,
        until: SystemTime,
    ) -> Identity {
        self.identity(role, uid, Some((from, until)))
    }

    fn identity(&self, role: Role, uid: &str, life: Option<(SystemTime, SystemTime)>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let leaf = self.certify(role, uid, &key, life);
        Identity {
            cluster_id: "test-cluster".into(),
            role,
            uid: uid.into(),
            key: key.serialize_pem(),
            chain: vec![leaf],
            roots: vec![self.root.clone()],
            members: vec!["127.0.0.1:7101".into()],
        }
    }
}
