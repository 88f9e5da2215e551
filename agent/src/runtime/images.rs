//! Images: fetched from registries, verified, unpacked, and found again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use containerd_client::tonic::Status;
use tokio::sync::Semaphore;

use super::{
    Image, ImageStore, Options, PullPolicy, PullSecrets, RuntimeError,
    client::Client,
    error::{is_unreachable, reason},
    flight::Flights,
};

mod auth;
mod body;
mod config;
mod disk;
mod endpoint;
mod fetch;
mod http;
mod lease;
mod limits;
mod manifest;
mod mark;
mod name;
mod node;
mod parse;
mod processor;
mod pull;
mod records;
mod registry;
mod resolve;
mod shares;
#[cfg(test)]
mod stalls;
mod store;
mod stored;
mod unpack;
mod ways;

use body::Pace;
pub use config::ImageConfig;
pub use lease::sweep;
use manifest::Document;
use mark::Mark;
use name::Name;
use node::NodeLogins;
pub use node::check as check_registry_config;
use processor::Processor;
use pull::{PullError, Puller, parse_config, parse_for_pull};
use records::Records;
use registry::FetchError;
use shares::Shares;

/// Configurations remembered; beyond that all are forgotten.
const REMEMBERED: usize = 128;
/// Documents in memory at a time, in units of 64 KiB: 6 MiB for one registry, 12 MiB for all. One of the largest, which
/// has 4 MiB, leaves room for some of the usual ones, which have a few KiB.
const DOCUMENTS: (usize, usize) = (96, 192);

/// First documents asked for at a time: of one registry, and of all.
const LOOKS: (usize, usize) = (32, 64);
/// Images read back from containerd at a time, each with a document of at most 4 MiB in memory.
const READS: usize = 2;

/// The images of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    options: Arc<Options>,
    puller: Puller,
    node: NodeLogins,
    flights: Arc<Flights<Result<Image, RuntimeError>>>,
    /// By digest of what an image's name stands for; a digest's meaning never changes.
    configs: Arc<Mutex<HashMap<String, Arc<ImageConfig>>>>,
    reads: Arc<Semaphore>,
}

impl Images {
    /// The images of a containerd.
    pub fn new(client: Client, options: Arc<Options>) -> Self {
        let puller = Puller {
            records: Records::new(client.clone()),
            client,
            snapshotter: options.snapshotter.clone(),
            pace: Pace {
                bytes: options.progress_bytes,
                window: options.progress_window,
            },
            http: http::Http::new(&options.registries),
            looks: Shares::new(LOOKS.1, LOOKS.0),
            pulls: Shares::new(2 * options.parallel_pulls, options.parallel_pulls),
            documents: Shares::new(DOCUMENTS.1, DOCUMENTS.0),
            layers: Shares::new(3 * options.parallel_fetches, options.parallel_fetches),
            blobs: Arc::default(),
            disk: disk::Disk::default(),
        };
        Self {
            node: NodeLogins::new(options.registry_config.clone()),
            options,
            puller,
            flights: Arc::default(),
            configs: Arc::default(),
            reads: Arc::new(Semaphore::new(READS)),
        }
    }

    /// How an image runs, by its id.
    pub async fn config(&self, image_id: &str) -> Result<Arc<ImageConfig>, RuntimeError> {
        let digest = image_id
            .rsplit_once('@')
            .map_or(image_id, |(_, digest)| digest);
        let loaded = self
            .load(digest, Part::All)
            .await
            .map_err(|error| describe(image_id, &[error]))?;
        loaded.ok_or_else(|| {
            RuntimeError::passing(
                reason::ERR_IMAGE_PULL,
                format!("{image_id} is not on this machine any more"),
            )
        })
    }

    /// The images that pulls brought here, and how full containerd's disk is.
    pub async fn stored(&self) -> Result<ImageStore, RuntimeError> {
        let client = &self.puller.client;
        let (disk, images) = tokio::join!(self.puller.disk.filled(client), stored::list(client));
        let failed =
            |status| RuntimeError::from_status(reason::UNAVAILABLE, "list images", &status);
        Ok(ImageStore {
            disk,
            images: images.map_err(failed)?,
        })
    }

    /// Removes an image, unless somebody pulls it. Returns when containerd has collected what nothing else needs.
    pub async fn remove(&self, name: &str) -> Result<bool, RuntimeError> {
        if self
            .flights
            .keys()
            .iter()
            .any(|key| fetch::is_of(key, name))
        {
            return Ok(false);
        }
        let removed = stored::remove(&self.puller.client, name).await;
        let what = format!("remove the image {name}");
        removed
            .map(|()| true)
            .map_err(|status| RuntimeError::from_status(reason::UNAVAILABLE, &what, &status))
    }

    /// What the name stands for, if it is here and unpacked.
    async fn present(&self, name: &Name) -> Result<Option<Present>, RuntimeError> {
        let found = async {
            let record = self.puller.records.get(name).await?;
            let Some(record) = record else {
                return Ok(None);
            };
            let mark = records::mark_of(&record);
            let Some(target) = record.target else {
                return Ok(None);
            };
            let config = match self.load(&target.digest, Part::ForPull).await {
                Ok(Some(config)) => config,
                // What cannot be read is not here: the registry may have something better by now.
                Ok(None) | Err(PullError::Malformed(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            let top = config.top();
            let client = &self.puller.client;
            let unpacked =
                top.is_empty() || unpack::exists(client, &self.options.snapshotter, &top).await?;
            let digest = target.digest;
            Ok(unpacked.then_some(Present { digest, mark }))
        };
        found
            .await
            .map_err(|error| describe(&name.to_string(), &[error]))
    }

    /// Reads an image's configuration from the content store; `None` when something is missing.
    async fn load(&self, digest: &str, part: Part) -> Result<Option<Arc<ImageConfig>>, PullError> {
        let known = lock(&self.configs).get(digest).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let config = self.read(digest, part).await?.map(Arc::new);
        if let Some(config) = &config {
            self.remember(digest, Arc::clone(config));
        }
        Ok(config)
    }

    /// Goes down from a name's digest to a configuration for this machine; `None` when there is none of which manifest
    /// and configuration are here. Entries are tried as a pull tries them.
    async fn read(&self, digest: &str, part: Part) -> Result<Option<ImageConfig>, PullError> {
        // The semaphore is never closed, so an error cannot be.
        let _permit = self.reads.acquire().await.ok();
        let client = &self.puller.client;
        let processor = Processor::ours();
        // Digest, indexes above, and whether the index vouches for the platform.
        let mut leads = vec![(digest.to_owned(), 0, true)];
        for _ in 0..resolve::MOST_DOCUMENTS {
            let Some((digest, depth, named)) = leads.pop() else {
                return Ok(None);
            };
            let Some(bytes) = store::read(client, &digest).await? else {
                continue;
            };
            let document = parse::apart(bytes.into(), Document::parse).await;
            match document.map_err(PullError::Malformed)?.0 {
                Document::Index(entries) if depth < resolve::DEEPEST => {
                    let mut below = manifest::candidates(&processor, entries);
                    below.truncate(resolve::MOST_DOCUMENTS);
                    leads.extend(below.into_iter().rev().map(|entry| {
                        let named = entry.platform.is_some();
                        (entry.digest.to_string(), depth + 1, named)
                    }));
                }
                Document::Index(_) => {}
                Document::Image(manifest) => {
                    let Some(bytes) = store::read(client, &manifest.config.digest).await? else {
                        continue;
                    };
                    let parsed = match part {
                        Part::All => parse_config(bytes.into()).await,
                        Part::ForPull => parse_for_pull(bytes.into()).await,
                    };
                    match parsed {
                        Ok(config) if named || config.suits(&processor) => return Ok(Some(config)),
                        Err(error) if named => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(None)
    }

    fn remember(&self, digest: &str, config: Arc<ImageConfig>) {
        if !config.is_small() {
            return;
        }
        let mut configs = lock(&self.configs);
        if configs.len() >= REMEMBERED {
            configs.clear();
        }
        configs.insert(digest.to_owned(), config);
    }
}

/// An image that is here and unpacked.
struct Present {
    digest: String,
    /// Who may use it; `None`: every pod.
    mark: Option<Mark>,
}

/// The complete name of an image; `None` for what is no name.
pub fn complete_name(image: &str) -> Option<String> {
    Name::parse(image).ok().map(|name| name.to_string())
}

/// How much of a configuration is read. Of one that may be kept in memory it is the same.
#[derive(Clone, Copy)]
enum Part {
    All,
    /// The layers and the platform of a large one.
    ForPull,
}

/// The map is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that was tried, in one sentence.
fn describe(image: &str, errors: &[PullError]) -> RuntimeError {
    if let [PullError::Store(status)] = errors {
        return store_error(image, status);
    }
    let tried: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let message = format!("cannot pull {image}: {}", tried.join("; "));
    // Tags are pushed and registries come back; only a digest that was sent wrong is never right, and even that may
    // be a broken mirror.
    let lasting = errors
        .iter()
        .all(|error| matches!(error, PullError::Fetch(FetchError::Platform(..))));
    match lasting {
        true => RuntimeError::lasting(reason::ERR_IMAGE_PULL, message),
        false => RuntimeError::passing(reason::ERR_IMAGE_PULL, message),
    }
}

fn store_error(image: &str, status: &Status) -> RuntimeError {
    let reason = match is_unreachable(status) {
        true => reason::UNAVAILABLE,
        false => reason::ERR_IMAGE_PULL,
    };
    RuntimeError::from_status(reason, &format!("store {image}"), status)
}
