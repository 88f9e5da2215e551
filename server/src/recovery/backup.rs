//! Taking backups: the pinned state, written as `barge_client::backup` defines.

pub mod schedule;

use std::io::{self, Write};

use barge_client::backup::Writer;
use barge_proto::v1::{BackupHeader, ClusterRecord, Record, record};
use barge_state::RecordKind;
use prost::Message;

use crate::{
    pki::{Keyring, PkiError, passphrase},
    runtime::clock,
    storage::{Pinned, StorageError},
};

/// Why a backup was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The pinned state cannot be read.
    #[error("read the state: {0}")]
    Storage(#[from] StorageError),
    /// Where it goes does not take it.
    #[error("write the backup: {0}")]
    Write(#[from] io::Error),
    /// The passphrase cannot be used.
    #[error(transparent)]
    Key(#[from] PkiError),
    /// This manager has no cluster yet.
    #[error("there is no cluster in the state yet")]
    NoCluster,
}

/// Writes a backup of a pinned state. With a passphrase it takes the sealing key along. Blocks.
///
/// # Errors
/// What was written until then is no backup.
pub fn take(
    pinned: &Pinned,
    keyring: &Keyring,
    with_passphrase: Option<&str>,
    to: impl Write,
) -> Result<(), TakeError> {
    let cluster = cluster(pinned)?;
    let meta = pinned.db.meta()?;
    let sealed = with_passphrase
        .map(|passphrase| passphrase::seal(&keyring.key()?, passphrase))
        .transpose()?;
    let header = BackupHeader {
        cluster_id: cluster.metadata.unwrap_or_default().uid,
        revision: meta.revision,
        request_floor: meta.request_floor,
        time: Some(clock::now()),
        feature_level: cluster.feature_level,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sealing_key: sealed,
    };
    let mut writer = Writer::begin(to, header)?;
    for record in pinned.db.records() {
        writer.record(record?)?;
    }
    for request in pinned.db.requests() {
        writer.request(request?)?;
    }
    writer.finish()?;
    Ok(())
}

fn cluster(pinned: &Pinned) -> Result<ClusterRecord, TakeError> {
    let Some(encoded) = pinned.db.records_of(RecordKind::Cluster).next() else {
        return Err(TakeError::NoCluster);
    };
    match Record::decode(encoded?.as_slice()) {
        Ok(Record {
            record: Some(record::Record::Cluster(cluster)),
        }) => Ok(cluster),
        Ok(_) => Err(TakeError::NoCluster),
        Err(error) => Err(StorageError::corrupted("the cluster's record", error).into()),
    }
}
