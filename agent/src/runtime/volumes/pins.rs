//! What a `subPath` names, pinned by a bind mount: from then on the container has just that, whatever becomes of its path.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{SFlag, fstat},
};

/// Binds what is open to `place`, in place of what was there. Blocks.
pub fn pin(found: &OwnedFd, place: &Path) -> io::Result<()> {
    unpin(place)?;
    if let Some(above) = place.parent() {
        fs::create_dir_all(above)?;
    }
    let mode = SFlag::from_bits_truncate(fstat(found)?.st_mode);
    match mode & SFlag::S_IFMT == SFlag::S_IFDIR {
        true => fs::create_dir(place)?,
        false => drop(File::create(place)?),
    }
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    let none = None::<&str>;
    mount(Some(source.as_str()), place, none, MsFlags::MS_BIND, none)?;
    Ok(())
}

/// Removes all pins below a pod's folder: one folder a container. Blocks.
pub fn unpin_all(folder: &Path) -> io::Result<()> {
    for container in entries(folder)? {
        for place in entries(&container)? {
            unpin(&place)?;
        }
    }
    Ok(())
}

fn unpin(place: &Path) -> io::Result<()> {
    unmount(place)?;
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() => fs::remove_dir(place),
        Ok(_) => fs::remove_file(place),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Unmounts whatever is mounted at `path`, also while it is in use. That there is nothing is success. Blocks.
pub fn unmount(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Several, should it ever have been mounted twice.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Paths of what is in a folder; none when there is no folder. Blocks.
pub fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(folder) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        listed => listed?,
    };
    listed.map(|entry| Ok(entry?.path())).collect()
}
