//! Who this process is: a key, a certificate of the cluster's CA, and whom to trust.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use barge_proto::v1::Role;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::files;

pub mod pem;
mod subject;

pub use subject::{Subject, SubjectError, role_from_word, role_word};

/// The file of an identity's folder that holds the private key (PKCS#8, PEM).
pub const KEY_FILE: &str = "key.pem";
const CERTIFICATE_FILE: &str = "certificate.pem";
const ROOTS_FILE: &str = "roots.pem";
/// Written last: an identity is there when this file is.
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

/// The part of an identity that is neither key nor certificate.
#[derive(Serialize, Deserialize)]
struct Names {
    cluster_id: String,
    role: String,
    uid: String,
    members: Vec<String>,
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
        let names: Names = toml::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let role = role_from_word(&names.role)
            .ok_or_else(|| damaged(format!("\"{}\" is not a role", names.role)))?;
        let identity = Self {
            cluster_id: names.cluster_id,
            role,
            uid: names.uid,
            key: read_text(&dir.join(KEY_FILE))?,
            chain: read_certificates(&dir.join(CERTIFICATE_FILE))?,
            roots: read_certificates(&dir.join(ROOTS_FILE))?,
            members: names.members,
        };
        identity.key_der()?;
        Ok(Some(identity))
    }

    /// Keeps the identity in `dir`, each file 0600; the folder is made when it is missing.
    ///
    /// # Errors
    /// What the file system says; then `load` finds what was there before, or nothing.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        files::create_private_dir(dir).map_err(IdentityError::file(dir))?;
        let write = |name: &str, content: &str| {
            let path = dir.join(name);
            files::write_private(&path, content.as_bytes()).map_err(IdentityError::file(&path))
        };
        write(KEY_FILE, &self.key)?;
        write(CERTIFICATE_FILE, &pem::encode_certificates(&self.chain))?;
        write(ROOTS_FILE, &pem::encode_certificates(&self.roots))?;
        self.save_names(dir)
    }

    /// Remembers other addresses of managers, and leaves key and certificates alone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save_members(&mut self, dir: &Path, members: Vec<String>) -> Result<(), IdentityError> {
        self.members = members;
        self.save_names(dir)
    }

    fn save_names(&self, dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(IDENTITY_FILE);
        let names = Names {
            cluster_id: self.cluster_id.clone(),
            role: role_word(self.role).to_owned(),
            uid: self.uid.clone(),
            members: self.members.clone(),
        };
        let text = toml::to_string(&names).map_err(|error| IdentityError::Damaged {
            path: path.clone(),
            what: error.to_string(),
        })?;
        files::write_private(&path, text.as_bytes()).map_err(IdentityError::file(&path))
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

fn read_text(path: &Path) -> Result<String, IdentityError> {
    std::fs::read_to_string(path).map_err(IdentityError::file(path))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    pem::decode_certificates(&read_text(path)?).ok_or_else(|| IdentityError::Damaged {
        path: path.to_owned(),
        what: "holds no certificate".to_owned(),
    })
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
