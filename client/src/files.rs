//! Small files that are whole or absent after any crash: written beside, synced and renamed.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Replaces `path` by a file of mode 0600 that holds `content`; after a crash there is the old file or the new one.
///
/// # Errors
/// What the file system says; then the old file is still there.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = folder_of(path);
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(parent)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(parent)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Waits until no other process that asks is about to replace a file in the folder of `path`; the turn lasts until the handle
/// is dropped.
///
/// # Errors
/// What the file system says.
pub fn lock_folder_of(path: &Path) -> io::Result<File> {
    let folder = File::open(folder_of(path))?;
    folder.lock()?;
    Ok(folder)
}

/// A file without a name of its own that anybody knows, mode 0600, gone when it is dropped.
///
/// # Errors
/// What the file system says.
pub fn temporary_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::NamedTempFile::new_in(folder)
}

/// Makes a folder of mode 0700 where there is none.
///
/// # Errors
/// What the file system says.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Reads a text file; `None` when there is none.
///
/// # Errors
/// What the file system says, except that the file does not exist.
pub fn read_optional(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_keeps_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        assert_eq!(read_optional(&path).unwrap(), None);
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_optional(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
