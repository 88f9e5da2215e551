//! The disk of the images: whether it has room for another one, and how full it is.

use std::{path::PathBuf, sync::Arc};

use containerd_client::{services::v1::PluginsRequest, tonic::Status};
use nix::sys::statvfs::statvfs;
use tokio::sync::OnceCell;

use super::limits::{CALL, within};
use crate::runtime::{Filled, client::Client};

/// The disk of containerd's content. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<OnceCell<Option<PathBuf>>>);

impl Disk {
    /// Says in words what is missing when layers of so many packed bytes do not fit, and `None` when they do. Unpacked
    /// they lie there a second time, and are not smaller. Where it cannot be found out they are taken to fit: the disk
    /// itself says so soon enough.
    pub async fn lacks(&self, client: &Client, packed: u64) -> Option<String> {
        let needed = packed.saturating_mul(2);
        let root = self.root(client).await?;
        let shown = root.display().to_string();
        let (free, _) = look(root).await?;
        (free < needed).then(|| {
            let (needed, free) = (needed >> 20, free >> 20);
            format!(
                "its layers take {needed} MiB, packed and unpacked, and {shown} has {free} MiB free; remove images or make room there"
            )
        })
    }

    /// How full the disk is; `None` when it cannot be found out.
    pub async fn filled(&self, client: &Client) -> Option<Filled> {
        let (free, total) = look(self.root(client).await?).await?;
        Some(Filled {
            used: total.saturating_sub(free),
            total,
        })
    }

    async fn root(&self, client: &Client) -> Option<PathBuf> {
        let root = self.0.get_or_try_init(|| content_root(client)).await;
        root.ok()?.clone()
    }
}

/// Bytes that are free for everybody, and all bytes, of a file system.
async fn look(root: PathBuf) -> Option<(u64, u64)> {
    // A disk that hangs holds a thread of its own.
    let asked = tokio::task::spawn_blocking(move || statvfs(&root)).await;
    let disk = asked.ok()?.ok()?;
    // The types differ between architectures.
    #[allow(clippy::useless_conversion)]
    let (unit, free, all): (u64, u64, u64) = (
        disk.fragment_size().into(),
        disk.blocks_available().into(),
        disk.blocks().into(),
    );
    Some((free.saturating_mul(unit), all.saturating_mul(unit)))
}

/// Where containerd says that it keeps its content.
async fn content_root(client: &Client) -> Result<Option<PathBuf>, Status> {
    let request = PluginsRequest {
        filters: vec!["type==io.containerd.content.v1".to_owned()],
    };
    let mut introspection = client.services().introspection();
    let answer = introspection.plugins(client.request(request));
    let answer = within(CALL, answer).await?;
    let mut plugins = answer.into_inner().plugins.into_iter();
    Ok(plugins.find_map(|plugin| plugin.exports.get("root").map(PathBuf::from)))
}
