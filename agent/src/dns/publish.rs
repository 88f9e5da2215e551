//! Control's side of the file: it writes what the assignment says of names, whole, and soon after each change.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{TMPFS_MAGIC, statfs},
};
use tokio::{sync::watch, time::sleep};

use super::names::{self, Names};
use crate::{desired::Desired, files};

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two tries to write.
const AGAIN: Duration = Duration::from_secs(1);
/// Of the file system in memory: a file, and the next one beside it.
const OPTIONS: &str = "mode=0700,size=160m";

/// Writes the names into a folder, for ever.
pub async fn publish(
    mut desired: watch::Receiver<Arc<Desired>>,
    folder: PathBuf,
    resolv_conf: PathBuf,
) {
    let mut last: Option<Arc<Desired>> = None;
    let mut written = Vec::new();
    loop {
        let now = desired.borrow_and_update().clone();
        // Before the cluster said anything, what an earlier agent wrote is better than nothing.
        let is_other = last.as_ref().is_none_or(|last| !now.has_network_of(last));
        if now.welcome.is_some() && is_other {
            let (of, folder, resolv_conf) = (now.clone(), folder.clone(), resolv_conf.clone());
            let before = std::mem::take(&mut written);
            let done = files::in_volumes(move || {
                let bytes = Names::of(&of, &resolv_conf).to_bytes();
                if bytes != before {
                    write(&folder, &bytes)?;
                }
                Ok(bytes)
            });
            match done.await {
                Ok(bytes) => {
                    written = bytes;
                    last = Some(now);
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot tell the name server of changes; trying again");
                    sleep(AGAIN).await;
                    continue;
                }
            }
        }
        if desired.changed().await.is_err() {
            return;
        }
    }
}

/// Has the name server end where nobody starts it again: the machine is no node any more.
pub async fn retire(folder: PathBuf) {
    let nothing = Names {
        build: "none".to_owned(),
        ..Names::default()
    };
    let written = files::in_volumes(move || write(&folder, &nothing.to_bytes()));
    if let Err(error) = written.await {
        tracing::warn!(%error, "the name server goes on with the names from before");
    }
}

fn write(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    prepare(folder)?;
    files::write_atomic(&names::path(folder), bytes)
}

/// A folder in memory, where there can be one: a disk that hangs would keep changes from the name server.
fn prepare(folder: &Path) -> io::Result<()> {
    if statfs(folder).is_ok_and(|it| it.filesystem_type() == TMPFS_MAGIC) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = mount(
        Some("barge-dns"),
        folder,
        Some("tmpfs"),
        flags,
        Some(OPTIONS),
    );
    if let Err(error) = mounted {
        tracing::warn!(%error, "names are written to the disk: no file system in memory can be made");
    }
    Ok(())
}
