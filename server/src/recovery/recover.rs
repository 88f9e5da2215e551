//! `barge-server recover`: a cluster that lost its majority for ever goes on with one manager that is left.
//!
//! Writes that only the lost managers had are lost, and if those managers still run there would be two clusters. So the command asks them first, says
//! what it will do, and does it only when the cluster's id is given. The new store takes the old one's place in one
//! step; the old one is kept beside it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barge_client::{
    channel::{ChannelOptions, channel, root_cause},
    identity::{Identity, IdentityError},
    tls::{TlsError, client_config},
};
use barge_proto::v1::{GetManagerStatusRequest, ManagerRecord, cluster_client::ClusterClient};
use barge_state::{Kind, LEVEL, NotUnderstood, check_understood};
use clap::Args;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tokio::time::timeout;

use crate::{
    boot::folder::{Folder, FolderError, failed},
    error::ApiError,
    pki::{PkiError, Subject},
    recovery::anew,
    runtime::clock,
    storage::{
        StorageError,
        offline::{self, Survivor},
        rocks, snapshot,
        types::Node,
    },
};

/// How long another manager may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// The flags of `recover`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// The data folder of the manager that is left; it must not be running
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Do it, for the cluster of this id; without it, only say what would be done
    #[arg(long, value_name = "CLUSTER-ID")]
    pub confirm: Option<String>,
}

/// Why a manager was not made the only one. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder has no cluster.
    #[error("the data folder {} has no cluster: there is nothing to recover", .0.display())]
    NoCluster(PathBuf),
    /// Others live.
    #[error(
        "other managers answer: {}. Where a majority is left, start its managers instead; otherwise stop these for good, and \
         recover the one with the newest log",
        .0.join(", ")
    )]
    OthersAnswer(Vec<String>),
    /// Another cluster's id was given.
    #[error("the data folder is of cluster {found}, not of {given}")]
    OtherCluster {
        /// Whose it is.
        found: String,
        /// What was given.
        given: String,
    },
    /// The manager is not in its own state.
    #[error("this manager was removed from its cluster: recover another one")]
    Removed,
    /// It holds something that this version cannot run.
    #[error(transparent)]
    FeatureLevel(#[from] NotUnderstood),
    /// The manager's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The manager's certificate.
    #[error("the certificate in the data folder: {0}")]
    Certificate(#[from] PkiError),
    /// Key and certificates do not work.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What is in the folder.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state does not make sense.
    #[error("prepare the state: {0}")]
    State(#[from] ApiError),
}

/// What will be done, or was.
#[derive(Debug)]
pub struct Plan {
    cluster_id: String,
    address: String,
    term: u64,
    last: u64,
    committed: u64,
    revision: u64,
    written: i64,
    lost: Vec<String>,
    /// Where the old store is kept, once it was done.
    pub done: Option<PathBuf>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = jiff::Timestamp::from_second(self.written).unwrap_or_default();
        writeln!(f, "cluster {}", self.cluster_id)?;
        writeln!(f, "this manager: {}", self.address)?;
        writeln!(
            f,
            "its log ends at entry {} (committed for certain: {}), term {}, revision {}; written to last at {written}",
            self.last, self.committed, self.term, self.revision
        )?;
        writeln!(
            f,
            "removed for good: {}",
            match self.lost.is_empty() {
                true => "nobody".to_owned(),
                false => self.lost.join(", "),
            }
        )?;
        match &self.done {
            None => write!(
                f,
                "\nWhat only the others had is lost. This manager becomes the only one, and all join tokens end.\n\
                 Nothing was changed yet. To do it, repeat the command with --confirm {}",
                self.cluster_id
            ),
            Some(old) => write!(
                f,
                "\nThis manager is the only one now: start it as before, then join others.\n\
                 The store as it was is kept in {}: delete it when the cluster is well.",
                old.display()
            ),
        }
    }
}

/// Says what would be done, and with the cluster's id does it. May be interrupted at any point, and repeated.
///
/// # Errors
/// One sentence on why not.
pub async fn recover(flags: &Flags) -> Result<Plan, RecoverError> {
    if !flags.data_dir.join("identity").exists() {
        return Err(RecoverError::NoCluster(flags.data_dir.clone()));
    }
    let folder = Folder::open(&flags.data_dir)?;
    let mut identity = Identity::load(&folder.identity())?
        .ok_or_else(|| RecoverError::NoCluster(flags.data_dir.clone()))?;
    if let Some(given) = flags
        .confirm
        .clone()
        .filter(|id| *id != identity.cluster_id)
    {
        return Err(RecoverError::OtherCluster {
            found: identity.cluster_id,
            given,
        });
    }
    let certificate = identity.chain.first().map(|der| der.as_ref());
    let subject = Subject::from_certificate(certificate.unwrap_or_default())?;
    let owner = rocks::Identity {
        cluster_id: identity.cluster_id.clone(),
        raft_id: subject.raft_id.unwrap_or_default(),
    };
    let survivor = offline::survivor(&folder.store(), &owner)?;
    if let Some(cluster) = survivor.state.cluster() {
        check_understood(cluster.feature_level, LEVEL)?;
    }
    let own = survivor
        .state
        .by_uid::<ManagerRecord>(&identity.uid)
        .map(|record| ManagerRecord::clone(record))
        .ok_or(RecoverError::Removed)?;
    let lost = others(&survivor, &identity.uid);
    ask(&identity, &lost).await?;
    let mut plan = Plan {
        cluster_id: identity.cluster_id.clone(),
        address: own.address.clone(),
        term: survivor.term,
        last: survivor.last.index,
        committed: survivor.committed,
        revision: survivor.state.revision(),
        written: clock::time(survivor.written).seconds,
        lost,
        done: None,
    };
    if flags.confirm.is_some() {
        plan.done = Some(replace(&folder, &owner, survivor, &own)?);
        identity.members = vec![own.address];
        identity.save(&folder.identity())?;
    }
    Ok(plan)
}

/// Addresses of the other members, by the log and by the state.
fn others(survivor: &Survivor, uid: &str) -> Vec<String> {
    let by_log = survivor.membership.nodes();
    let mut all: Vec<_> = by_log
        .filter(|(_, node)| node.uid != uid)
        .map(|(_, node)| node.address.clone())
        .collect();
    let by_state = survivor.state.list::<ManagerRecord>(None);
    all.extend(
        by_state
            .filter(|record| record.uid() != uid)
            .map(|record| record.address.clone()),
    );
    all.sort();
    all.dedup();
    all
}

/// Whether any of them lives. One that refuses to talk lives, too.
async fn ask(identity: &Identity, others: &[String]) -> Result<(), RecoverError> {
    let tls = client_config(identity)?;
    let mut living = Vec::new();
    for address in others {
        let Ok(channel) = channel(address, Arc::clone(&tls), &ChannelOptions::default()) else {
            continue;
        };
        let mut client = ClusterClient::new(channel);
        let asked = client.get_manager_status(GetManagerStatusRequest {});
        match timeout(ANSWER, asked).await {
            Ok(Ok(status)) => {
                let status = status.into_inner();
                living.push(format!(
                    "{address} (applied {}, term {})",
                    status.applied_index, status.term
                ));
            }
            Ok(Err(status)) if std::error::Error::source(&status).is_none() => {
                living.push(format!("{address} ({})", root_cause(&status)));
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    match living.is_empty() {
        true => Ok(()),
        false => Err(RecoverError::OthersAnswer(living)),
    }
}

/// Makes the new store beside the old one, and exchanges the two.
fn replace(
    folder: &Folder,
    owner: &rocks::Identity,
    survivor: Survivor,
    own: &ManagerRecord,
) -> Result<PathBuf, RecoverError> {
    let mut state = survivor.state;
    anew::prepare(&mut state, own.clone(), None)?;
    let (store, fresh) = (folder.store(), folder.path().join("store.recovering"));
    // Of an earlier call that was interrupted: what it exchanged was its last step but one.
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(&fresh)(error).into());
        }
        _ => {}
    }
    let node = Node {
        address: own.address.clone(),
        uid: own.uid().to_owned(),
    };
    offline::begin(
        &fresh,
        owner,
        node,
        &state,
        (survivor.last.index, survivor.term),
    )?;
    exchange(&fresh, &store).map_err(failed(&store))?;
    let kept = folder
        .path()
        .join(format!("store.before-recovery-{}", clock::now().seconds));
    fs::rename(&fresh, &kept).map_err(failed(&kept))?;
    snapshot::sync(folder.path())?;
    Ok(kept)
}

/// In one step: at no moment is there no store.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?;
    Ok(())
}
