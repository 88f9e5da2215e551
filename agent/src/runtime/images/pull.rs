//! One pull: from a name to a container's root file system.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use containerd_client::tonic::{Code, Status};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{
    body::Pace,
    config::ImageConfig,
    disk::Disk,
    http::Http,
    lease::Lease,
    manifest::Descriptor,
    name::Name,
    parse,
    records::Records,
    registry::{FetchError, Held, Session},
    resolve::{self, Resolved, Top},
    shares::{Permit, Shares},
    store::{self, WriteError},
    unpack::{self, Layer, Unpacker},
    ways::Way,
};
use crate::runtime::{client::Client, flight::Flights};

/// How often a blob that is collected under our hands, or that another pull failed to fetch, is fetched again.
const TRIES: usize = 3;
/// Bytes of a document that are stored at a time.
const PIECE: usize = 64 * 1024;

/// Why an image is not here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// The registry.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The image itself.
    #[error("{0}")]
    Malformed(String),
    /// It is larger than it may be, or than the disk has room for.
    #[error("{0}")]
    TooLarge(String),
    /// Nobody waits for it any more.
    #[error("nobody wants it any more")]
    Unwanted,
    /// containerd.
    #[error("{}", .0.message())]
    Store(#[from] Status),
}

/// An image that was pulled.
pub struct Pulled {
    /// Digest of what the name stands for: the index, if there is one.
    pub digest: String,
    /// How it runs; `None` when it was here already.
    pub config: Option<ImageConfig>,
}

/// What pulls have in common.
#[derive(Clone)]
pub struct Puller {
    /// containerd.
    pub client: Client,
    /// Which snapshotter.
    pub snapshotter: String,
    /// How fast a registry has to be.
    pub pace: Pace,
    /// Asks registries.
    pub http: Http,
    /// First documents asked for at a time.
    pub looks: Shares,
    /// Pulls at a time.
    pub pulls: Shares,
    /// Documents held in memory at a time, in units of 64 KiB.
    pub documents: Shares,
    /// Layers fetched at a time.
    pub layers: Shares,
    /// Layers being fetched, by registry and digest; the id of the lease that keeps each.
    pub blobs: Arc<Flights<(String, Result<(), PullError>)>>,
    /// Where it all goes.
    pub disk: Disk,
    /// What the names of images stand for.
    pub records: Records,
}

impl Puller {
    /// Pulls what a tag or digest stands for at one endpoint, under a lease of its own. Nothing is left to do when that is the digest that is `present`.
    /// Ends early, and tidies up, once `unwanted` is cancelled.
    pub async fn pull(
        &self,
        name: &Name,
        reference: &str,
        way: &Way,
        present: Option<&str>,
        unwanted: &CancellationToken,
    ) -> Result<Pulled, PullError> {
        let session = Session::new(
            &self.http,
            &way.endpoint,
            name,
            self.pace,
            self.documents.clone(),
        )
        .await?;
        let look = async {
            let _permit = self.looks.take(session.host()).await;
            resolve::top(&session, reference).await
        };
        let top = unwanted.run_until_cancelled(Box::pin(look)).await;
        let top = top.ok_or(PullError::Unwanted)??;
        let digest = top.descriptor.digest.to_string();
        if present == Some(&digest) {
            // The registry gave it to this pod, too.
            let records = &self.records;
            records.admit(name, &digest, way.ticket.as_ref()).await?;
            return Ok(Pulled {
                digest,
                config: None,
            });
        }
        // Nothing more is asked of the registry for an image that is here: its pod does not wait for the pulls of others.
        let turn = unwanted
            .run_until_cancelled(Box::pin(self.turn(&session, top)))
            .await;
        let (_permit, top) = turn.ok_or(PullError::Unwanted)??;
        let lease = Lease::take(&self.client).await?;
        let work = Box::pin(self.pull_leased(name, way, &session, top, &lease));
        let result = unwanted.run_until_cancelled(work).await;
        let returned = lease.give_back(&self.client).await;
        let config = Some(result.ok_or(PullError::Unwanted)??);
        returned?;
        Ok(Pulled { digest, config })
    }

    /// Waits for a permit to pull. Nobody waits with a document in memory: those who pull may need the room.
    async fn turn(&self, session: &Session, top: Top) -> Result<(Permit, Top), PullError> {
        if let Some(permit) = self.pulls.try_take(session.host()) {
            return Ok((permit, top));
        }
        let descriptor = top.descriptor.clone();
        drop(top);
        let permit = self.pulls.take(session.host()).await;
        session.renew_patience();
        Ok((permit, resolve::fetch(session, &descriptor).await?))
    }

    async fn pull_leased(
        &self,
        name: &Name,
        way: &Way,
        session: &Session,
        top: Top,
        lease: &Lease,
    ) -> Result<ImageConfig, PullError> {
        let target = top.descriptor.to_containerd();
        session.renew_patience();
        let resolved = resolve::descend(self, session, lease, top).await?;
        let Resolved { manifest, config } = resolved;
        let chain = config.chain_ids();
        if chain.len() != manifest.layers.len() {
            return Err(PullError::Malformed(format!(
                "the image has {} layers and {} digests of unpacked ones",
                manifest.layers.len(),
                chain.len()
            )));
        }
        self.check_room(&manifest.layers, &chain).await?;
        // Fetched side by side, unpacked in order as they arrive: each lies on the one below.
        let fetches: Vec<_> = manifest
            .layers
            .iter()
            .map(|layer| async move { self.fetch(session, lease, layer).await.map(|()| layer) })
            .collect();
        let at_a_time = fetches.len().max(1);
        let mut fetches = std::pin::pin!(stream::iter(fetches).buffered(at_a_time));
        let unpacker = Unpacker {
            client: &self.client,
            snapshotter: &self.snapshotter,
            lease,
        };
        let mut done = 0;
        while let Some(blob) = fetches.try_next().await? {
            let layer = Layer {
                blob,
                diff_id: &config.diff_ids[done],
                below: if done == 0 { "" } else { &chain[done - 1] },
                chain_id: &chain[done],
            };
            unpacker.unpack(&layer).await?;
            done += 1;
        }
        let records = &self.records;
        records.put(name, target, way.ticket.as_ref()).await?;
        Ok(config)
    }

    /// Whether the disk has room for the layers that are not here. It is a look and not a reservation: a pull that finds
    /// the disk full later fails then, and is tried again.
    async fn check_room(&self, layers: &[Descriptor], chain: &[String]) -> Result<(), PullError> {
        let sizes = layers.iter().map(|layer| layer.size);
        let all = sizes.fold(0, u64::saturating_add);
        if self.disk.lacks(&self.client, all).await.is_none() {
            return Ok(());
        }
        let mut missing = 0_u64;
        for (layer, chain_id) in layers.iter().zip(chain) {
            if !unpack::exists(&self.client, &self.snapshotter, chain_id).await? {
                missing = missing.saturating_add(layer.size);
            }
        }
        match self.disk.lacks(&self.client, missing).await {
            Some(lack) => Err(PullError::TooLarge(lack)),
            None => Ok(()),
        }
    }

    /// What an image's configuration keeps from collection: the unpacked image.
    pub fn snapshot_labels(&self, config: &ImageConfig) -> HashMap<String, String> {
        let key = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
        match config.top() {
            top if top.is_empty() => HashMap::new(),
            top => HashMap::from([(key, top)]),
        }
    }

    /// Adds labels to a blob that is here.
    pub async fn label(&self, digest: &str, labels: HashMap<String, String>) -> Result<(), Status> {
        match labels.is_empty() {
            true => Ok(()),
            false => store::label(&self.client, digest, &labels).await,
        }
    }

    /// Makes a blob present and keeps it.
    async fn fetch(
        &self,
        session: &Session,
        lease: &Lease,
        blob: &Descriptor,
    ) -> Result<(), PullError> {
        let key = format!("{} {}", session.url(), &*blob.digest);
        let mut failure = None;
        for _ in 0..TRIES {
            if store::claim(&self.client, lease, &blob.digest).await? {
                return Ok(());
            }
            let work = |unwanted: CancellationToken| {
                let (this, session) = (self.clone(), session.clone());
                let (lease, blob) = (lease.clone(), blob.clone());
                let in_use = lease.in_use();
                async move {
                    let _in_use = in_use;
                    let download = this.download(&session, &lease, &blob);
                    let result = unwanted.run_until_cancelled(download).await;
                    let result = result.unwrap_or(Err(PullError::Unwanted));
                    if result.is_err()
                        && let Err(error) = store::abort(&this.client, &lease, &blob.digest).await
                    {
                        tracing::debug!(%error, "what was written of a layer goes with the lease");
                    }
                    (lease.id().to_owned(), result)
                }
            };
            match self.blobs.run_while_wanted(&key, work).await {
                Some((keeper, result)) if keeper == lease.id() => return result,
                // Another pull fetched it: it has to be kept for this one, or it is this one's turn.
                Some((_, Ok(()))) => {}
                Some((_, Err(error))) => failure = Some(error),
                None => {
                    let digest = &*blob.digest;
                    let message = format!("fetching {digest} ended unexpectedly");
                    return Err(PullError::Malformed(message));
                }
            }
        }
        Err(failure
            .unwrap_or_else(|| PullError::Malformed(format!("{} does not stay", &*blob.digest))))
    }

    async fn download(
        &self,
        session: &Session,
        lease: &Lease,
        blob: &Descriptor,
    ) -> Result<(), PullError> {
        let _permit = self.layers.take(session.host()).await;
        let body = session.blob(blob).await?;
        let written = store::write(&self.client, lease, blob, HashMap::new(), body).await;
        written.map_err(|error| match error {
            WriteError::Source(error) => PullError::Fetch(error),
            WriteError::Store(status) if status.code() == Code::FailedPrecondition => {
                PullError::Fetch(FetchError::Digest(
                    session.url(),
                    status.message().to_owned(),
                ))
            }
            WriteError::Store(status) => PullError::Store(status),
        })
    }

    /// Stores a document that is at hand, and forgets it.
    pub async fn store(
        &self,
        lease: &Lease,
        blob: &Descriptor,
        document: Held,
    ) -> Result<(), PullError> {
        if store::claim(&self.client, lease, &blob.digest).await? {
            return Ok(());
        }
        // In pieces, of which each is copied, and not the whole.
        let bytes = document.bytes.clone();
        let pieces = (0..bytes.len()).step_by(PIECE).map(move |start| {
            let end = bytes.len().min(start + PIECE);
            Ok::<_, Status>(bytes.slice(start..end))
        });
        let body = stream::iter(pieces);
        match store::write(&self.client, lease, blob, HashMap::new(), body).await {
            Ok(()) => Ok(()),
            Err(WriteError::Source(status) | WriteError::Store(status)) => Err(status.into()),
        }
    }
}

/// Reads an image's configuration.
pub async fn parse_config(bytes: Bytes) -> Result<ImageConfig, PullError> {
    let parsed = parse::apart(bytes, ImageConfig::parse).await;
    parsed.map_err(unreadable)
}

/// Reads of an image's configuration what a pull needs.
pub async fn parse_for_pull(bytes: Bytes) -> Result<ImageConfig, PullError> {
    let parsed = parse::apart(bytes, ImageConfig::parse_for_pull).await;
    parsed.map_err(unreadable)
}

fn unreadable(why: String) -> PullError {
    PullError::Malformed(format!("the image's configuration cannot be read: {why}"))
}
