//! `config.toml` and `admin.toml`: the credentials of a person, for one cluster or several.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::{
    files,
    identity::{Identity, Subject, SubjectError, pem},
};

/// Contexts, one of which is the current one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the context that is used when none is asked for.
    pub current: String,
    /// The contexts.
    #[serde(rename = "context", default)]
    pub contexts: Vec<Context>,
}

/// A cluster and a credential for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Unique in the file.
    pub name: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// Addresses of managers, `host:port`; any one that answers is enough.
    pub managers: Vec<String>,
    /// The roots to trust, PEM.
    pub roots: String,
    /// The certificate, leaf first, PEM.
    pub certificate: String,
    /// The private key, PKCS#8, PEM.
    pub key: String,
}

impl Config {
    /// A file with one context, named `default`.
    #[must_use]
    pub fn single(identity: &Identity, managers: Vec<String>) -> Self {
        let name = "default".to_owned();
        Self {
            current: name.clone(),
            contexts: vec![Context::new(name, identity, managers)],
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is missing, unreadable or not such a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let path_of = || path.to_owned();
        let text = match files::read_optional(path) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(ConfigError::Missing { path: path_of() }),
            Err(source) => {
                return Err(ConfigError::File {
                    path: path_of(),
                    source,
                });
            }
        };
        toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path_of(),
            // toml's errors quote the line they point at, which may be of a key.
            what: error.message().to_owned(),
            line: error
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count()),
        })
    }

    /// Writes a file, 0600, whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::File {
            path: path.to_owned(),
            source,
        };
        let text = toml::to_string(self).map_err(|error| failed(io::Error::other(error)))?;
        files::write_private(path, text.as_bytes()).map_err(failed)
    }

    /// The context of this name, or the current one.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn context(&self, name: Option<&str>) -> Result<&Context, ConfigError> {
        let name = name.unwrap_or(&self.current);
        self.contexts
            .iter()
            .find(|context| context.name == name)
            .ok_or_else(|| ConfigError::NoContext {
                name: name.to_owned(),
                known: self.contexts.iter().map(|c| c.name.clone()).collect(),
            })
    }
}

impl Context {
    /// The context of an identity.
    #[must_use]
    pub fn new(name: String, identity: &Identity, managers: Vec<String>) -> Self {
        Self {
            name,
            cluster_id: identity.cluster_id.clone(),
            managers,
            roots: pem::encode_certificates(&identity.roots),
            certificate: pem::encode_certificates(&identity.chain),
            key: identity.key.clone(),
        }
    }

    /// The identity of this context.
    ///
    /// # Errors
    /// Its certificate, key or roots are damaged.
    pub fn identity(&self) -> Result<Identity, ConfigError> {
        let damaged = |what: &'static str| ConfigError::Damaged {
            context: self.name.clone(),
            what,
        };
        let chain = pem::decode_certificates(&self.certificate)
            .ok_or_else(|| damaged("certificate holds no certificate in PEM"))?;
        let subject = subject(&chain).map_err(|source| ConfigError::Subject {
            context: self.name.clone(),
            source,
        })?;
        let identity = Identity {
            cluster_id: self.cluster_id.clone(),
            role: subject.role,
            uid: subject.uid,
            key: self.key.clone(),
            chain,
            roots: pem::decode_certificates(&self.roots)
                .ok_or_else(|| damaged("roots holds no certificate in PEM"))?,
            members: self.managers.clone(),
        };
        identity
            .key_der()
            .map_err(|_| damaged("key holds no PKCS#8 private key in PEM"))?;
        Ok(identity)
    }
}

fn subject(chain: &[CertificateDer<'_>]) -> Result<Subject, SubjectError> {
    Subject::of(chain.first().ok_or(SubjectError::NotACertificate)?)
}

// The key must not reach a log.
impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name)
            .field("cluster_id", &self.cluster_id)
            .field("managers", &self.managers)
            .finish_non_exhaustive()
    }
}

/// Where the configuration is: what was asked for, else `$BARGE_CONFIG`, else `~/.config/barge/config.toml`.
/// The caller reads the environment. `None` when there is nothing to go by.
#[must_use]
pub fn discover(
    asked: Option<PathBuf>,
    barge_config: Option<PathBuf>,
    home: Option<&Path>,
) -> Option<PathBuf> {
    let not_empty = |path: &PathBuf| !path.as_os_str().is_empty();
    asked
        .or(barge_config.filter(not_empty))
        .or_else(|| home.map(|home| home.join(".config/barge/config.toml")))
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error(
        "there is no configuration at {}. `barge dev up` starts a cluster on this machine; a manager that was \
         bootstrapped keeps a credential in admin.toml of its data folder: pass it with --config, or set BARGE_CONFIG",
        path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// It is not such a file.
    #[error("{}:{line}: {what}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// There is no context of that name.
    #[error("there is no context \"{name}\" in the configuration; it has: {}", known.join(", "))]
    NoContext {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A part of a context is damaged.
    #[error("context \"{context}\": {what}")]
    Damaged {
        /// The context.
        context: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The certificate is not one of a Barge cluster.
    #[error("context \"{context}\": {source}")]
    Subject {
        /// The context.
        context: String,
        /// What is wrong.
        source: SubjectError,
    },
}

#[cfg(test)]
mod tests;
