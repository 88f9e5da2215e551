//! How much a folder takes on its disk: counted without following a link, with a bound on work, while containers go on writing.

use std::{collections::HashSet, ffi::CString, io, os::fd::OwnedFd, path::Path};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, openat},
    sys::stat::{Mode, SFlag, fstat, fstatat},
};

use super::remove::{flags, open_folder};

/// Files and folders that are looked at. More of them are not counted, which takes seconds.
const MOST_ENTRIES: usize = 1_000_000;
/// What `stat` counts in.
const BLOCK: u64 = 512;

/// What a walk has seen.
#[derive(Default)]
struct Seen {
    entries: usize,
    /// Device and inode of files that have more than one name: each counts once.
    linked: HashSet<(u64, u64)>,
}

/// Bytes on disk of what is in a folder; a file with many names in it counts once. Counting ends at more than `enough`. A folder that is moved while it is counted ends it, too. Blocks.
pub fn bytes(folder: &Path, enough: u64) -> io::Result<u64> {
    let mut here = open_folder(folder)?;
    let (device, mut seen, mut total) = (fstat(&here)?.st_dev, Seen::default(), 0_u64);
    // For each folder on the way to `here`, and for it: its inode, and the folders in it that are still to be counted.
    let mut way: Vec<(u64, Vec<CString>)> = Vec::new();
    let mut is_new = true;
    loop {
        if is_new {
            let (inside, folders) = list(&here, device, &mut seen)?;
            total = total.saturating_add(inside);
            way.push((fstat(&here)?.st_ino, folders));
        }
        if total > enough || seen.entries > MOST_ENTRIES {
            return Ok(total);
        }
        let Some((_, folders)) = way.last_mut() else {
            return Ok(total);
        };
        if let Some(name) = folders.pop() {
            match openat(&here, name.as_c_str(), flags(), Mode::empty()) {
                Ok(below) => (here, is_new) = (below, true),
                // It went, or became something else.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => is_new = false,
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        way.pop();
        let Some((inode, _)) = way.last() else {
            return Ok(total);
        };
        let above = openat(&here, c"..", flags(), Mode::empty())?;
        if fstat(&above)?.st_ino != *inode {
            return Ok(total);
        }
        (here, is_new) = (above, false);
    }
}

/// Bytes of what is directly in a folder, and the folders in it.
fn list(here: &OwnedFd, device: u64, seen: &mut Seen) -> io::Result<(u64, Vec<CString>)> {
    let mut listed = Dir::from_fd(openat(here, c".", flags(), Mode::empty())?)?;
    let (mut bytes, mut folders) = (0_u64, Vec::new());
    for entry in listed.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        seen.entries += 1;
        if seen.entries > MOST_ENTRIES {
            break;
        }
        let found = match fstatat(here, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            found => found?,
        };
        let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        let is_folder = kind == SFlag::S_IFDIR;
        if !is_folder && found.st_nlink > 1 && !seen.linked.insert((found.st_dev, found.st_ino)) {
            continue;
        }
        let blocks = u64::try_from(found.st_blocks).unwrap_or(0);
        bytes = bytes.saturating_add(blocks.saturating_mul(BLOCK));
        if is_folder && found.st_dev == device {
            folders.push(name.to_owned());
        }
    }
    Ok((bytes, folders))
}
