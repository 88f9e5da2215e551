//! From layers to snapshots.

use std::collections::HashMap;

use containerd_client::{
    services::v1::{
        ApplyRequest,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
            StatSnapshotRequest,
        },
    },
    tonic::{Code, Status},
};

use super::{
    lease::Lease,
    limits::{CALL, UNPACK, within},
    manifest::Descriptor,
};
use crate::runtime::{client::Client, error::unless_missing};

/// Unpacks layers under a lease.
pub struct Unpacker<'a> {
    /// containerd.
    pub client: &'a Client,
    /// Which snapshotter.
    pub snapshotter: &'a str,
    /// Keeps what is made.
    pub lease: &'a Lease,
}

/// A layer to be put on top of others.
pub struct Layer<'a> {
    /// The packed layer, in the content store.
    pub blob: &'a Descriptor,
    /// Digest of the unpacked tar.
    pub diff_id: &'a str,
    /// Name of the snapshot below; empty for the lowest.
    pub below: &'a str,
    /// Name of the snapshot to make.
    pub chain_id: &'a str,
}

/// Whether a snapshot is there.
pub async fn exists(client: &Client, snapshotter: &str, name: &str) -> Result<bool, Status> {
    let request = StatSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: name.to_owned(),
    };
    let mut snapshots = client.services().snapshots();
    let answer = within(CALL, snapshots.stat(client.request(request))).await;
    Ok(unless_missing(answer)?.is_some())
}

impl Unpacker<'_> {
    /// Whether a snapshot is there; then the lease keeps it.
    pub async fn claim(&self, name: &str) -> Result<bool, Status> {
        if !exists(self.client, self.snapshotter, name).await? {
            return Ok(false);
        }
        let kind = format!("snapshots/{}", self.snapshotter);
        self.lease.keep(self.client, &kind, name).await?;
        // It may have been collected before it was kept.
        exists(self.client, self.snapshotter, name).await
    }

    /// Makes the snapshot of a layer, unless it is there.
    pub async fn unpack(&self, layer: &Layer<'_>) -> Result<(), Status> {
        if self.claim(layer.chain_id).await? {
            return Ok(());
        }
        let key = format!("{}-{}", self.lease.id(), layer.chain_id);
        let result = self.apply(&key, layer).await;
        match result {
            Ok(()) => Ok(()),
            Err(status) => {
                self.remove(&key).await?;
                // Another pull made it meanwhile.
                if status.code() == Code::AlreadyExists && self.claim(layer.chain_id).await? {
                    return Ok(());
                }
                Err(status)
            }
        }
    }

    async fn apply(&self, key: &str, layer: &Layer<'_>) -> Result<(), Status> {
        let header = self.lease.header();
        let prepare = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
            parent: layer.below.to_owned(),
            labels: HashMap::new(),
        };
        let mut snapshots = self.client.services().snapshots();
        let prepared = snapshots.prepare(self.client.leased(header, prepare));
        let prepared = within(CALL, prepared).await?;
        let apply = ApplyRequest {
            diff: Some(layer.blob.to_containerd()),
            mounts: prepared.into_inner().mounts,
            payloads: HashMap::new(),
            sync_fs: false,
        };
        let mut diff = self.client.services().diff();
        let applied = within(UNPACK, diff.apply(self.client.leased(header, apply))).await?;
        let unpacked = applied.into_inner().applied.unwrap_or_default().digest;
        if unpacked != layer.diff_id {
            return Err(Status::data_loss(format!(
                "layer {} unpacks to {unpacked}, but the image says {}",
                layer.blob.digest, layer.diff_id
            )));
        }
        let commit = CommitSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            name: layer.chain_id.to_owned(),
            key: key.to_owned(),
            labels: HashMap::new(),
        };
        within(CALL, snapshots.commit(self.client.leased(header, commit))).await?;
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
        };
        let mut snapshots = self.client.services().snapshots();
        let removed = snapshots.remove(self.client.leased(self.lease.header(), request));
        unless_missing(within(CALL, removed).await)?;
        Ok(())
    }
}
