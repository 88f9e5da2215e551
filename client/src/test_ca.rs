//! A cluster's CA, for tests: what a manager's PKI issues.

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
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    pub(crate) fn issue(&self, role: Role, uid: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let leaf = self.sign(role, uid, &key);
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
