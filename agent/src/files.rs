//! Files that are either as they were or as they should be, whatever dies in between; and the way to them for async code.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

mod reserve;

pub use reserve::{RESERVE_BYTES, Reserve, is_full};

/// Threads of this process that may wait for writes, and as many for reads: a disk may hang in each fsync and still answer reads from
/// memory. Tokio has 512 for all that blocks; a disk that hangs takes these and no others.
const THREADS: usize = 16;
static WRITERS: Semaphore = Semaphore::const_new(THREADS);
static READERS: Semaphore = Semaphore::const_new(THREADS);
/// Threads that may wait for volumes in memory: no disk holds them up.
static VOLUMES: Semaphore = Semaphore::const_new(THREADS);
/// Threads that may remove what containers wrote, and as many that may count it: how long such a walk takes is up to the containers.
static REMOVERS: Semaphore = Semaphore::const_new(THREADS);
static COUNTERS: Semaphore = Semaphore::const_new(THREADS);
/// Threads that may wait for files of the node that pods name: they may lie on a file system that never answers.
static HOST_PATHS: Semaphore = Semaphore::const_new(4 * THREADS);
/// Threads that may wait for pipes of programs in containers. They are in memory; the way to them leads through the data folder.
static PIPES: Semaphore = Semaphore::const_new(THREADS);
/// Threads that may look among processes for those to be ended. No disk holds them up, and no reader of logs takes them.
static ENDERS: Semaphore = Semaphore::const_new(THREADS);
/// For work at pipes to be done.
const PIPES_ANSWER: Duration = Duration::from_secs(10);

/// Does file system work that may write on a thread that may block, so that a disk that hangs holds up only those that wait for this result. The work
/// goes on when nobody waits any more.
///
/// # Errors
/// What the work answers; or it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    beside_the_loop(&WRITERS, work).await
}

/// As [`blocking`], for work that only reads: it waits for no write.
///
/// # Errors
/// What the work answers; or it panicked.
pub async fn reading<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    beside_the_loop(&READERS, work).await
}

/// As [`blocking`], for volumes of pods that are in memory. It waits for no disk, and for no walk through what containers wrote.
///
/// # Errors
/// What the work answers; or it panicked.
pub async fn in_volumes<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    beside_the_loop(&VOLUMES, work).await
}

/// As [`blocking`], for the removal of what containers wrote.
///
/// # Errors
/// What the work answers; or it panicked.
pub async fn removing<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    beside_the_loop(&REMOVERS, work).await
}

/// As [`blocking`], for counting what containers wrote.
///
/// # Errors
/// What the work answers; or it panicked.
pub async fn counting<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    beside_the_loop(&COUNTERS, work).await
}

/// As [`blocking`], for files of the node that pods name.
///
/// # Errors
/// What the work answers; or it panicked.
pub async fn at_host_paths<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    beside_the_loop(&HOST_PATHS, work).await
}

/// As [`blocking`], for the pipes of programs in containers. Answers within ten seconds in any case.
///
/// # Errors
/// What the work answers; or it panicked, or takes longer.
pub async fn at_pipes<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match timeout(PIPES_ANSWER, beside_the_loop(&PIPES, work)).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "the file system of its pipes does not answer for {} s; look at the disk of the agent's data folder",
                PIPES_ANSWER.as_secs()
            ),
        )),
    }
}

/// As [`blocking`], to end processes.
///
/// # Errors
/// What the work answers; or it panicked.
pub async fn among_processes<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    beside_the_loop(&ENDERS, work).await
}

async fn beside_the_loop<T: Send + 'static>(
    threads: &'static Semaphore,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let permit = threads.acquire().await.map_err(io::Error::other)?;
    let done = spawn_blocking(move || {
        // Until the work has ended, not until nobody waits for it.
        let _permit = permit;
        work()
    });
    done.await.map_err(io::Error::other)?
}

/// Writes a file beside its place, flushes it, and renames it into its place. Blocks. Nothing is left beside it when that fails.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path);
    let written = write_through(&temporary, bytes);
    if written.is_err() {
        // What is left of it would take room on a disk that is full.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    fs::rename(&temporary, path)?;
    sync_folder(path)
}

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
/// Reads a whole file; `None` when there is none.
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file; that there is none is success.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".tmp");
    PathBuf::from(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_half_written_file_is_never_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        assert_eq!(read_if_there(&path).unwrap(), None);
        write_atomic(&path, b"one").unwrap();
        // What a death in the middle of a write leaves behind.
        fs::write(beside(&path), b"tw").unwrap();
        assert_eq!(read_if_there(&path).unwrap().unwrap(), b"one");
        write_atomic(&path, b"two").unwrap();
        assert_eq!(read_if_there(&path).unwrap().unwrap(), b"two");
        remove_if_there(&path).unwrap();
        remove_if_there(&path).unwrap();
        assert_eq!(read_if_there(&path).unwrap(), None);
    }
}
