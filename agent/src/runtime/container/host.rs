//! What a container needs to know of its machine: the devices, and files that its pod names.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use nix::sys::stat::{major, minor};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

use crate::{
    files,
    runtime::{Paths, Seccomp, Security},
};

/// Devices of a machine that a privileged container gets; the rest it may make itself.
const MOST_DEVICES: usize = 4096;
/// Folders below /dev that are looked into.
const DEEPEST: usize = 4;
/// Bytes of a profile of system calls.
const LARGEST_PROFILE: u64 = 1 << 20;
/// In /dev, and of a container's own making.
const OWN: [&str; 6] = ["console", "fd", "mqueue", "ptmx", "pts", "shm"];

/// What was found.
#[derive(Default)]
pub struct Host {
    /// For a privileged container only.
    pub devices: Vec<LinuxDevice>,
    /// The profile that the pod names, if it is there.
    pub profile: Option<String>,
}

/// Looks at what the security context needs, and at nothing else.
pub async fn look(security: &Security, paths: &Paths) -> io::Result<Host> {
    let profile = match &security.seccomp {
        Seccomp::Profile(name) if !security.privileged => Some((paths.seccomp(), name.clone())),
        _ => None,
    };
    if profile.is_none() && !security.privileged {
        return Ok(Host::default());
    }
    let privileged = security.privileged;
    files::reading(move || {
        let mut host = Host::default();
        if let Some((folder, name)) = profile {
            host.profile = read_profile(&folder.join(name))?;
        }
        if privileged {
            collect(Path::new("/dev"), DEEPEST, &mut host.devices)?;
        }
        Ok(host)
    })
    .await
}

fn read_profile(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(found) if !found.is_file() || found.len() > LARGEST_PROFILE => {
            let why = format!(
                "{} is no file of at most {LARGEST_PROFILE} bytes",
                path.display()
            );
            return Err(io::Error::other(why));
        }
        found => found?,
    };
    fs::read_to_string(path).map(Some)
}

/// Devices in a folder and, so many levels deep, in those below.
fn collect(folder: &Path, levels: usize, devices: &mut Vec<LinuxDevice>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let own = |name: &&str| entry.file_name() == **name;
        if devices.len() >= MOST_DEVICES || OWN.iter().any(own) {
            continue;
        }
        // A device may go while it is looked at.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        let kind = found.file_type();
        if kind.is_dir() && levels > 1 {
            collect(&entry.path(), levels - 1, devices)?;
        }
        let kind = match (kind.is_char_device(), kind.is_block_device()) {
            (true, _) => LinuxDeviceType::C,
            (_, true) => LinuxDeviceType::B,
            _ => continue,
        };
        let number = |number: u64| i64::try_from(number).unwrap_or(0);
        let device = LinuxDeviceBuilder::default()
            .path(entry.path())
            .typ(kind)
            .major(number(major(found.rdev())))
            .minor(number(minor(found.rdev())))
            .file_mode(found.permissions().mode() & 0o7777)
            .uid(found.uid())
            .gid(found.gid());
        devices.push(device.build().map_err(io::Error::other)?);
    }
    Ok(())
}
