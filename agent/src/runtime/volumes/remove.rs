//! Removes folders that containers filled: however deep, with three open files, without following a link or going onto another file system.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::{FileStat, Mode, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};

/// Removes a file or a folder with all that is in it. That there is nothing is success. Blocks.
pub fn tree(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    let mut here = open_folder(path)?;
    let device = fstat(&here)?.st_dev;
    // The way to `here`: each folder's name, and the inode of the folder that it is in.
    let mut way: Vec<(u64, CString)> = Vec::new();
    loop {
        if let Some(name) = clear(&here)? {
            let inode = fstat(&here)?.st_ino;
            let below = openat(&here, name.as_c_str(), flags(), Mode::empty())?;
            let found: FileStat = fstat(&below)?;
            if found.st_dev != device {
                let name = std::ffi::OsStr::from_bytes(name.to_bytes());
                return Err(io::Error::other(format!(
                    "another file system is mounted at {name:?} in {}: unmount it",
                    path.display()
                )));
            }
            way.push((inode, name));
            here = below;
            continue;
        }
        let Some((inode, name)) = way.pop() else {
            return fs::remove_dir(path);
        };
        let above = openat(&here, c"..", flags(), Mode::empty())?;
        if fstat(&above)?.st_ino != inode {
            return Err(io::Error::other(format!(
                "somebody moves folders in {}",
                path.display()
            )));
        }
        unlink(&above, &name, UnlinkatFlags::RemoveDir)?;
        here = above;
    }
}

/// Opens a folder that is no link.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, flags(), Mode::empty())?)
}

/// With which folders are opened.
pub fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// Removes what is in a folder. Answers the first folder in it that is not empty; `None` when nothing is left.
fn clear(here: &OwnedFd) -> io::Result<Option<CString>> {
    loop {
        // Opened anew: what is removed while it is listed may hide other entries.
        let listed = openat(here, c".", flags(), Mode::empty())?;
        let mut listed = Dir::from_fd(listed)?;
        let mut none = true;
        for entry in listed.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            none = false;
            if is_folder(here, name, entry.file_type())? {
                match unlink(here, name, UnlinkatFlags::RemoveDir) {
                    Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Ok(Some(name.to_owned())),
                    removed => removed?,
                }
            } else {
                unlink(here, name, UnlinkatFlags::NoRemoveDir)?;
            }
        }
        if none {
            return Ok(None);
        }
    }
}

/// Some file systems do not say what an entry is.
fn is_folder(here: &OwnedFd, name: &CStr, kind: Option<Type>) -> io::Result<bool> {
    if let Some(kind) = kind {
        return Ok(kind == Type::Directory);
    }
    match openat(here, name, flags() | OFlag::O_PATH, Mode::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn unlink(here: impl AsFd, name: &CStr, flags: UnlinkatFlags) -> Result<(), Errno> {
    match unlinkat(here, name, flags) {
        Err(Errno::ENOENT) => Ok(()),
        removed => removed,
    }
}
