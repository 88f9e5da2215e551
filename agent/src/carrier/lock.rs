//! One process of its kind for one data folder.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
};

use barge_client::supervisor::Supervisor;
use fs4::FileExt;
use tokio::sync::oneshot;

use crate::runtime::Paths;

/// A lock of the data folder, held until this process ends, however it ends.
///
/// While another process holds it: with `standby` the answer comes when that one has ended, otherwise it is `None` at
/// once. A process that stands by is ready for its supervisor: it has nothing else to do yet.
pub async fn take(
    paths: &Paths,
    file: &Path,
    standby: bool,
    supervisor: &Supervisor,
) -> io::Result<Option<File>> {
    fs::create_dir_all(paths.run())?;
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(file)?;
    if FileExt::try_lock(&lock).is_ok() {
        return Ok(Some(lock));
    }
    if !standby {
        return Ok(None);
    }
    tracing::info!("another one is running: standing by");
    supervisor.ready("standing by: another one runs");
    // A thread of its own, because the kernel's queue for the lock has no other form. It ends with the process.
    let (got, wait) = oneshot::channel();
    thread::Builder::new()
        .name("lock".to_owned())
        .spawn(move || {
            let outcome = FileExt::lock(&lock).map(|()| lock);
            // Nobody waits any more when this process is ending.
            let _ = got.send(outcome);
        })?;
    wait.await
        .map_err(|_| io::Error::other("the thread that waits for the lock is gone"))?
        .map(Some)
}
