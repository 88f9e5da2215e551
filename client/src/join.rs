//! Joining a cluster: a machine exchanges its join token for an identity.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use barge_proto::v1::{JoinRequest, JoinResponse, Role, cluster_client::ClusterClient};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::{
    backoff::Backoff,
    channel::{AddressError, ChannelOptions, channel},
    error, files,
    identity::{Identity, KEY_FILE},
    tls::{self, TlsError},
    token::{self, Token},
};

/// What is needed to join.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Addresses of managers, `host:port`; one that answers is enough.
    pub managers: Vec<String>,
    /// The token.
    pub token: Token,
    /// The folder of the identity-to-be. The private key is made there before the first call and used again by the
    /// next try, so that a repetition gets the same identity.
    pub dir: PathBuf,
    /// A manager's advertised `host:port`; an agent's own IP address.
    pub address: String,
    /// The node's name, for agents; empty for managers.
    pub name: String,
    /// The newest feature level that a manager understands; 0 for agents.
    pub feature_level: u32,
    /// How long to look for a manager that answers.
    pub deadline: Duration,
    /// The identity that this machine had and whose certificate has expired: with its key as proof, the machine
    /// gets the same uid again, and keeps what is its own in the cluster.
    pub previous: Option<Identity>,
}

/// A party that has joined. The identity is not saved yet: a manager keeps the sealing key first.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Who this process is now.
    pub identity: Identity,
    /// For managers: the id in Raft. 0 for agents.
    pub raft_id: u64,
    /// For managers: the key that opens what is sealed in the state. Empty for agents.
    pub sealing_key: Vec<u8>,
}

/// Joins the cluster of the token. Tries the managers in turn until one answers or the deadline passes; a refusal
/// of the token or another cluster's CA ends it at once.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(options: &JoinOptions) -> Result<Joined, JoinError> {
    let (key, previous) = match &options.previous {
        Some(previous) => (
            KeyPair::from_pem(&previous.key)?,
            previous.chain.first().map(|leaf| leaf.to_vec()),
        ),
        None => (key_pair(&options.dir)?, None),
    };
    let request = JoinRequest {
        token: options.token.wire(),
        csr: certificate_request(&key)?,
        previous_certificate: previous.unwrap_or_default(),
        address: options.address.clone(),
        name: options.name.clone(),
        feature_level: options.feature_level,
    };
    let tls = tls::pinned_config(options.token.ca_digest)?;
    let channel_options = ChannelOptions::default();
    let mut clients = Vec::with_capacity(options.managers.len());
    for address in &options.managers {
        let channel = channel(address, tls.clone(), &channel_options)?;
        clients.push((address, ClusterClient::new(channel)));
    }
    let deadline = Instant::now() + options.deadline;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        let mut tried = Vec::with_capacity(clients.len());
        let mut strangers = 0;
        for (address, client) in &mut clients {
            let left = deadline.saturating_duration_since(Instant::now());
            let status = match timeout(left, client.join(request.clone())).await {
                Ok(Ok(response)) => {
                    return joined(response.into_inner(), &options.token, &key);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if is_refusal(&status) {
                return Err(JoinError::Refused {
                    manager: (*address).clone(),
                    message: status.message().to_owned(),
                });
            }
            let cause = error::cause(&status);
            strangers += usize::from(error::is_refused_certificate(&status));
            tracing::debug!(manager = %address, cause, "could not join");
            tried.push(((*address).clone(), cause));
        }
        if strangers > 0 && strangers == clients.len() {
            return Err(JoinError::AnotherCluster { tried });
        }
        let wait = backoff.wait();
        if Instant::now() + wait >= deadline {
            return Err(JoinError::Unreachable { tried });
        }
        sleep(wait).await;
    }
}

/// Answers that another try would not change.
fn is_refusal(status: &Status) -> bool {
    let reason = error::reason(status).map(|(reason, _)| reason);
    if let Some("NOT_LEADER" | "NO_QUORUM" | "STOPPING" | "UNKNOWN_OUTCOME") = reason.as_deref() {
        return false;
    }
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::NotFound
            | Code::Unimplemented
    )
}

/// The key of a join that was begun earlier, or a new one, durable before it is used.
fn key_pair(dir: &Path) -> Result<KeyPair, JoinError> {
    let path = dir.join(KEY_FILE);
    let failed = |source| JoinError::Key {
        path: path.clone(),
        source,
    };
    files::create_private_dir(dir).map_err(failed)?;
    match fs::read_to_string(&path) {
        Ok(text) => KeyPair::from_pem(&text).map_err(|error| failed(io::Error::other(error))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate()?;
            files::write_private(&path, key.serialize_pem().as_bytes()).map_err(failed)?;
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Only the public key counts: the server decides what the certificate says.
pub(crate) fn certificate_request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn joined(response: JoinResponse, token: &Token, key: &KeyPair) -> Result<Joined, JoinError> {
    let role = response.role();
    if !matches!(role, Role::Manager | Role::Agent) || response.certificate_chain.is_empty() {
        return Err(JoinError::Answer("names no role or holds no certificate"));
    }
    let pinned = |root: &Vec<u8>| token::ca_digest(root) == token.ca_digest;
    if !response.roots.iter().any(pinned) {
        return Err(JoinError::Answer(
            "does not hold the CA that the token names",
        ));
    }
    let identity = Identity {
        cluster_id: response.cluster_id,
        role,
        uid: response.uid,
        key: key.serialize_pem(),
        chain: response
            .certificate_chain
            .into_iter()
            .map(Into::into)
            .collect(),
        roots: response.roots.into_iter().map(Into::into).collect(),
        members: response.members.into_iter().map(|m| m.address).collect(),
    };
    // Proves that key and certificate belong together.
    tls::client_config(&identity)?;
    Ok(Joined {
        identity,
        raft_id: response.raft_id,
        sealing_key: response.sealing_key,
    })
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A manager said no; the message is its sentence.
    #[error("the manager at {manager} refused to let this machine join: {message}")]
    Refused {
        /// The manager.
        manager: String,
        /// Its sentence.
        message: String,
    },
    /// Nothing that answers is a manager of the token's cluster; the token was not sent.
    #[error("not a manager of the token's cluster: {}", attempts(tried))]
    AnotherCluster {
        /// Each address with what is wrong with what it presents.
        tried: Vec<(String, String)>,
    },
    /// No manager answered in time.
    #[error("no manager let this machine join: {}", attempts(tried))]
    Unreachable {
        /// Each address with what went wrong last.
        tried: Vec<(String, String)>,
    },
    /// The private key could not be read or kept.
    #[error("{}: {source}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// An answer that makes no sense.
    #[error("the answer to the join {0}")]
    Answer(&'static str),
    /// An address is not `host:port`.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Key or certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key or request could not be made.
    #[error("make a key or certificate request: {0}")]
    Certificate(#[from] rcgen::Error),
}

fn attempts(tried: &[(String, String)]) -> String {
    let tried: Vec<_> = tried
        .iter()
        .map(|(address, cause)| format!("{address}: {cause}"))
        .collect();
    tried.join("; ")
}

#[cfg(test)]
mod tests;
