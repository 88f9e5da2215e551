//! Looking into a container's file system before it exists.

use std::{fs::File, io::Read, path::PathBuf};

use containerd_client::types::Mount;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// No list of users is larger.
const LARGEST: u64 = 1024 * 1024;

/// Reads a file of the file system that these mounts would make; empty when there is none.
///
/// The mounts are not made: layers are looked through from the top. A layer's links are not followed, they could lead
/// to another layer.
pub fn read(mounts: &[Mount], path: &str) -> String {
    for layer in layers(mounts) {
        let Ok(folder) = File::open(&layer) else {
            continue;
        };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let Ok(found) = openat2(&folder, path, how) else {
            continue;
        };
        let file = File::from(found);
        // A device instead of a file says that the layers below are not to be looked at.
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            break;
        }
        let mut bytes = Vec::new();
        if file.take(LARGEST).read_to_end(&mut bytes).is_ok() {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        break;
    }
    String::new()
}

/// The folders of an overlay from top to bottom, or the source of a plain mount.
fn layers(mounts: &[Mount]) -> Vec<PathBuf> {
    let Some(mount) = mounts.last() else {
        return Vec::new();
    };
    if mount.r#type != "overlay" {
        return vec![mount.source.clone().into()];
    }
    let option = |key: &str| {
        mount
            .options
            .iter()
            .find_map(|option| option.strip_prefix(key))
    };
    let upper = option("upperdir=").into_iter();
    let lower = option("lowerdir=")
        .into_iter()
        .flat_map(|list| list.split(':'));
    upper.chain(lower).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn the_uppermost_layer_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let layer = |name: &str, passwd: Option<&str>| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.join("etc")).unwrap();
            if let Some(passwd) = passwd {
                fs::write(path.join("etc/passwd"), passwd).unwrap();
            }
            path.display().to_string()
        };
        let (top, middle, bottom) = (
            layer("t", None),
            layer("m", Some("middle")),
            layer("b", Some("bottom")),
        );
        let mounts = [Mount {
            r#type: "overlay".into(),
            options: vec![
                format!("workdir={top}"),
                format!("upperdir={top}"),
                format!("lowerdir={middle}:{bottom}"),
            ],
            ..Mount::default()
        }];
        assert_eq!(read(&mounts, "etc/passwd"), "middle");
        assert_eq!(read(&mounts, "etc/group"), "");
        // A link out of the image must not show the machine's own users.
        symlink("/etc/passwd", folder.path().join("t/etc/passwd")).unwrap();
        assert_ne!(
            read(&mounts, "etc/passwd"),
            fs::read_to_string("/etc/passwd").unwrap()
        );
    }
}
