//! Files that are replaced all at once while containers read them, in Kubernetes' scheme:
//!
//! ```text
//! <volume>/..1764435600123456789/a/b    a set of files, never changed
//!          ..data                       a link to the current set, replaced by a rename
//!          a                            a link to ..data/a
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{VolumeFile, VolumeFiles, empty, pins, remove};
use crate::files;

/// The link to the current set.
const DATA: &str = "..data";
/// Where the next link is made.
const NEXT: &str = "..data_tmp";
/// Permissions of folders.
const FOLDER: u32 = 0o755;
/// What the volume's group may do with files: as Kubernetes, whose containers cannot write to such volumes either.
const GROUP_READS: u32 = 0o440;

/// Makes the files of a volume as they should be. What is as it should be stays; what is not is replaced. Whatever dies in between, a reader sees one
/// set or the other, and the next call goes on. Blocks.
pub fn write(root: &Path, files: &VolumeFiles, group: Option<u32>) -> io::Result<()> {
    if let Some(path) = files.keys().find(|path| !is_within(path)) {
        let message = format!("{path:?} is no path of a file in a volume");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    ensure_root(root, group)?;
    let files = &known(root, files)?;
    let current = fs::read_link(root.join(DATA)).ok();
    let same = match &current {
        Some(set) => has(&root.join(set), files, group).unwrap_or(false),
        None => false,
    };
    if !same {
        let set = next_set(root, files, group)?;
        let next = root.join(NEXT);
        remove::tree(&next)?;
        symlink(&set, &next)?;
        if is_real_folder(&root.join(DATA)) {
            remove::tree(&root.join(DATA))?;
        }
        fs::rename(&next, root.join(DATA))?;
    }
    link_names(root, files)?;
    sweep(root, files)
}

/// Whether a path names a file in a volume, and nothing that is the agent's own there. Whoever asks has looked at it; this is the last place that can.
fn is_within(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    let own = path.starts_with("..");
    !path.is_empty() && !own && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The files with what is there for those whose content is not known now.
fn known(root: &Path, files: &VolumeFiles) -> io::Result<VolumeFiles> {
    let mut known = VolumeFiles::new();
    for (path, file) in files {
        let bytes = match &file.unknown {
            None => file.bytes.clone(),
            Some(why) => match files::read_if_there(&root.join(DATA).join(path))? {
                Some(bytes) => bytes,
                None if file.may_be_missing => continue,
                None => {
                    let message = format!("what is in {path:?} is not known: {why}");
                    return Err(io::Error::new(io::ErrorKind::NotFound, message));
                }
            },
        };
        known.insert(path.clone(), VolumeFile::new(bytes, file.mode));
    }
    Ok(known)
}

fn ensure_root(root: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let found = fs::symlink_metadata(root)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    give(root, empty::MODE, group, true)
}

/// Owner and permissions of what the agent made. Kubernetes' `SetVolumeOwnership` for volumes that containers only read.
fn give(path: &Path, mode: u32, group: Option<u32>, is_folder: bool) -> io::Result<()> {
    chown(path, None, group)?;
    fs::set_permissions(
        path,
        fs::Permissions::from_mode(given(mode, group, is_folder)),
    )
}

/// The permissions with what the group may do.
fn given(mode: u32, group: Option<u32>, is_folder: bool) -> u32 {
    match (group, is_folder) {
        (None, _) => mode,
        (Some(_), false) => mode | GROUP_READS,
        (Some(_), true) => mode | GROUP_READS | 0o110 | empty::SETGID,
    }
}

/// Writes a set beside the current one. Answers its name.
fn next_set(root: &Path, files: &VolumeFiles, group: Option<u32>) -> io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut number = since.unwrap_or_default().as_nanos();
    let name = loop {
        let name = format!("..{number}");
        match fs::create_dir(root.join(&name)) {
            // A clock that was set back.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            made => {
                made?;
                break PathBuf::from(name);
            }
        }
    };
    let set = root.join(&name);
    let filled = fill(&set, files, group);
    if filled.is_err() {
        // What is there of it takes room.
        let _ = remove::tree(&set);
    }
    filled.map(|()| name)
}

fn fill(set: &Path, files: &VolumeFiles, group: Option<u32>) -> io::Result<()> {
    for folder in folders(files) {
        fs::create_dir(set.join(folder))?;
    }
    for (path, file) in files {
        let path = set.join(path);
        fs::write(&path, &file.bytes)?;
        give(&path, file.mode, group, false)?;
    }
    for folder in folders(files) {
        give(&set.join(folder), FOLDER, group, true)?;
    }
    give(set, FOLDER, group, true)
}

/// All folders that the files are in, outer ones first.
fn folders(files: &VolumeFiles) -> BTreeSet<&Path> {
    let ancestors = files
        .keys()
        .flat_map(|path| Path::new(path).ancestors().skip(1));
    ancestors
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect()
}

/// Whether a set is just this.
fn has(set: &Path, files: &VolumeFiles, group: Option<u32>) -> io::Result<bool> {
    let mut expected: BTreeMap<PathBuf, u32> = folders(files)
        .into_iter()
        .map(|folder| (set.join(folder), given(FOLDER, group, true)))
        .collect();
    expected.extend(
        files
            .iter()
            .map(|(path, file)| (set.join(path), given(file.mode, group, false))),
    );
    let mut folders = vec![set.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for path in pins::entries(&folder)? {
            let found = fs::symlink_metadata(&path)?;
            let right = expected.get(&path) == Some(&(found.mode() & 0o7777))
                && group.is_none_or(|group| found.gid() == group);
            if !right || found.is_symlink() {
                return Ok(false);
            }
            seen += 1;
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    if seen != expected.len() {
        return Ok(false);
    }
    for (path, file) in files {
        let path = set.join(path);
        let length = u64::try_from(file.bytes.len()).ok();
        if Some(fs::symlink_metadata(&path)?.len()) != length || fs::read(&path)? != file.bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names that containers see.
fn names(files: &VolumeFiles) -> BTreeSet<&str> {
    files
        .keys()
        .filter_map(|path| {
            path.split('/')
                .find(|part| !part.is_empty() && *part != ".")
        })
        .collect()
}

fn link_names(root: &Path, files: &VolumeFiles) -> io::Result<()> {
    for name in names(files) {
        let (link, target) = (root.join(name), Path::new(DATA).join(name));
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            continue;
        }
        remove::tree(&link)?;
        symlink(&target, &link)?;
    }
    Ok(())
}

/// Removes names that are not there any more, and sets that are not the current one.
fn sweep(root: &Path, files: &VolumeFiles) -> io::Result<()> {
    let current = fs::read_link(root.join(DATA))?;
    let names = names(files);
    for path in pins::entries(root)? {
        let name = path.file_name().unwrap_or_default();
        let kept = name == DATA
            || name == current.as_os_str()
            || name.to_str().is_some_and(|name| names.contains(name));
        if !kept {
            remove::tree(&path)?;
        }
    }
    Ok(())
}

fn is_real_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}
