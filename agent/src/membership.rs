//! Who this node is: the lock on its data folder, its identity, and the way to the managers.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use barge_client::{
    channel::{ChannelOptions, channel},
    identity::{Identity, IdentityError, KeptIdentity, NotValid},
    join::{JoinError, JoinOptions, join},
    renew::{self, RenewError, Wanted},
    tls::{self, LiveTls, TlsError},
    token::{Token, ca_digest, hex},
};
use fs4::{FileExt, TryLockError};
use rand::seq::SliceRandom;
use rustls::ClientConfig;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::{config::Config, files, managers::Managers};

/// How long to look for a manager that lets this node join.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);

/// The lane of life signs notices within three seconds that a manager has become silent.
const LIFE_CHANNEL: ChannelOptions = ChannelOptions {
    connect_timeout: Duration::from_secs(1),
    keep_alive_interval: Duration::from_secs(1),
    keep_alive_timeout: Duration::from_secs(2),
};

/// Why the agent cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The data folder cannot be used.
    #[error("cannot use {path}: {source}")]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent uses it.
    #[error(
        "another barge-agent is running on the data folder {0}; end it, or give this one another --data-dir"
    )]
    Locked(PathBuf),
    /// Nothing to join with.
    #[error(
        "the data folder {0} belongs to no cluster yet: give --join HOST:PORT of a manager and --token-file with a token from `barge token create --role agent`"
    )]
    NotJoined(PathBuf),
    /// The token is not one.
    #[error("the token in {path} is of no use: {message}")]
    Token {
        /// The token's file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The folder and the token are of different clusters.
    #[error(
        "the data folder {folder} belongs to cluster {cluster}, but the token in {token} is of another one; give another --data-dir to join that"
    )]
    OtherCluster {
        /// The data folder.
        folder: PathBuf,
        /// The cluster in it.
        cluster: String,
        /// The token's file.
        token: PathBuf,
    },
    /// The managers did not let it join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// What is in the data folder is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate is not valid by this machine's clock, and there is nothing to get another with.
    #[error(
        "this node's {0}. If the clock is right, `barge token create --role agent` on an administrator's machine makes a token: start the agent with --join and --token-file once, and it comes back as the same node, with its data and its containers"
    )]
    NotValid(NotValid),
    /// Key or certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The data folder, held by this process alone.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder when it is missing, and takes it.
    ///
    /// # Errors
    /// It cannot be used, or another agent uses it.
    pub fn take(path: &Path) -> Result<Self, MembershipError> {
        fs::create_dir_all(path).map_err(folder(path))?;
        // Everything in it speaks of the folder, whatever it was called by.
        let path = path.canonicalize().map_err(folder(path))?;
        let file = path.join("lock");
        let lock = File::create(&file).map_err(folder(&file))?;
        match FileExt::try_lock(&lock) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(MembershipError::Locked(path)),
            Err(TryLockError::Error(source)) => Err(folder(&file)(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    /// Whether the node has joined a cluster.
    ///
    /// # Errors
    /// What is there is damaged.
    pub fn load(&self) -> Result<Option<Identity>, MembershipError> {
        Ok(Identity::load(&self.identity())?)
    }

    /// The identity in the folder, or a new one got with the token. `address` is the node's own.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn join(&self, config: &Config, address: &str) -> Result<Identity, MembershipError> {
        let previous = self.load()?;
        if let Some(identity) = &previous {
            self.check_token(config, identity)?;
        }
        let invalid = previous
            .as_ref()
            .and_then(|identity| identity.validity().ok()?.check(SystemTime::now()).err());
        let (previous, token_file) = match (previous, invalid, &config.token_file) {
            (Some(identity), None, _) => return Ok(identity),
            (previous, _, Some(token_file)) if !config.join.is_empty() => (previous, token_file),
            (Some(_), Some(invalid), _) => return Err(MembershipError::NotValid(invalid)),
            _ => return Err(MembershipError::NotJoined(self.path.clone())),
        };
        let token = read_token(token_file)?;
        let pin = hex(&token.ca_digest);
        tracing::info!(managers = ?config.join, name = config.node_name, address, "joining");
        let joined = join(&JoinOptions {
            feature_level: 0,
            managers: config.join.clone(),
            token,
            dir: self.identity(),
            address: address.to_owned(),
            name: config.node_name.clone(),
            deadline: JOIN_DEADLINE,
            previous,
        })
        .await?;
        let pinned = self.joined_with();
        files::write_atomic(&pinned, pin.as_bytes()).map_err(folder(&pinned))?;
        joined.identity.save(&self.identity())?;
        tracing::info!(
            cluster = joined.identity.cluster_id,
            node = joined.identity.uid,
            "joined"
        );
        Ok(joined.identity)
    }

    /// `--join` and the token stay in a unit file for ever and are ignored; only a token of another cluster tells that
    /// somebody means something else than what would happen. The cluster's CA may have been replaced since the join, so
    /// the digest that the node joined with is as good as that of a present root.
    fn check_token(&self, config: &Config, identity: &Identity) -> Result<(), MembershipError> {
        let Some(path) = &config.token_file else {
            return Ok(());
        };
        // Used up and removed, most likely.
        let Ok(token) = read_token(path) else {
            return Ok(());
        };
        let joined_with = files::read_if_there(&self.joined_with()).ok().flatten();
        let same = joined_with.as_deref() == Some(hex(&token.ca_digest).as_bytes())
            || identity
                .roots
                .iter()
                .any(|root| ca_digest(root) == token.ca_digest);
        if same {
            return Ok(());
        }
        Err(MembershipError::OtherCluster {
            folder: self.path.clone(),
            cluster: identity.cluster_id.clone(),
            token: path.clone(),
        })
    }

    fn joined_with(&self) -> PathBuf {
        self.path.join("joined-with")
    }
}

fn read_token(path: &Path) -> Result<Token, MembershipError> {
    let failed = |message: String| MembershipError::Token {
        path: path.to_owned(),
        message,
    };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    text.trim()
        .parse::<Token>()
        .map_err(|error| failed(error.to_string()))
}

fn folder(path: &Path) -> impl Fn(io::Error) -> MembershipError {
    let path = path.to_owned();
    move |source| MembershipError::Folder {
        path: path.clone(),
        source,
    }
}

/// The managers of the cluster, by the node's identity, whose certificate it keeps valid.
pub struct ClusterManagers {
    identity: KeptIdentity,
    /// Where managers said that they are, also when the disk does not take it.
    heard: Mutex<Option<Vec<String>>>,
    tls: LiveTls,
    life_tls: Arc<ClientConfig>,
    /// Given by hand, for when all that are remembered have moved.
    fallback: Vec<String>,
    /// What managers say that is to be trusted.
    wanted: watch::Sender<Wanted>,
}

impl ClusterManagers {
    /// The managers that this identity remembers, and those given by hand.
    ///
    /// # Errors
    /// The identity's key or certificates cannot be used.
    pub fn new(
        identity: Identity,
        data: &DataFolder,
        fallback: Vec<String>,
    ) -> Result<Self, MembershipError> {
        let tls = LiveTls::new(&identity)?;
        Ok(Self {
            life_tls: tls::for_life_signs(&tls.config()),
            tls,
            identity: KeptIdentity::new(identity, data.identity()),
            heard: Mutex::default(),
            fallback,
            wanted: watch::Sender::new(Wanted::default()),
        })
    }

    /// Renews the certificate in time, and when other roots are to be trusted, for as long as this is polled. The session goes
    /// on with the connection that it has; the next one shows the new certificate.
    pub async fn keep_certificate(&self) {
        let shown = self
            .identity
            .clone()
            .follow(|identity| self.tls.replace(identity));
        let renewed = renew::keep(self.identity.clone(), self.wanted.subscribe(), |identity| {
            self.renew(identity)
        });
        tokio::join!(shown, renewed);
    }

    fn heard(&self) -> MutexGuard<'_, Option<Vec<String>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(&self, identity: Identity) -> Result<Identity, RenewError> {
        let mut failed = Vec::new();
        let mut addresses = self.addresses();
        addresses.extend(self.by_hand());
        addresses.shuffle(&mut rand::rng());
        for address in addresses {
            let renewed = match self.channel(&address) {
                Ok(channel) => renew::renew(&identity, channel).await,
                Err(error) => Err(RenewError::Refused(error)),
            };
            match renewed {
                Err(RenewError::Refused(error)) => failed.push(format!("{address}: {error}")),
                done => return done,
            }
        }
        Err(RenewError::Refused(failed.join("; ")))
    }
}

impl Managers for ClusterManagers {
    fn addresses(&self) -> Vec<String> {
        let heard = self.heard().clone();
        heard.unwrap_or_else(|| self.identity.current().members.clone())
    }

    fn by_hand(&self) -> Vec<String> {
        let members = self.addresses();
        let others = self.fallback.iter().filter(|a| !members.contains(a));
        others.cloned().collect()
    }

    fn channel(&self, address: &str) -> Result<Channel, String> {
        channel(address, self.tls.config(), &ChannelOptions::default())
            .map_err(|error| error.to_string())
    }

    fn life_channel(&self, address: &str) -> Result<Channel, String> {
        channel(address, self.life_tls.clone(), &LIFE_CHANNEL).map_err(|error| error.to_string())
    }

    fn learned(&self, addresses: &[String]) {
        *self.heard() = Some(addresses.to_vec());
        let learned = self
            .identity
            .change(|identity| identity.members = addresses.to_vec());
        if let Err(error) = learned {
            tracing::warn!(%error, "cannot keep the managers' addresses");
        }
    }

    fn roots_pem(&self) -> String {
        self.identity.current().roots_pem()
    }

    fn roots_sha256(&self) -> [u8; 32] {
        self.identity.current().roots_sha256()
    }

    fn told_roots(&self, roots_sha256: [u8; 32], within: Duration) {
        self.wanted.send_replace(Wanted {
            roots_sha256: Some(roots_sha256),
            within,
        });
    }
}

#[cfg(test)]
mod tests;
