//! The subject of a certificate: O is the cluster, OU the role, CN the uid.

use barge_proto::v1::Role;
use x509_parser::{
    parse_x509_certificate,
    x509::{AttributeTypeAndValue, X509Name},
};

/// The holder of a certificate, as the certificate names it. Whether the certificate is to be believed is
/// for the TLS handshake to say; whether the holder still belongs to the cluster, for the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The cluster's id.
    pub cluster_id: String,
    /// What the holder is.
    pub role: Role,
    /// The holder's uid.
    pub uid: String,
}

impl Subject {
    /// Reads the subject of a certificate in DER.
    ///
    /// # Errors
    /// Not a certificate, or one that does not name cluster, role and uid, each once.
    pub fn of(certificate: &[u8]) -> Result<Self, SubjectError> {
        let (_, certificate) =
            parse_x509_certificate(certificate).map_err(|_| SubjectError::NotACertificate)?;
        let name: &X509Name<'_> = certificate.subject();
        let role = only("role", name.iter_organizational_unit())?;
        Ok(Self {
            cluster_id: only("cluster", name.iter_organization())?,
            role: role_from_word(&role).ok_or(SubjectError::Role(role))?,
            uid: only("uid", name.iter_common_name())?,
        })
    }
}

fn only<'a, 'b: 'a>(
    what: &'static str,
    mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>,
) -> Result<String, SubjectError> {
    match (values.next(), values.next()) {
        (Some(value), None) => match value.as_str() {
            Ok(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(SubjectError::Missing(what)),
        },
        _ => Err(SubjectError::Missing(what)),
    }
}

/// The word for a role in certificates and files.
#[must_use]
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Manager => "manager",
        Role::Agent => "agent",
        Role::Admin => "admin",
        Role::Anyone | Role::Unspecified => "anyone",
    }
}

/// The role that a word of a certificate or file names; only roles that hold certificates.
#[must_use]
pub fn role_from_word(word: &str) -> Option<Role> {
    [Role::Manager, Role::Agent, Role::Admin]
        .into_iter()
        .find(|role| role_word(*role) == word)
}

/// Why a certificate's subject is of no use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubjectError {
    /// The bytes are not an X.509 certificate.
    #[error("not an X.509 certificate")]
    NotACertificate,
    /// A part of the name is missing, empty or there twice.
    #[error("the certificate does not name a {0}")]
    Missing(&'static str),
    /// The role is none that exists.
    #[error("the certificate names the role \"{0}\", which does not exist")]
    Role(String),
}
