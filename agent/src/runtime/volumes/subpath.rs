//! Opens a path inside a volume without ever leaving the volume, whatever containers do with its folders meanwhile.
//!
//! Each part is opened relative to the folder before it and never followed by the kernel. Symbolic links are read here, and their parts walked in
//! the same way; `..` goes back to the folder that the walk came from.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open as open_path, openat, readlinkat},
    sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat},
};

/// As the kernel has it.
const MOST_LINKS: usize = 40;
/// Folders inside each other: each is an open file.
const DEEPEST: usize = 128;

/// Opens `sub_path` below `root`. What is missing is made, as folders with the permissions of `root`, when `create` says so. Blocks.
pub fn open(root: &Path, sub_path: &str, create: bool) -> io::Result<OwnedFd> {
    let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open_path(root, folder, Mode::empty())?;
    let mode = Mode::from_bits_truncate(fstat(&root)?.st_mode & 0o7777);
    let mut way = vec![root];
    let mut rest = parts(sub_path.as_bytes());
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            way.pop();
            if way.is_empty() {
                return Err(outside());
            }
            continue;
        }
        let Some(here) = way.last() else {
            return Err(outside());
        };
        let found = match look(here, &part) {
            Err(Errno::ENOENT) if create => make(here, &part, mode)?,
            found => found?,
        };
        match kind(&found)? {
            SFlag::S_IFLNK => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                let target = readlinkat(&found, "")?.into_vec();
                if target.starts_with(b"/") {
                    return Err(outside());
                }
                let mut target = parts(&target);
                target.append(&mut rest);
                rest = target;
            }
            SFlag::S_IFDIR if way.len() < DEEPEST => way.push(found),
            SFlag::S_IFDIR => return Err(io::Error::other("it is too deep")),
            _ if rest.is_empty() => return Ok(found),
            _ => return Err(Errno::ENOTDIR.into()),
        }
    }
    way.pop().ok_or_else(outside)
}

fn parts(path: &[u8]) -> VecDeque<OsString> {
    let parts = path.split(|byte| *byte == b'/');
    parts
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| std::ffi::OsStr::from_bytes(part).to_owned())
        .collect()
}

fn look(here: impl AsFd, part: &OsString) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(here, part.as_os_str(), flags, Mode::empty())
}

/// Makes a folder, unless somebody else makes it meanwhile.
fn make(here: impl AsFd, part: &OsString, mode: Mode) -> Result<OwnedFd, Errno> {
    match mkdirat(&here, part.as_os_str(), mode) {
        Err(Errno::EEXIST) => return look(here, part),
        made => made?,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&here, part.as_os_str(), flags, Mode::empty())?;
    // Whatever this process' umask. The group is that of the folder above when that has set-group-id.
    fchmod(&made, mode)?;
    Ok(made)
}

fn kind(found: impl AsFd) -> Result<SFlag, Errno> {
    let mode = SFlag::from_bits_truncate(fstat(found)?.st_mode);
    Ok(mode & SFlag::S_IFMT)
}

fn outside() -> io::Error {
    io::Error::other("it leads out of the volume")
}
