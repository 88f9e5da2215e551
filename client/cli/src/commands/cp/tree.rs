//! Makes files and folders below a folder, and never through a symbolic link: every folder on the way is opened relative to the one before it.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, fchmod, linkat, mkdirat, open, openat, statat, symlinkat,
        unlinkat,
    },
    io::Errno,
};

/// Folders within each other.
const DEEPEST: usize = 128;
/// Of what the archive's permissions are taken: owners are this process', and so nothing runs as somebody else.
const PERMISSIONS: u32 = 0o777;

#[derive(Debug)]
pub struct Tree {
    base: OwnedFd,
    /// The folders that are open, each in the one before it.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    name: OsString,
    folder: OwnedFd,
    /// What it gets when it is left: until then this process may write in it.
    mode: Option<u32>,
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Tree {
    /// Below a folder, which may be named by a link.
    pub fn new(base: &Path) -> io::Result<Self> {
        Ok(Self {
            base: open(base, FOLDER, Mode::empty())?,
            open: Vec::new(),
        })
    }

    /// A folder, with those that it is in. One that is there keeps its permissions.
    pub fn folder(&mut self, path: &[OsString], mode: u32) -> io::Result<()> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(());
        };
        self.enter(parents)?;
        self.push(name, Some(mode))
    }

    /// A new file in place of what is there.
    pub fn file(&mut self, path: &[OsString]) -> io::Result<File> {
        let (parent, name) = self.cleared(path)?;
        let file = openat(parent, name, NEW_FILE, Mode::RUSR | Mode::WUSR)?;
        Ok(file.into())
    }

    /// The file that a person named: a link is followed, and what is there is written anew. Says whether it was made.
    pub fn named_file(&mut self, name: &OsStr) -> io::Result<(File, bool)> {
        match openat(&self.base, name, NEW_FILE, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok((file.into(), true)),
            Err(Errno::EXIST) => {
                let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
                let file = openat(&self.base, name, flags, Mode::empty())?;
                Ok((file.into(), false))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A symbolic link in place of what is there.
    pub fn link(&mut self, path: &[OsString], target: &Path) -> io::Result<()> {
        let (parent, name) = self.cleared(path)?;
        Ok(symlinkat(target, parent, name)?)
    }

    /// Another name of a file that is there, in place of what is there.
    pub fn hard_link(&mut self, path: &[OsString], target: &[OsString]) -> io::Result<()> {
        let Some((name, parents)) = target.split_last() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut folder = self.base.try_clone()?;
        for parent in parents {
            folder = openat(&folder, parent, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        }
        let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        // A link elsewhere would lead elsewhere.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is another name of what is no file"));
        }
        let (parent, new) = self.cleared(path)?;
        Ok(linkat(&folder, name, parent, new, AtFlags::empty())?)
    }

    /// Gives the open folders their permissions.
    pub fn close(mut self) -> io::Result<()> {
        self.leave(0)
    }

    /// The folder that it is to be in, and its name there, which is free.
    fn cleared<'a>(&mut self, path: &'a [OsString]) -> io::Result<(&OwnedFd, &'a OsString)> {
        let Some((name, parents)) = path.split_last() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.enter(parents)?;
        let parent = self.innermost();
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((parent, name)),
            Err(Errno::ISDIR | Errno::PERM) => {
                Err(io::Error::other("a folder of this name is there"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn innermost(&self) -> &OwnedFd {
        self.open.last().map_or(&self.base, |open| &open.folder)
    }

    /// Opens a folder, from those that are open already; makes what is missing.
    fn enter(&mut self, path: &[OsString]) -> io::Result<()> {
        let common = self
            .open
            .iter()
            .zip(path)
            .take_while(|(open, name)| open.name == **name)
            .count();
        self.leave(common)?;
        for name in &path[common..] {
            self.push(name, None)?;
        }
        Ok(())
    }

    fn push(&mut self, name: &OsStr, mode: Option<u32>) -> io::Result<()> {
        if self.open.len() >= DEEPEST {
            return Err(io::Error::other(format!(
                "more than {DEEPEST} folders within each other"
            )));
        }
        let parent = self.innermost();
        let new = match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let folder = openat(parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let folder = folder.map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => io::Error::other(format!(
                "\"{}\" is there and no folder, or a link to one",
                name.display()
            )),
            error => error.into(),
        })?;
        self.open.push(Open {
            name: name.to_owned(),
            folder,
            // One that the archive does not name is as others that this process makes.
            mode: new.then_some(mode.unwrap_or(0o755)),
        });
        Ok(())
    }

    /// Closes all folders but the outermost ones.
    fn leave(&mut self, keep: usize) -> io::Result<()> {
        while self.open.len() > keep {
            if let Some(Open { folder, mode, .. }) = self.open.pop()
                && let Some(mode) = mode
            {
                permit(folder, mode)?;
            }
        }
        Ok(())
    }
}

/// Gives a file the permissions that the archive says.
pub fn permit(file: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(fchmod(file, Mode::from_raw_mode(mode & PERMISSIONS))?)
}
