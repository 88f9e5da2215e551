//! Named pipes of programs in containers.
//!
//! They are in a file system in memory, which the first agent after the machine's boot mounts. On a disk that hangs, a read or a write of a pipe could wait in
//! the kernel for the time of access to be noted, and the agent reads and writes on the threads that all else needs. The next agent finds the file
//! system and what is in it. Everything that goes by a path is done on threads of its own.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::{
    libc::O_NONBLOCK,
    mount::{MsFlags, mount},
    sys::{
        stat::Mode,
        statfs::{TMPFS_MAGIC, statfs},
    },
    unistd::mkfifo,
};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::{files, runtime::Paths};

/// Pipes take no room in it but their names: four files for each program.
const OPTIONS: &str = "mode=0700,size=1m,nr_inodes=16k";

/// Makes a folder with pipes of these names.
pub async fn make(paths: &Paths, folder: &Path, names: &'static [&'static str]) -> io::Result<()> {
    let (memory, folder) = (paths.programs(), folder.to_owned());
    files::at_pipes(move || {
        ensure_memory(&memory)?;
        fs::create_dir(&folder)?;
        for name in names {
            mkfifo(&folder.join(name), Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        Ok(())
    })
    .await
}

/// Removes a folder of pipes. That there is none is success.
pub async fn remove(paths: &Paths, folder: &Path) -> io::Result<()> {
    let (on_disk, folder) = (
        folder.starts_with(paths.earlier_programs()),
        folder.to_owned(),
    );
    let remove = move || {
        let removed = match fs::symlink_metadata(&folder) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&folder),
            Ok(_) => fs::remove_file(&folder),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    };
    match on_disk {
        true => files::blocking(remove).await,
        false => files::at_pipes(remove).await,
    }
}

/// The folders of pipes that there are. Makes the file system for pipes, if it is not there: while the disk hangs it could not be made.
pub async fn left(paths: &Paths) -> io::Result<Vec<PathBuf>> {
    let memory = paths.programs();
    files::at_pipes(move || {
        ensure_memory(&memory)?;
        folders(&memory)
    })
    .await
}

/// The folders of pipes of agents that had them on disk. Answers when the disk does.
pub async fn left_on_disk(paths: &Paths) -> io::Result<Vec<PathBuf>> {
    let disk = paths.earlier_programs();
    files::reading(move || match folders(&disk) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        left => left,
    })
    .await
}

/// Removes the place of pipes on disk, once it is empty.
pub async fn leave_disk(paths: &Paths) -> io::Result<()> {
    let disk = paths.earlier_programs();
    files::blocking(move || match fs::remove_dir(disk) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
    .await
}

fn folders(place: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(place)?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// An end of an output that reads, and both ends, to be held until the shim has opened its own.
pub async fn output(path: &Path) -> io::Result<(Receiver, Receiver)> {
    let path = path.to_owned();
    let (both, reads) = files::at_pipes(move || {
        let both = open(&path, true, true)?;
        Ok((both, open(&path, true, false)?))
    })
    .await?;
    Ok((Receiver::from_file(reads)?, Receiver::from_file(both)?))
}

/// Both ends of an output.
pub async fn both(path: &Path) -> io::Result<Receiver> {
    let path = path.to_owned();
    Receiver::from_file(files::at_pipes(move || open(&path, true, true)).await?)
}

/// The end of an input that writes. Its error is `ENXIO` as long as nobody has opened the other one.
pub async fn input(path: &Path) -> io::Result<Sender> {
    let path = path.to_owned();
    Sender::from_file(files::at_pipes(move || open(&path, false, true)).await?)
}

/// Blocks, but not for another end.
fn open(path: &Path, read: bool, write: bool) -> io::Result<File> {
    let mut options = File::options();
    let options = options.read(read).write(write);
    options.custom_flags(O_NONBLOCK).open(path)
}

/// Mounts the file system for pipes; not after the first time since the machine's boot. Blocks.
fn ensure_memory(folder: &Path) -> io::Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if statfs(folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let (source, kind) = (Some("barge-programs"), Some("tmpfs"));
    mount(source, folder, kind, flags, Some(OPTIONS))?;
    Ok(())
}
