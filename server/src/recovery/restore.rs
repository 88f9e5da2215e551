//! `barge-server restore`: the first manager of a cluster that comes back from a backup.
//!
//! The command reads, checks and decrypts everything before it writes anything. The folder counts as having a cluster only when all files
//! are there; the next call begins an interrupted restore anew.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    time::SystemTime,
};

use barge_client::{
    backup::{
        self, BackupError, Summary,
        place::{self, PlaceError},
    },
    config::{Config as AdminConfig, ConfigError},
    identity::{Identity, IdentityError},
    token::{ca_digest, hex},
};
use barge_proto::v1::{ClusterRecord, ManagerRecord, ObjectMeta, Role, record};
use barge_state::{
    Kind, LEVEL, Meta, NotUnderstood, Restoring, State, Stored, check_understood, limits::Limits,
};
use clap::Args;

use crate::{
    boot::{
        bootstrap::public_key_sha256,
        folder::{Folder, FolderError, failed},
    },
    config::UsageError,
    error::ApiError,
    net::split_address,
    pki::{
        Authority, PkiError, Purpose, SealingKey, Subject, authority::LEAF_LIFE, chain,
        keyring::KeyFile, passphrase,
    },
    recovery::anew,
    runtime::clock,
    storage::{StorageError, offline, rocks, types::Node},
};

/// The flags of `restore`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// The backup, as `barge cluster backup` made it: a file or s3://BUCKET/KEY
    pub file: PathBuf,
    /// Where the new manager will keep everything; a folder without a cluster
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The address by which others will reach the new manager; agents look for managers where they were
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: String,
    /// The file with the passphrase that the backup was made with
    #[arg(long, value_name = "FILE", conflicts_with = "sealing_key_file")]
    pub passphrase_file: Option<PathBuf>,
    /// The cluster's sealing key (sealing.key of a manager of before), for a backup without a passphrase
    #[arg(long, value_name = "FILE")]
    pub sealing_key_file: Option<PathBuf>,
}

/// Why a backup was not restored. Nothing was changed, except where it says so.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What was typed.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The backup.
    #[error("{}: {source}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: BackupError,
    },
    /// Where the backup is kept.
    #[error("fetch the backup: {0}")]
    Place(#[from] PlaceError),
    /// It holds something that this version cannot run.
    #[error(transparent)]
    FeatureLevel(#[from] NotUnderstood),
    /// Nothing was given that opens its secrets.
    #[error(
        "the backup holds no sealing key: give that of a manager of before with --sealing-key-file (sealing.key in its data folder)"
    )]
    NoKey,
    /// The backup needs a passphrase.
    #[error(
        "the backup's sealing key is under a passphrase: give it with --passphrase-file, or the key itself with --sealing-key-file"
    )]
    NoPassphrase,
    /// A key that does not fit.
    #[error("{}: {what}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The folder is a manager's.
    #[error(
        "the data folder {} has a manager of cluster {cluster_id}: a backup is restored into an empty folder only; if that \
         manager is of no use any more, move its folder away",
        path.display()
    )]
    HasCluster {
        /// The folder.
        path: PathBuf,
        /// Its cluster.
        cluster_id: String,
    },
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The state does not make sense.
    #[error("prepare the state: {0}")]
    State(#[from] ApiError),
    /// The new manager's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The administrator's credential.
    #[error(transparent)]
    Admin(#[from] ConfigError),
    /// The state could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Makes the folder of the only manager of the restored cluster; it is started by `run` like any other.
///
/// # Errors
/// One sentence on why not.
pub fn restore(flags: &Flags) -> Result<Summary, RestoreError> {
    if split_address(&flags.advertise).is_none() {
        let text = format!("--advertise {}: host:port is expected", flags.advertise);
        return Err(UsageError::Setting(text).into());
    }
    // What is there decides before a large file is read.
    if let Some(identity) = Identity::load(&flags.data_dir.join("identity"))? {
        return Err(RestoreError::HasCluster {
            path: flags.data_dir.clone(),
            cluster_id: identity.cluster_id,
        });
    }
    let (mut state, summary) = read(&flags.file)?;
    let cluster = state
        .cluster()
        .map(|cluster| ClusterRecord::clone(cluster))
        .ok_or_else(|| ApiError::Internal("the backup holds no cluster".to_owned()))?;
    check_understood(cluster.feature_level, LEVEL)?;
    let (sealing_key, authority) = open(flags, &summary, &cluster)?;
    let raft_id = anew::next_raft_id(&cluster);
    let issue = |role, raft_id| issue(&authority, &cluster, role, raft_id, &flags.advertise);
    let manager = issue(Role::Manager, Some(raft_id))?;
    let admin = issue(Role::Admin, None)?;
    let record = ManagerRecord {
        feature_level: LEVEL,
        metadata: Some(ObjectMeta {
            name: manager.uid.clone(),
            uid: manager.uid.clone(),
            ..ObjectMeta::default()
        }),
        raft_id,
        address: flags.advertise.clone(),
        public_key_sha256: public_key_sha256(&manager),
        ..ManagerRecord::default()
    };
    anew::prepare(&mut state, record, Some(&admin.uid))?;

    let folder = Folder::open(&flags.data_dir)?;
    let store = folder.store();
    remove(&store).map_err(failed(&store))?;
    let owner = rocks::Identity {
        cluster_id: manager.cluster_id.clone(),
        raft_id,
    };
    let node = Node {
        address: flags.advertise.clone(),
        uid: manager.uid.clone(),
    };
    offline::begin(&store, &owner, node, &state, (0, 0))?;
    folder.save_sealing_key(&sealing_key)?;
    folder.save_origin(&hex(&ca_digest(authority.root())))?;
    folder.remove(&folder.genesis())?;
    AdminConfig::single(&admin, vec![flags.advertise.clone()]).save(&folder.admin())?;
    manager.save(&folder.identity())?;
    Ok(summary)
}

/// Of an earlier call that was interrupted.
fn remove(store: &Path) -> io::Result<()> {
    match fs::remove_dir_all(store) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn fetch(place: &str, name: &str) -> Result<File, RestoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(PlaceError::from)?;
    Ok(runtime.block_on(place::fetch(place, name))?)
}

fn read(path: &Path) -> Result<(State, Summary), RestoreError> {
    let wrong = |source| RestoreError::Backup {
        path: path.to_owned(),
        source,
    };
    let file = match place::split(&path.to_string_lossy())? {
        None => File::open(path).map_err(|error| wrong(error.into()))?,
        Some((place, name)) => fetch(place, name)?,
    };
    let (mut restoring, mut requests) = (Restoring::default(), Vec::new());
    let summary = backup::read(
        BufReader::new(file),
        |record: record::Record| {
            let record = barge_proto::v1::Record {
                record: Some(record),
            };
            if let Some(record) = Stored::from_record(record) {
                restoring.add(record);
            }
        },
        |request| requests.push(request),
    )
    .map_err(wrong)?;
    let meta = Meta {
        revision: summary.header.revision,
        request_floor: summary.header.request_floor,
        requests,
    };
    Ok((restoring.finish(meta, Limits::default()), summary))
}

/// The sealing key and, as the proof that it is the right one, the authority that it opens.
fn open(
    flags: &Flags,
    summary: &Summary,
    cluster: &ClusterRecord,
) -> Result<(SealingKey, Authority), RestoreError> {
    let (path, key) = match (
        &flags.sealing_key_file,
        &flags.passphrase_file,
        &summary.header.sealing_key,
    ) {
        (Some(path), _, _) => {
            let bytes = fs::read(path).map_err(failed(path))?;
            (path, KeyFile::decode(&bytes).and_then(KeyFile::clear))
        }
        (None, Some(path), Some(sealed)) => {
            let text = fs::read_to_string(path).map_err(failed(path))?;
            (
                path,
                passphrase::open(sealed, text.trim_end_matches(['\r', '\n'])),
            )
        }
        (None, None, Some(_)) => return Err(RestoreError::NoPassphrase),
        (None, _, None) => return Err(RestoreError::NoKey),
    };
    let wrong = |what: String| RestoreError::Key {
        path: path.clone(),
        what,
    };
    let key = key.map_err(|error| {
        wrong(match error {
            PkiError::Sealed => {
                "this is not the passphrase that the backup was made with".to_owned()
            }
            other => other.to_string(),
        })
    })?;
    let ca_key = key
        .open(Purpose::AuthorityKey, &cluster.sealed_ca_key)
        .map_err(|_| wrong("this is not the sealing key of the backup's cluster".to_owned()))?;
    let root = cluster.roots.first().cloned().unwrap_or_default();
    Ok((key, Authority::open(&root, &ca_key)?))
}

fn issue(
    authority: &Authority,
    cluster: &ClusterRecord,
    role: Role,
    raft_id: Option<u64>,
    advertise: &str,
) -> Result<Identity, PkiError> {
    let subject = Subject {
        cluster_id: cluster.uid().to_owned(),
        role,
        uid: clock::new_uid(),
        raft_id,
    };
    let (key, certificate) =
        authority.issue_with_new_key(&subject, SystemTime::now(), LEAF_LIFE)?;
    Ok(Identity {
        cluster_id: subject.cluster_id,
        role,
        uid: subject.uid,
        key: key.serialize_pem(),
        chain: chain(cluster, certificate),
        roots: cluster
            .roots
            .iter()
            .map(|root| root.clone().into())
            .collect(),
        members: vec![advertise.to_owned()],
    })
}

#[cfg(test)]
mod tests;
