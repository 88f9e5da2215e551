//! The identity of this process: a private key, a certificate of the cluster's CA, and the roots that it trusts.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use barge_proto::v1::Role;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

use crate::files;

mod kept;
pub mod pem;
mod subject;
mod validity;

pub use kept::KeptIdentity;
pub use subject::{Subject, SubjectError, role_from_word, role_word};
pub use validity::{NotValid, Validity};

/// The file of an identity's folder that holds the private key (PKCS#8, PEM) of a join that was begun; once there is
/// an identity, the key is part of it.
pub const KEY_FILE: &str = "key.pem";
/// Everything in one file, so that key and certificate are replaced together or not at all.
const IDENTITY_FILE: &str = "identity.toml";

/// A party of a cluster, as its certificate names it, with the means to prove it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: String,
    /// What the holder is: manager, agent or admin.
    pub role: Role,
    /// The holder's uid.
    pub uid: String,
    /// The private key: PKCS#8, PEM.
    pub key: String,
    /// The certificate, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots to trust.
    pub roots: Vec<CertificateDer<'static>>,
    /// Addresses (`host:port`) of the managers that were known last.
    pub members: Vec<String>,
}

/// An identity as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster_id: String,
    role: String,
    uid: String,
    members: Vec<String>,
    key: String,
    certificate: String,
    roots: String,
}

impl Identity {
    /// Reads the identity kept in `dir`; `None` when there is none yet.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should.
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(IDENTITY_FILE);
        let Some(text) = files::read_optional(&path).map_err(IdentityError::file(&path))? else {
            return Ok(None);
        };
        let damaged = |what: String| IdentityError::Damaged {
            path: path.clone(),
            what,
        };
        // toml's errors quote the line they point at, which may be of the key.
        let file: File =
            toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        let role = role_from_word(&file.role)
            .ok_or_else(|| damaged(format!("\"{}\" is not a role", file.role)))?;
        let certificates = |name: &str, text: &str| {
            pem::decode_certificates(text)
                .ok_or_else(|| damaged(format!("{name} holds no certificate in PEM")))
        };
        let identity = Self {
            cluster_id: file.cluster_id,
            role,
            uid: file.uid,
            chain: certificates("certificate", &file.certificate)?,
            roots: certificates("roots", &file.roots)?,
            key: file.key,
            members: file.members,
        };
        identity.key_der()?;
        Ok(Some(identity))
    }

    /// Keeps the identity in `dir`, 0600, whole or not at all; the folder is made when it is missing.
    ///
    /// # Errors
    /// What the file system says; then `load` finds what was there before, or nothing.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        files::create_private_dir(dir).map_err(IdentityError::file(dir))?;
        let path = dir.join(IDENTITY_FILE);
        let file = File {
            cluster_id: self.cluster_id.clone(),
            role: role_word(self.role).to_owned(),
            uid: self.uid.clone(),
            members: self.members.clone(),
            key: self.key.clone(),
            certificate: pem::encode_certificates(&self.chain),
            roots: self.roots_pem(),
        };
        let text = toml::to_string(&file).map_err(|error| IdentityError::Damaged {
            path: path.clone(),
            what: error.to_string(),
        })?;
        files::write_private(&path, text.as_bytes()).map_err(IdentityError::file(&path))?;
        let begun = dir.join(KEY_FILE);
        match fs::remove_file(&begun) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::file(&begun)(error))
            }
            _ => Ok(()),
        }
    }

    /// What the certificate says of its holder.
    ///
    /// # Errors
    /// There is no certificate, or it is not one of a cluster.
    pub fn subject(&self) -> Result<Subject, SubjectError> {
        Subject::of(self.chain.first().ok_or(SubjectError::NotACertificate)?)
    }

    /// From when to when the certificate is valid.
    ///
    /// # Errors
    /// There is no certificate, or it is damaged.
    pub fn validity(&self) -> Result<Validity, SubjectError> {
        Validity::of(self.chain.first().ok_or(SubjectError::NotACertificate)?)
    }

    /// The roots, in PEM.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        pem::encode_certificates(&self.roots)
    }

    /// The digest of the roots, by which all parties of a cluster compare what they trust.
    #[must_use]
    pub fn roots_sha256(&self) -> [u8; 32] {
        roots_sha256(&self.roots)
    }

    /// The private key as rustls takes it.
    ///
    /// # Errors
    /// The PEM holds no private key.
    pub fn key_der(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| IdentityError::Key)
    }

    /// The certificates to show in a handshake: the chain, and the roots behind it. Managers show their root
    /// so that a machine that joins can compare it with the digest in its token.
    #[must_use]
    pub fn presented_chain(&self) -> Vec<CertificateDer<'static>> {
        let mut chain = self.chain.clone();
        for root in &self.roots {
            if !chain.contains(root) {
                chain.push(root.clone());
            }
        }
        chain
    }
}

/// SHA-256 over the SHA-256 of each root (DER), in their order. The first root signs, so identities with the same digest have
/// certificates of the same root.
#[must_use]
pub fn roots_sha256<R: AsRef<[u8]>>(roots: &[R]) -> [u8; 32] {
    let mut all = Sha256::new();
    for root in roots {
        all.update(Sha256::digest(root));
    }
    all.finalize().into()
}

// The key must not reach a log.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster_id", &self.cluster_id)
            .field("role", &self.role)
            .field("uid", &self.uid)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// Why an identity could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The key is not a PKCS#8 private key in PEM.
    #[error("the private key is not a PKCS#8 key in PEM")]
    Key,
}

impl IdentityError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

#[cfg(test)]
pub(crate) mod tests;
