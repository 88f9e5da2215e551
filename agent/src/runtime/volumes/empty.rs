//! Folders that are empty at first.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use nix::mount::{MsFlags, mount};

use super::{is_mounted, pins, remove};

/// For everybody, as in Kubernetes: which user the containers are is not known.
pub const MODE: u32 = 0o777;
/// With a group of their own, what is made in folders belongs to it.
pub const SETGID: u32 = 0o2000;

/// Permissions of a volume's own folder.
pub fn mode(group: Option<u32>) -> u32 {
    match group {
        Some(_) => MODE | SETGID,
        None => MODE,
    }
}

/// Makes a folder on disk, unless it is there: then it was made whole, and is the containers'. Blocks.
pub fn on_disk(folder: &Path, group: Option<u32>) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above)?;
    }
    // Volumes' names have no dots.
    let half = folder.with_extension("making");
    remove::tree(&half)?;
    fs::create_dir(&half)?;
    chown(&half, None, group)?;
    // After the owner: a change of owner clears set-group-id.
    fs::set_permissions(&half, fs::Permissions::from_mode(mode(group)))?;
    fs::rename(&half, folder)
}

/// Makes a file system in memory of at most `size` bytes, unless it is there. Blocks.
pub fn in_memory(folder: &Path, size: Option<u64>, group: Option<u32>) -> io::Result<()> {
    if is_mounted(folder)? {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let mut options = format!("mode={:o}", mode(group));
    if let Some(group) = group {
        options.push_str(&format!(",gid={group}"));
    }
    // For the kernel 0 is no limit.
    if let Some(size) = size.filter(|size| *size > 0) {
        options.push_str(&format!(",size={size}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some(options.as_str());
    mount(
        Some("barge-empty-dir"),
        folder,
        Some("tmpfs"),
        flags,
        options,
    )?;
    Ok(())
}

/// Takes all file systems in a folder away. Blocks.
pub fn unmount_all(folder: &Path) -> io::Result<()> {
    for entry in pins::entries(folder)? {
        pins::unmount(&entry)?;
    }
    Ok(())
}
