//! `config.toml` and `admin.toml`: the credentials of a person, for one cluster or several.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    files,
    identity::{Identity, Subject, SubjectError, pem},
    token::is_bearer_token,
};

/// Addresses in a context that no manager has named: a name that a person wrote, or one that a manager had before.
const MOST_OTHERS: usize = 8;

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
    /// Ask no other managers than those, and add none: for addresses that are a tunnel's or a load balancer's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_these_managers: bool,
    /// The namespace of commands that name none; empty means "default".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The roots to trust, PEM.
    pub roots: String,
    /// The certificate, leaf first, PEM; empty with a bearer token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// The private key, PKCS#8, PEM; empty with a bearer token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The bearer token; empty with a certificate.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
}

/// What a context proves itself with.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A certificate and its key.
    Certificate(Identity),
    /// A bearer token, sent to managers whose certificate leads to one of the roots.
    Bearer {
        /// The roots to trust.
        roots: Vec<CertificateDer<'static>>,
        /// The token, as an `authorization` header has it.
        header: MetadataValue<Ascii>,
    },
}

impl Config {
    /// A file with one context, named `default`.
    #[must_use]
    pub fn single(identity: &Identity, managers: Vec<String>) -> Self {
        Self::of(Context::new("default".to_owned(), identity, managers))
    }

    /// A file with one context.
    #[must_use]
    pub fn of(context: Context) -> Self {
        Self {
            current: context.name.clone(),
            contexts: vec![context],
        }
    }

    /// Adds a context and makes it the current one.
    ///
    /// # Errors
    /// There is one of its name already.
    pub fn add(&mut self, context: Context) -> Result<(), ConfigError> {
        self.check_free(&context.name)?;
        self.current.clone_from(&context.name);
        self.contexts.push(context);
        Ok(())
    }

    /// Gives a context another name.
    ///
    /// # Errors
    /// There is none of the old name, or one of the new.
    pub fn rename(&mut self, old: &str, new: &str) -> Result<(), ConfigError> {
        self.context(Some(old))?;
        self.check_free(new)?;
        for context in &mut self.contexts {
            if context.name == old {
                new.clone_into(&mut context.name);
            }
        }
        if self.current == old {
            new.clone_into(&mut self.current);
        }
        Ok(())
    }

    /// Sets the namespace of commands that name none; empty means "default".
    ///
    /// # Errors
    /// There is no context of that name, or no namespace can be called so.
    pub fn set_namespace(&mut self, name: &str, namespace: &str) -> Result<(), ConfigError> {
        self.context(Some(name))?;
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let legal = namespace.chars().all(|c| letter(c) || c == '-')
            && namespace.len() <= 63
            && !namespace.starts_with('-')
            && !namespace.ends_with('-');
        if !legal {
            return Err(ConfigError::Namespace {
                namespace: namespace.to_owned(),
            });
        }
        for context in &mut self.contexts {
            if context.name == name {
                namespace.clone_into(&mut context.namespace);
            }
        }
        Ok(())
    }

    fn check_free(&self, name: &str) -> Result<(), ConfigError> {
        match self.contexts.iter().any(|context| context.name == name) {
            true => Err(ConfigError::Taken {
                name: name.to_owned(),
            }),
            false => Ok(()),
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

    /// Puts a renewed certificate in the place of the one before.
    ///
    /// # Errors
    /// There is no context of that name any more.
    pub fn renewed(&mut self, name: &str, identity: &Identity) -> Result<(), ConfigError> {
        self.context(Some(name))?;
        for context in &mut self.contexts {
            if context.name == name {
                let managers = std::mem::take(&mut context.managers);
                let namespace = std::mem::take(&mut context.namespace);
                let renewed = Context::new(name.to_owned(), identity, managers);
                *context = Context {
                    only_these_managers: context.only_these_managers,
                    namespace,
                    ..renewed
                };
            }
        }
        Ok(())
    }

    /// Adds where the managers of a context's cluster are. Says whether anything is new: what is there already stays as it is
    /// written, and addresses that are not among them come last.
    pub fn learned(&mut self, name: &str, cluster_id: &str, managers: &[String]) -> bool {
        let mut changed = false;
        for context in &mut self.contexts {
            let same = context.name == name && context.cluster_id == cluster_id;
            let known = |address: &String| context.managers.contains(address);
            if !same || context.only_these_managers || managers.iter().all(known) {
                continue;
            }
            let others = context.managers.iter().filter(|a| !managers.contains(a));
            let others = others.take(MOST_OTHERS).cloned();
            context.managers = managers.iter().cloned().chain(others).collect();
            changed = true;
        }
        changed
    }

    /// Changes the file at `path`: one process at a time, each what the one before has left, whole or not at all. `change` says
    /// whether there is anything to write.
    ///
    /// # Errors
    /// What [`Config::load`] and [`Config::save`] say, and those of `change`.
    pub fn update<E: From<ConfigError>>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<bool, E>,
    ) -> Result<(), E> {
        let _turn = files::lock_folder_of(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        let mut config = Self::load(path)?;
        if change(&mut config)? {
            config.save(path)?;
        }
        Ok(())
    }

    /// Puts the roots to trust in the place of those before; for bearer tokens, which are not renewed.
    pub fn trust(&mut self, name: &str, roots: &[CertificateDer<'_>]) {
        for context in &mut self.contexts {
            if context.name == name {
                context.roots = pem::encode_certificates(roots);
            }
        }
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
            only_these_managers: false,
            namespace: String::new(),
            roots: pem::encode_certificates(&identity.roots),
            certificate: pem::encode_certificates(&identity.chain),
            key: identity.key.clone(),
            token: String::new(),
        }
    }

    /// What the context proves itself with, in words ("certificate", "bearer token").
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self.token.is_empty() {
            true => "certificate",
            false => "bearer token",
        }
    }

    /// What this context proves itself with.
    ///
    /// # Errors
    /// Its certificate, key, token or roots are damaged.
    pub fn credential(&self) -> Result<Credential, ConfigError> {
        if self.token.is_empty() {
            return Ok(Credential::Certificate(self.identity()?));
        }
        let mut header = MetadataValue::try_from(format!("Bearer {}", self.token))
            .ok()
            .filter(|_| is_bearer_token(&self.token))
            .ok_or_else(|| self.damaged("token is not a bearer token"))?;
        header.set_sensitive(true);
        Ok(Credential::Bearer {
            roots: self.roots()?,
            header,
        })
    }

    fn damaged(&self, what: &'static str) -> ConfigError {
        ConfigError::Damaged {
            context: self.name.clone(),
            what,
        }
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        pem::decode_certificates(&self.roots)
            .ok_or_else(|| self.damaged("roots holds no certificate in PEM"))
    }

    /// The identity of this context, which has a certificate.
    ///
    /// # Errors
    /// Its certificate, key or roots are damaged.
    pub fn identity(&self) -> Result<Identity, ConfigError> {
        let chain = pem::decode_certificates(&self.certificate)
            .ok_or_else(|| self.damaged("certificate holds no certificate in PEM"))?;
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
            roots: self.roots()?,
            members: self.managers.clone(),
        };
        identity
            .key_der()
            .map_err(|_| self.damaged("key holds no PKCS#8 private key in PEM"))?;
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
    /// There is a context of that name already.
    #[error("there is a context \"{name}\" already: choose another name, or delete that one first")]
    Taken {
        /// The name.
        name: String,
    },
    /// No namespace has such a name.
    #[error(
        "\"{namespace}\" cannot be a namespace: a name has at most 63 lower-case letters, digits and \"-\", which stands neither first \
         nor last"
    )]
    Namespace {
        /// What was asked for.
        namespace: String,
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
