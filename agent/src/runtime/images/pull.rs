//! One pull: from a name to a container's root file system.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use containerd_client::{
    services::v1::{CreateImageRequest, Image as Record, UpdateImageRequest},
    tonic::{Code, Status},
    types,
};
use futures::{StreamExt, TryStreamExt, stream};
use prost_types::FieldMask;
use tokio::sync::Semaphore;

use super::{
    lease::Lease,
    manifest::{self, Descriptor, Document, ImageConfig, Manifest},
    name::Name,
    registry::{Endpoint, FetchError, Session},
    store::{self, WriteError},
    unpack::{Layer, Unpacker},
};
use crate::runtime::{client::Client, flight::Flights};

/// How often a blob that is collected under our hands is fetched again.
const TRIES: usize = 3;

/// Why an image is not here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// The registry.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The image itself.
    #[error("{0}")]
    Malformed(String),
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
    /// How many blobs are fetched at a time.
    pub permits: Arc<Semaphore>,
    /// Blobs being fetched, by digest; the id of the lease that keeps each.
    pub blobs: Arc<Flights<Result<String, PullError>>>,
}

/// The documents of an image, with what they are stored as.
struct Resolved {
    target: types::Descriptor,
    /// From the outermost to the manifest.
    documents: Vec<(Descriptor, Bytes, HashMap<String, String>)>,
    manifest: Manifest,
}

impl Puller {
    /// Pulls from one endpoint, under a lease of its own. Nothing is left to do when the name still stands for the
    /// digest that is `present`.
    pub async fn pull(
        &self,
        name: &Name,
        endpoint: &Endpoint,
        present: Option<&str>,
    ) -> Result<Pulled, PullError> {
        let session = Session::new(endpoint, name)?;
        let resolved = resolve(&session).await?;
        let digest = resolved.target.digest.clone();
        if present == Some(&digest) {
            return Ok(Pulled {
                digest,
                config: None,
            });
        }
        let lease = Lease::take(&self.client).await?;
        let result = self.pull_leased(name, &session, resolved, &lease).await;
        let returned = lease.give_back(&self.client).await;
        let config = Some(result?);
        returned?;
        Ok(Pulled { digest, config })
    }

    async fn pull_leased(
        &self,
        name: &Name,
        session: &Session,
        resolved: Resolved,
        lease: &Lease,
    ) -> Result<ImageConfig, PullError> {
        let manifest = &resolved.manifest;
        let config = self.fetch_config(session, lease, manifest).await?;
        let chain = config.chain_ids();
        if chain.len() != manifest.layers.len() {
            return Err(PullError::Malformed(format!(
                "the image has {} layers and {} digests of unpacked ones",
                manifest.layers.len(),
                chain.len()
            )));
        }
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
        for (descriptor, bytes, labels) in resolved.documents.into_iter().rev() {
            self.store(lease, &descriptor, bytes, labels).await?;
        }
        self.record(name, resolved.target).await?;
        Ok(config)
    }

    /// The configuration keeps the snapshots of the unpacked image.
    async fn fetch_config(
        &self,
        session: &Session,
        lease: &Lease,
        manifest: &Manifest,
    ) -> Result<ImageConfig, PullError> {
        let blob = &manifest.config;
        if blob.size > manifest::LARGEST_DOCUMENT {
            return Err(PullError::Malformed(
                "the image's configuration is too large".to_owned(),
            ));
        }
        let bytes = match store::claim(&self.client, lease, &blob.digest).await? {
            true => store::read(&self.client, &blob.digest)
                .await?
                .map(Bytes::from),
            false => None,
        };
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => {
                let parts: Vec<Bytes> = session.blob(blob).await?.try_collect().await?;
                parts.concat().into()
            }
        };
        let config = parse_config(&bytes)?;
        let snapshot = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
        let labels = match config.top() {
            top if top.is_empty() => HashMap::new(),
            top => HashMap::from([(snapshot, top)]),
        };
        self.store(lease, blob, bytes, labels).await?;
        Ok(config)
    }

    /// Makes a blob present and keeps it.
    async fn fetch(
        &self,
        session: &Session,
        lease: &Lease,
        blob: &Descriptor,
    ) -> Result<(), PullError> {
        for _ in 0..TRIES {
            if store::claim(&self.client, lease, &blob.digest).await? {
                return Ok(());
            }
            let work = || {
                let (this, session) = (self.clone(), session.clone());
                let (lease, blob) = (lease.clone(), blob.clone());
                async move { this.download(&session, &lease, &blob).await }
            };
            let keeper = self.blobs.run(&blob.digest, work).await.ok_or_else(|| {
                PullError::Malformed(format!("fetching {} ended unexpectedly", blob.digest))
            })??;
            if keeper == lease.id() {
                return Ok(());
            }
        }
        Err(PullError::Malformed(format!(
            "{} does not stay",
            blob.digest
        )))
    }

    async fn download(
        &self,
        session: &Session,
        lease: &Lease,
        blob: &Descriptor,
    ) -> Result<String, PullError> {
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| Status::cancelled("shutting down"))?;
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
        })?;
        Ok(lease.id().to_owned())
    }

    /// Stores a document that is at hand, with its labels.
    async fn store(
        &self,
        lease: &Lease,
        blob: &Descriptor,
        bytes: Bytes,
        labels: HashMap<String, String>,
    ) -> Result<(), PullError> {
        if store::claim(&self.client, lease, &blob.digest).await? {
            return Ok(store::label(&self.client, &blob.digest, &labels).await?);
        }
        let body = stream::iter([Ok::<_, Status>(bytes)]);
        match store::write(&self.client, lease, blob, labels, body).await {
            Ok(()) => Ok(()),
            Err(WriteError::Source(status) | WriteError::Store(status)) => Err(status.into()),
        }
    }

    /// From here on the name stands for the image, and keeps all of it.
    async fn record(&self, name: &Name, target: types::Descriptor) -> Result<(), Status> {
        let record = Record {
            name: name.to_string(),
            target: Some(target),
            ..Record::default()
        };
        let mut images = self.client.services().images();
        let create = CreateImageRequest {
            image: Some(record.clone()),
            ..CreateImageRequest::default()
        };
        match images.create(self.client.request(create)).await {
            Err(status) if status.code() == Code::AlreadyExists => {}
            answer => return answer.map(drop),
        }
        let update = UpdateImageRequest {
            image: Some(record),
            update_mask: Some(FieldMask {
                paths: vec!["target".to_owned()],
            }),
            ..UpdateImageRequest::default()
        };
        images.update(self.client.request(update)).await.map(drop)
    }
}

/// Fetches the documents down to the manifest for this machine.
async fn resolve(session: &Session) -> Result<Resolved, PullError> {
    let mut documents = Vec::new();
    let mut wanted: Option<Descriptor> = None;
    // An index may lead to a manifest, and to nothing deeper.
    for _ in 0..2 {
        let digest = wanted.as_ref().map(|descriptor| descriptor.digest.as_str());
        let (bytes, digest) = session.document(digest).await?;
        let (document, media_type) = Document::parse(&bytes).map_err(|why| {
            PullError::Malformed(format!("{} sent no image: {why}", session.url()))
        })?;
        let labels = document.gc_labels();
        let descriptor = Descriptor {
            media_type,
            digest,
            size: bytes.len() as u64,
            platform: None,
        };
        documents.push((descriptor, bytes, labels));
        match document {
            Document::Image(manifest) => {
                return Ok(Resolved {
                    target: documents[0].0.to_containerd(),
                    documents,
                    manifest,
                });
            }
            Document::Index(manifests) => {
                let ours = manifest::select(&manifests).cloned();
                wanted = Some(ours.ok_or_else(|| FetchError::Platform(session.url()))?);
            }
        }
    }
    Err(PullError::Malformed(format!(
        "{} sent an index of indexes",
        session.url()
    )))
}

/// Reads an image's configuration.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, PullError> {
    ImageConfig::parse(bytes).map_err(|why| {
        PullError::Malformed(format!("the image's configuration cannot be read: {why}"))
    })
}
