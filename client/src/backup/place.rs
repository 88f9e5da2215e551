//! Where backups are kept: a folder, or a bucket of an S3-compatible store.
//!
//! A bucket's credentials, endpoint and region come from the environment, as everywhere: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT`, `AWS_REGION`, and `AWS_ALLOW_HTTP=true` for an endpoint without TLS.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use futures::TryStreamExt;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart, aws::AmazonS3Builder,
    local::LocalFileSystem, path::Path as Key,
};

/// The bytes that are read at a time.
const PIECE: usize = 1 << 20;
/// Parts of a file that are on their way at the same time; S3's are 5 MiB.
const PARTS: usize = 4;
/// What the names of backups end in.
const SUFFIX: &str = ".backup";

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It is no place.
    #[error(
        "{0:?} is no place for backups: a folder's absolute path or s3://BUCKET/PREFIX is expected"
    )]
    Malformed(String),
    /// The store refused.
    #[error("{0}")]
    Store(#[from] object_store::Error),
    /// A file on this machine.
    #[error(transparent)]
    File(#[from] io::Error),
}

/// A place for backups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
}

/// A backup in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name in the place.
    pub name: String,
    /// In bytes.
    pub size: u64,
}

/// Whether this names a bucket, and not a file or folder.
#[must_use]
pub fn is_bucket(place: &str) -> bool {
    place.starts_with("s3://")
}

/// Splits `s3://BUCKET/PREFIX/NAME` into a place and a name; `None` for what is no bucket's.
///
/// # Errors
/// A bucket without a name in it.
pub fn split(file: &str) -> Result<Option<(&str, &str)>, PlaceError> {
    if !is_bucket(file) {
        return Ok(None);
    }
    match file["s3://".len()..]
        .contains('/')
        .then(|| file.rsplit_once('/'))
        .flatten()
    {
        Some((place, name)) if !name.is_empty() => Ok(Some((place, name))),
        _ => Err(PlaceError::Malformed(file.to_owned())),
    }
}

/// Copies a backup from a place into a temporary file, which is then read from its beginning.
///
/// # Errors
/// There is none of that name, or what the place or the file says.
pub async fn fetch(place: &str, name: &str) -> Result<File, PlaceError> {
    let mut file = crate::files::temporary_in(&std::env::temp_dir())?;
    Place::open(place)?.get(name, &mut file).await?;
    Ok(file.reopen()?)
}

impl Place {
    /// A folder (an absolute path, made when it is missing) or `s3://BUCKET/PREFIX`. Nothing is asked of a bucket yet.
    ///
    /// # Errors
    /// It is neither, or the environment's settings for the bucket are no settings.
    pub fn open(place: &str) -> Result<Self, PlaceError> {
        let malformed = || PlaceError::Malformed(place.to_owned());
        if let Some(rest) = place.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(malformed());
            }
            // Fails when there is one already, which is then as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let store = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .build()?;
            return Ok(Self {
                store: Arc::new(store),
                prefix: Key::parse(prefix.trim_matches('/')).map_err(|_| malformed())?,
            });
        }
        let folder = Path::new(place);
        if !folder.is_absolute() {
            return Err(malformed());
        }
        crate::files::create_private_dir(folder)?;
        Ok(Self {
            store: Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true)),
            prefix: Key::default(),
        })
    }

    /// Puts a file there; it is there whole or not at all.
    ///
    /// # Errors
    /// What the place or the file says.
    pub async fn put(&self, name: &str, file: File) -> Result<(), PlaceError> {
        let upload = self.store.put_multipart(&self.key(name)).await?;
        let mut upload = WriteMultipart::new(upload);
        match copy(file, &mut upload).await {
            Ok(()) => {
                upload.finish().await?;
                Ok(())
            }
            Err(error) => {
                // What is left of it costs money; the first error is the one that matters.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Copies a backup from there into a file.
    ///
    /// # Errors
    /// There is none of that name, or what the place or the file says.
    pub async fn get(&self, name: &str, to: &mut impl Write) -> Result<(), PlaceError> {
        let mut pieces = self.store.get(&self.key(name)).await?.into_stream();
        while let Some(piece) = pieces.try_next().await? {
            to.write_all(&piece)?;
        }
        Ok(())
    }

    /// The backups there whose names begin so, the oldest name first.
    ///
    /// # Errors
    /// What the place says.
    pub async fn list(&self, beginning: &str) -> Result<Vec<Kept>, PlaceError> {
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let all: Vec<ObjectMeta> = self.store.list(prefix).try_collect().await?;
        let mut kept: Vec<_> = all
            .into_iter()
            .filter_map(|object| {
                let name = object.location.filename()?;
                let ours = name.starts_with(beginning) && name.ends_with(SUFFIX);
                // One in a folder below belongs to somebody else.
                (ours && object.location == self.key(name)).then(|| Kept {
                    name: name.to_owned(),
                    size: object.size,
                })
            })
            .collect();
        kept.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(kept)
    }

    /// Deletes a backup; one that is not there is no error.
    ///
    /// # Errors
    /// What the place says.
    pub async fn delete(&self, name: &str) -> Result<(), PlaceError> {
        match self.store.delete(&self.key(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn key(&self, name: &str) -> Key {
        self.prefix.clone().join(name)
    }
}

async fn copy(mut file: File, upload: &mut WriteMultipart) -> Result<(), PlaceError> {
    let mut buffer = vec![0; PIECE];
    loop {
        let read;
        (file, buffer, read) = tokio::task::spawn_blocking(move || {
            let read = file.read(&mut buffer)?;
            Ok::<_, io::Error>((file, buffer, read))
        })
        .await
        .map_err(io::Error::other)??;
        if read == 0 {
            return Ok(());
        }
        upload.wait_for_capacity(PARTS).await?;
        upload.write(&buffer[..read]);
    }
}

/// The name of a backup that was taken at this time: names sort as times do.
#[must_use]
pub fn name_of(cluster_id: &str, taken: &str) -> String {
    format!("{}{taken}{SUFFIX}", beginning_of(cluster_id))
}

/// What the names of a cluster's backups begin with.
#[must_use]
pub fn beginning_of(cluster_id: &str) -> String {
    format!("barge-{}-", cluster_id.get(..8).unwrap_or(cluster_id))
}
