//! Makes a client from flags, environment and configuration.

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use barge_client::{
    Client, ClientOptions,
    channel::{ChannelOptions, channel},
    config::{self, Config, ConfigError, Context},
    renew, tls,
};
use clap::Args;
use tokio::time::timeout;

/// How long a person waits for managers that have no leader; an election takes a second.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a person waits for a certificate to be renewed that is still good.
const RENEWAL: Duration = Duration::from_secs(3);

/// Which cluster, and as whom.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// The file with the credential; by default $BARGE_CONFIG, then ~/.config/barge/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The context of that file; by default its current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The client that was made from them.
    #[arg(skip)]
    pub made: Made,
}

/// The client of a command: one for all it asks, and for what was seen beside the answers.
#[derive(Debug, Clone, Default)]
pub struct Made(Arc<Mutex<Option<Client>>>);

impl Made {
    fn client(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// A client for the cluster that the flags and the environment mean.
    pub fn client(&self) -> Result<Client> {
        let mut made = self.made.client();
        if let Some(made) = &*made {
            return Ok(made.clone());
        }
        let client = self.connect(None)?;
        Ok(made.insert(client).clone())
    }

    /// The namespace of the context: "default" when it names none, or when there is no configuration, which the client tells.
    pub fn namespace(&self) -> Result<String> {
        let named = match Config::load(&self.path()?) {
            Ok(config) => config.context(self.context.as_deref())?.namespace.clone(),
            Err(ConfigError::Missing { .. }) => String::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(match named.is_empty() {
            true => "default".to_owned(),
            false => named,
        })
    }

    /// A client for one manager (`host:port`) of that cluster.
    pub fn client_of(&self, manager: &str) -> Result<Client> {
        self.connect(Some(manager))
    }

    fn connect(&self, manager: Option<&str>) -> Result<Client> {
        let config = Config::load(&self.path()?)?;
        let mut context = config.context(self.context.as_deref())?.clone();
        if let Some(manager) = manager {
            context.managers = vec![manager.to_owned()];
            context.only_these_managers = true;
        }
        let options = ClientOptions {
            deadline: PATIENCE,
            ..ClientOptions::default()
        };
        Ok(Client::from_context(&context, options)?)
    }

    /// The file that the flags and the environment mean, whether it is there or not.
    pub fn path(&self) -> Result<PathBuf> {
        let home = env::var_os("HOME").map(PathBuf::from);
        config::discover(
            self.config.clone(),
            env::var_os("BARGE_CONFIG").map(PathBuf::from),
            home.as_deref(),
        )
        .context("no configuration: pass --config FILE, or set BARGE_CONFIG or HOME")
    }

    /// Writes down where the managers are, as the command has learned, so that the next one finds them when those that the file
    /// names are gone. What a person asked for does not fail for it.
    pub fn keep_managers(&self) {
        let made = self.made.client().clone();
        let managers = made.map(|made| made.managers()).unwrap_or_default();
        if managers.is_empty() {
            return;
        }
        if let Err(error) = self.write_managers(&managers) {
            tracing::debug!(
                error = format!("{error:#}"),
                "the managers' addresses were not kept"
            );
        }
    }

    fn write_managers(&self, managers: &[String]) -> Result<()> {
        let path = self.path()?;
        let mut config = Config::load(&path)?;
        let context = config.context(self.context.as_deref())?;
        let (name, cluster_id) = (context.name.clone(), context.cluster_id.clone());
        // Mostly nothing is new: then nobody has to wait for a turn.
        if !config.learned(&name, &cluster_id, managers) {
            return Ok(());
        }
        Config::update(&path, |config| {
            Ok(config.learned(&name, &cluster_id, managers))
        })
    }

    /// Renews the certificate of the context in the second half of its life. What a person asked for does not fail
    /// for it: the next command tries again, and the certificate's end is said only when it is near.
    pub async fn keep_certificate(&self) {
        let Some((near, error)) = self.renew_if_due().await else {
            return;
        };
        tracing::debug!(
            error = format!("{error:#}"),
            "the certificate was not renewed"
        );
        if near {
            eprintln!(
                "warning: this credential's certificate ends soon and could not be renewed: {error:#}"
            );
        }
    }

    /// Learns the cluster's roots when the manager that a command talked to showed others than the credential has: its CA is
    /// being replaced. Answers whether the credential is another one now. What a person asked for does not fail for it.
    pub async fn learn_roots(&self) -> bool {
        let Some(client) = self.made.client().take_if(|client| client.other_roots()) else {
            return false;
        };
        match timeout(RENEWAL, self.take_roots(&client)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => {
                tracing::debug!(error = format!("{error:#}"), "the roots were not learned");
            }
            Err(_) => tracing::debug!("the roots were not learned in time"),
        }
        eprintln!(
            "warning: the cluster's CA is being rotated, and this credential could not learn the new one: run any command again \
             before the old one goes"
        );
        false
    }

    async fn take_roots(&self, client: &Client) -> Result<()> {
        let path = self.path()?;
        let context = Config::load(&path)?
            .context(self.context.as_deref())?
            .clone();
        if context.token.is_empty() {
            return renew(&path, &context).await;
        }
        let roots = client.members().await?.roots;
        let roots: Vec<_> = roots.into_iter().map(Into::into).collect();
        anyhow::ensure!(!roots.is_empty(), "the manager did not say what to trust");
        Config::update(&path, |config| {
            config.trust(&context.name, &roots);
            Ok(true)
        })
    }

    /// Why a certificate that is due was not renewed, and whether its end is near.
    async fn renew_if_due(&self) -> Option<(bool, anyhow::Error)> {
        let path = self.path().ok()?;
        let config = Config::load(&path).ok()?;
        let context = config.context(self.context.as_deref()).ok()?;
        let identity = context.identity().ok()?;
        let (validity, now) = (identity.validity().ok()?, SystemTime::now());
        // One that is not valid does not renew itself: the command says so.
        if !validity.is_due(now) || validity.check(now).is_err() {
            return None;
        }
        let failed = match timeout(RENEWAL, renew(&path, context)).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("no manager answered within {} s", RENEWAL.as_secs()),
        };
        let life = validity
            .until
            .duration_since(validity.from)
            .unwrap_or_default();
        let left = validity.until.duration_since(now).unwrap_or_default();
        Some((left < life / 10, failed))
    }
}

/// Renews the certificate of a context at one of its managers, and keeps it.
async fn renew(path: &Path, context: &Context) -> Result<()> {
    let identity = context.identity()?;
    let tls = tls::client_config(&identity)?;
    let mut failed = anyhow::anyhow!("the context names no manager");
    for address in &context.managers {
        let channel = channel(address, tls.clone(), &ChannelOptions::default())?;
        match renew::renew(&identity, channel).await {
            Ok(renewed) => {
                // Other contexts may have come meanwhile.
                return Config::update(path, |config| {
                    config.renewed(&context.name, &renewed)?;
                    Ok(true)
                });
            }
            Err(error) => failed = anyhow::Error::new(error).context(address.clone()),
        }
    }
    Err(failed)
}
