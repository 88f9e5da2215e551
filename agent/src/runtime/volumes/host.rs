//! Files of the node that pods name.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::Path,
};

/// What a path of the node has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPathType {
    /// Anything; what is missing becomes a folder.
    Any,
    /// A folder, which is made when it is missing.
    DirectoryOrCreate,
    /// A folder.
    Directory,
    /// A file, which is made when it is missing. The folder that it is in is not made.
    FileOrCreate,
    /// A file.
    File,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl HostPathType {
    /// As the API has it; `None` for what is none.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "" => Self::Any,
            "DirectoryOrCreate" => Self::DirectoryOrCreate,
            "Directory" => Self::Directory,
            "FileOrCreate" => Self::FileOrCreate,
            "File" => Self::File,
            "Socket" => Self::Socket,
            "CharDevice" => Self::CharDevice,
            "BlockDevice" => Self::BlockDevice,
            _ => return None,
        })
    }
}

/// Looks whether a path is what it has to be, and makes what may be made. Blocks, for ever on a file system that does not answer.
pub fn check(path: &Path, kind: HostPathType) -> io::Result<()> {
    use HostPathType::{
        Any, BlockDevice, CharDevice, Directory, DirectoryOrCreate, File as Plain, FileOrCreate,
        Socket,
    };
    let found = match fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(error) => {
            return match kind {
                Any | DirectoryOrCreate => {
                    DirBuilder::new().recursive(true).mode(0o755).create(path)
                }
                FileOrCreate => File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o644)
                    .open(path)
                    .map(drop),
                _ => Err(error),
            };
        }
    };
    let (is, what) = match kind {
        Any => (true, ""),
        DirectoryOrCreate | Directory => (found.is_dir(), "a folder"),
        FileOrCreate | Plain => (found.is_file(), "a file"),
        Socket => (found.is_socket(), "a socket"),
        CharDevice => (found.is_char_device(), "a character device"),
        BlockDevice => (found.is_block_device(), "a block device"),
    };
    match is {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "it is not {what}, which its type says"
        ))),
    }
}
