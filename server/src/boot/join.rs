//! How a manager becomes part of a cluster that exists.

use std::{path::PathBuf, time::Duration};

use barge_client::{
    identity::{Identity, IdentityError},
    join::{JoinError, JoinOptions, join},
    token::{Token, TokenError, hex},
};
use barge_proto::v1::Role;

use crate::{
    boot::folder::{Folder, FolderError},
    pki::{PkiError, SealingKey},
};

/// How long a manager looks for one that lets it join.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why this manager is not part of the cluster it should be.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The manager's own identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token file.
    #[error("the token file {}: {source}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The token itself.
    #[error("the token file {}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TokenError,
    },
    /// The joining.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The key that came with the identity.
    #[error(transparent)]
    SealingKey(#[from] PkiError),
    /// The token admits machines of another kind.
    #[error(
        "this token is for an {0}, not for a manager: `barge token create --role manager` makes one"
    )]
    Role(&'static str),
    /// The folder was part of another cluster.
    #[error(
        "the data folder {} belongs to cluster {cluster_id}, the token to another cluster: \
         choose an empty --data-dir, or drop --join and --token-file",
        path.display()
    )]
    OtherCluster {
        /// The folder.
        path: PathBuf,
        /// Its cluster.
        cluster_id: String,
    },
}

/// Joins and keeps the identity. Interrupted anywhere, the next call goes on with the same key and so gets the same
/// identity; the sealing key is kept before the identity, which is what makes the folder have a cluster.
///
/// # Errors
/// One sentence on why not.
pub async fn admit(
    folder: &Folder,
    advertise: &str,
    managers: &[String],
    token_file: &std::path::Path,
) -> Result<Identity, AdmissionError> {
    let token = read_token(token_file)?;
    let ca_digest = hex(&token.ca_digest);
    let joined = join(&JoinOptions {
        managers: managers.to_vec(),
        token,
        dir: folder.identity(),
        address: advertise.to_owned(),
        name: String::new(),
        feature_level: barge_state::LEVEL,
        deadline: PATIENCE,
        // A manager whose certificate has expired signs its next one itself.
        previous: None,
    })
    .await?;
    if joined.identity.role != Role::Manager {
        return Err(AdmissionError::Role("agent"));
    }
    folder.save_sealing_key(&SealingKey::try_from(joined.sealing_key.as_slice())?)?;
    folder.save_origin(&ca_digest)?;
    folder.remove(&folder.genesis())?;
    joined.identity.save(&folder.identity())?;
    tracing::info!(
        cluster = joined.identity.cluster_id,
        raft_id = joined.raft_id,
        "joined"
    );
    Ok(joined.identity)
}

/// A folder that has a cluster keeps it, whatever the flags say; but a token of another cluster shows that the folder
/// is not the one that was meant. A token file that is gone says nothing.
///
/// # Errors
/// [`AdmissionError::OtherCluster`].
pub fn check_same_cluster(
    folder: &Folder,
    identity: &Identity,
    token_file: &std::path::Path,
) -> Result<(), AdmissionError> {
    let Ok(token) = read_token(token_file) else {
        return Ok(());
    };
    let origin = folder.load_origin()?;
    let trusted = identity
        .roots
        .iter()
        .any(|root| barge_client::token::ca_digest(root) == token.ca_digest);
    if trusted || origin.is_some_and(|origin| origin == hex(&token.ca_digest)) {
        return Ok(());
    }
    Err(AdmissionError::OtherCluster {
        path: folder.path().to_owned(),
        cluster_id: identity.cluster_id.clone(),
    })
}

fn read_token(path: &std::path::Path) -> Result<Token, AdmissionError> {
    std::fs::read_to_string(path)
        .map_err(|source| AdmissionError::TokenFile {
            path: path.to_owned(),
            source,
        })?
        .parse()
        .map_err(|source| AdmissionError::Token {
            path: path.to_owned(),
            source,
        })
}
