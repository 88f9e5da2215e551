//! From a name to the manifest for this machine, through indexes.

use bytes::Bytes;

use super::{
    config::ImageConfig,
    lease::Lease,
    manifest::{self, Descriptor, Document, LARGEST_DOCUMENT, Manifest},
    parse,
    processor::Processor,
    pull::{PullError, Puller, parse_for_pull},
    registry::{FetchError, Held, Session},
    store,
};

/// Indexes on the way to a manifest.
pub const DEEPEST: usize = 4;
/// Documents looked at for one image.
pub const MOST_DOCUMENTS: usize = 16;
/// Platforms told when none of them is ours.
const MOST_OFFERED: usize = 16;

/// What a name stands for, as a registry sent it.
pub struct Top {
    /// Its descriptor.
    pub descriptor: Descriptor,
    document: Document,
    held: Held,
}

/// An image for this machine. All its documents are stored.
pub struct Resolved {
    /// Its layers.
    pub manifest: Manifest,
    /// How it runs.
    pub config: ImageConfig,
}

/// A document that may lead to the image, or be its manifest.
struct Lead {
    descriptor: Descriptor,
    /// Digests of the indexes above it, outermost first.
    above: Vec<String>,
}

/// Fetches the outermost document.
pub async fn top(session: &Session, reference: &str) -> Result<Top, PullError> {
    let (held, digest) = session.document(reference, None).await?;
    let (document, media_type) = parse(session, &held.bytes).await?;
    let descriptor = Descriptor {
        media_type: media_type.into(),
        digest: digest.into(),
        size: held.bytes.len() as u64,
        platform: None,
    };
    Ok(Top {
        descriptor,
        document,
        held,
    })
}

/// Goes down to the manifest and the configuration for this machine, and stores them and the indexes above. The best
/// entry of an index comes first, and the next one only if that leads to nothing that runs here.
pub async fn descend(
    puller: &Puller,
    session: &Session,
    lease: &Lease,
    top: Top,
) -> Result<Resolved, PullError> {
    let processor = Processor::ours();
    let mut offered = Vec::new();
    let mut next = Some((top, Vec::new()));
    let mut leads: Vec<Lead> = Vec::new();
    for _ in 0..MOST_DOCUMENTS {
        let (found, above) = match (next.take(), leads.pop()) {
            (Some(first), _) => first,
            (None, Some(lead)) => (fetch(session, &lead.descriptor).await?, lead.above),
            (None, None) => return Err(unsuitable(session, &processor, &offered).into()),
        };
        let descriptor = found.descriptor;
        // Stored at once: the memory is for the next one.
        puller.store(lease, &descriptor, found.held).await?;
        match found.document {
            Document::Index(entries) => {
                let named = entries.iter().filter_map(|entry| entry.platform.as_ref());
                offered.extend(named.take(MOST_OFFERED).map(ToString::to_string));
                if above.len() == DEEPEST {
                    continue;
                }
                let mut above = above;
                above.push(descriptor.digest.to_string());
                let mut below = manifest::candidates(&processor, entries);
                below.truncate(MOST_DOCUMENTS);
                // The last one in is the first one out.
                leads.extend(below.into_iter().rev().map(|descriptor| Lead {
                    descriptor,
                    above: above.clone(),
                }));
            }
            Document::Image(manifest) => {
                // An index that names the platform is believed, and so is who named this image and no index; else the
                // configuration is asked.
                let named = descriptor.platform.is_some() || above.is_empty();
                match config(puller, session, lease, &manifest).await {
                    Ok(config) if named || config.suits(&processor) => {
                        let resolved = Resolved { manifest, config };
                        label(puller, &descriptor.digest, &above, &resolved).await?;
                        return Ok(resolved);
                    }
                    Ok(config) => offered.push(config.platform.to_string()),
                    // What is no image at all, such as a signature, is passed over.
                    Err(PullError::Malformed(_)) if !named => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Err(PullError::Malformed(format!(
        "{} sent indexes of indexes: nothing for {processor} among the first {MOST_DOCUMENTS} documents",
        session.url()
    )))
}

/// Says of each document what it keeps from collection.
async fn label(
    puller: &Puller,
    digest: &str,
    above: &[String],
    resolved: &Resolved,
) -> Result<(), PullError> {
    let Resolved { manifest, config } = resolved;
    let snapshots = puller.snapshot_labels(config);
    puller.label(&manifest.config.digest, snapshots).await?;
    puller.label(digest, manifest.gc_labels()).await?;
    let below = above.iter().skip(1).map(String::as_str);
    for (index, entry) in above.iter().zip(below.chain([digest])) {
        puller.label(index, manifest::index_labels(entry)).await?;
    }
    Ok(())
}

/// Fetches a document by its digest.
pub async fn fetch(session: &Session, wanted: &Descriptor) -> Result<Top, PullError> {
    let (held, _) = session.document(&wanted.digest, Some(wanted)).await?;
    let (document, media_type) = parse(session, &held.bytes).await?;
    let descriptor = Descriptor {
        media_type: media_type.into(),
        size: held.bytes.len() as u64,
        ..wanted.clone()
    };
    Ok(Top {
        descriptor,
        document,
        held,
    })
}

/// The configuration of an image, which is stored then.
async fn config(
    puller: &Puller,
    session: &Session,
    lease: &Lease,
    manifest: &Manifest,
) -> Result<ImageConfig, PullError> {
    let blob = &manifest.config;
    if blob.size > LARGEST_DOCUMENT {
        let (size, most) = (blob.size, LARGEST_DOCUMENT);
        return Err(PullError::TooLarge(format!(
            "the image's configuration has {size} bytes, more than the {most} there may be"
        )));
    }
    let here = match store::claim(&puller.client, lease, &blob.digest).await? {
        true => {
            let permit = session.room(blob.size).await;
            let bytes = store::read(&puller.client, &blob.digest).await?;
            bytes.map(|bytes| Held::new(bytes.into(), permit))
        }
        false => None,
    };
    let held = match here {
        Some(held) => held,
        None => session.small_blob(blob).await?,
    };
    let config = parse_for_pull(held.bytes.clone()).await?;
    puller.store(lease, blob, held).await?;
    Ok(config)
}

async fn parse(session: &Session, bytes: &Bytes) -> Result<(Document, String), PullError> {
    parse::apart(bytes.clone(), Document::parse)
        .await
        .map_err(|why| PullError::Malformed(format!("{} sent no image: {why}", session.url())))
}

fn unsuitable(session: &Session, processor: &Processor, offered: &[String]) -> FetchError {
    let shown = offered.len().min(MOST_OFFERED);
    let offered = match offered[..shown].join(", ") {
        none if none.is_empty() => "no machine at all".to_owned(),
        some => some,
    };
    FetchError::Platform(session.url(), processor.to_string(), offered)
}
