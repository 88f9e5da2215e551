//! What was known of running containers, on disk: the next agent process begins with it, so that its start takes no container out of its Services.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use prost::Message;

use super::state::Verdict;
use crate::files::{self, Reserve};

/// The file.
#[derive(Debug, Clone)]
pub struct File {
    path: PathBuf,
    reserve: Reserve,
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<StoredContainer>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredContainer {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bool, tag = "2")]
    started: bool,
    #[prost(bool, tag = "3")]
    ready: bool,
}

impl File {
    /// The file in the agent's data folder.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join("probes"),
            reserve: Reserve::of(data_dir),
        }
    }

    /// What was known, by the container's id; nothing when there is no file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn load(&self) -> io::Result<HashMap<String, Verdict>> {
        let path = self.path.clone();
        let bytes = files::reading(move || files::read_if_there(&path)).await?;
        Self::decode(&bytes.unwrap_or_default())
    }

    /// What is in such a file.
    ///
    /// # Errors
    /// It is no such file.
    pub fn decode(bytes: &[u8]) -> io::Result<HashMap<String, Verdict>> {
        let stored = Stored::decode(bytes).map_err(io::Error::other)?;
        let containers = stored.containers.into_iter();
        let verdict = |it: &StoredContainer| Verdict {
            started: it.started,
            ready: it.ready,
            failed: None,
        };
        Ok(containers.map(|it| (it.id.clone(), verdict(&it))).collect())
    }

    /// Makes durable what is known.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn save(&self, known: HashMap<String, Verdict>) -> io::Result<()> {
        let containers = known.into_iter().map(|(id, verdict)| StoredContainer {
            id,
            started: verdict.started,
            ready: verdict.ready,
        });
        let containers = containers.collect();
        let bytes = Stored { containers }.encode_to_vec();
        let (path, reserve) = (self.path.clone(), self.reserve.clone());
        files::blocking(move || reserve.write_atomic(&path, &bytes)).await
    }
}
