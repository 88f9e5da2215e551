//! The subject of a certificate: O = cluster id, OU = role, CN = uid; and for managers their Raft id.

use barge_client::{
    identity::{self, role_word},
    tls::SERVER_NAME,
};
use barge_proto::v1::Role;
use rcgen::{DistinguishedName, DnType};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::PkiError;

/// The holder of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The cluster that issued it.
    pub cluster_id: String,
    /// Manager, agent or admin.
    pub role: Role,
    /// Identity of the holder, for ever.
    pub uid: String,
    /// A manager's Raft id, as the DNS name `raft-<id>.manager.barge`. Raft ids only grow, so a manager whose state
    /// is behind can tell one that was removed from one that joined later.
    pub raft_id: Option<u64>,
}

impl Subject {
    /// Reads the subject of a certificate whose signature was verified elsewhere (by the handshake).
    ///
    /// # Errors
    /// [`PkiError::Malformed`] when it is not a certificate of a Barge cluster.
    pub fn from_certificate(der: &[u8]) -> Result<Self, PkiError> {
        let holder =
            identity::Subject::of(der).map_err(|error| PkiError::Malformed(error.to_string()))?;
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| PkiError::Malformed(format!("not a certificate: {error}")))?;
        let raft_id = raft_id(&certificate);
        if holder.role == Role::Manager && raft_id.is_none() {
            return Err(PkiError::Malformed(
                "the manager's certificate does not name a Raft id".to_owned(),
            ));
        }
        Ok(Self {
            cluster_id: holder.cluster_id,
            role: holder.role,
            uid: holder.uid,
            raft_id,
        })
    }

    pub(super) fn distinguished_name(&self) -> Result<DistinguishedName, PkiError> {
        if !matches!(self.role, Role::Manager | Role::Agent | Role::Admin) {
            return Err(PkiError::Malformed(
                "this role has no certificates".to_owned(),
            ));
        }
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, self.cluster_id.as_str());
        name.push(DnType::OrganizationalUnitName, role_word(self.role));
        name.push(DnType::CommonName, self.uid.as_str());
        Ok(name)
    }

    pub(super) fn dns_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.role == Role::Manager {
            names.push(SERVER_NAME.to_owned());
            names.extend(self.raft_id.map(|id| format!("raft-{id}.{SERVER_NAME}")));
        }
        names
    }
}

fn raft_id(certificate: &X509Certificate<'_>) -> Option<u64> {
    let san = certificate.subject_alternative_name().ok()??;
    san.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(dns) => dns
            .strip_prefix("raft-")?
            .strip_suffix(SERVER_NAME)?
            .strip_suffix('.')?
            .parse()
            .ok(),
        _ => None,
    })
}
