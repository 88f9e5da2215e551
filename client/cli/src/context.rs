//! From flags and environment to a client.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use barge_client::{
    Client, ClientOptions,
    config::{self, Config},
};

use crate::args::Connection;

/// How long a person waits for managers that have no leader; an election takes a second.
const PATIENCE: Duration = Duration::from_secs(15);

impl Connection {
    /// A client for the cluster that the flags and the environment mean.
    pub fn client(&self) -> Result<Client> {
        let home = env::var_os("HOME").map(PathBuf::from);
        let path = config::discover(
            self.config.clone(),
            env::var_os("BARGE_CONFIG").map(PathBuf::from),
            home.as_deref(),
        )
        .context("no configuration: pass --config FILE, or set BARGE_CONFIG or HOME")?;
        let config = Config::load(&path)?;
        let context = config.context(self.context.as_deref())?;
        let options = ClientOptions {
            deadline: PATIENCE,
            ..ClientOptions::default()
        };
        Ok(Client::from_context(context, options)?)
    }
}
