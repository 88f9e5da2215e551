//! `barge-server credential`: a way back for root on a manager, when every credential is lost, expired or revoked. It asks the
//! running managers with this manager's own certificate.

use std::path::PathBuf;

use barge_client::{
    Client, ClientError, ClientOptions,
    client::NewCredential,
    config::{Config, ConfigError},
    duration::Span,
    identity::{Identity, IdentityError},
};
use clap::Args;

use crate::{boot::folder::identity_in, security::rbac::identity::MASTERS};

/// The flags of `credential`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// The credential's name, by which it is listed and revoked
    pub name: String,
    /// The data folder of a manager on this machine
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The file to write it to (mode 0600)
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// When it ends ("12h"); by default never
    #[arg(long)]
    pub ttl: Option<Span>,
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Nothing is overwritten.
    #[error("{} exists: choose another --out", .0.display())]
    Exists(PathBuf),
    /// There is no manager in the folder.
    #[error("the data folder {} has no cluster", .0.display())]
    NoCluster(PathBuf),
    /// The manager's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The managers.
    #[error(
        "{0}; the managers have to run, and this one signs itself a certificate when it starts"
    )]
    Client(#[from] ClientError),
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Makes a credential and writes it; answers what to say.
///
/// # Errors
/// One sentence on why not.
pub async fn run(flags: Flags) -> Result<String, MintError> {
    if flags.out.exists() {
        return Err(MintError::Exists(flags.out));
    }
    let identity = Identity::load(&identity_in(&flags.data_dir))?
        .ok_or(MintError::NoCluster(flags.data_dir))?;
    let client = Client::new(&identity, &identity.members, ClientOptions::default())?;
    let wanted = NewCredential {
        name: flags.name,
        ttl_seconds: flags.ttl.map_or(0, |ttl| ttl.0.as_secs().max(1)),
        description: "made by root on a manager".to_owned(),
        bearer: false,
        groups: vec![MASTERS.to_owned()],
        service_account: String::new(),
    };
    let (context, info) = client.create_credential(&wanted).await?;
    Config::of(context).save(&flags.out)?;
    Ok(format!(
        "credential {} written to {}",
        info.name,
        flags.out.display()
    ))
}
