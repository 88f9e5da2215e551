//! Writes the entries of an archive that a container made. The container may be hostile: nothing is written outside the destination, and no link is
//! left that leads out of it.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result};
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc;

use super::{
    pipe::{Budget, Reader},
    tree::{Tree, permit},
};

/// What the headers of one entry may have together, in bytes: long names.
const HEADERS: u64 = 1 << 20;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The folder, which is there.
    pub base: PathBuf,
    /// The name in it; none for what is in a folder.
    pub name: Option<OsString>,
    /// It was written with a slash at its end: only a folder can be meant.
    pub is_folder: bool,
}

/// Why an entry is not written.
type Refused = &'static str;

const LEADS_OUT: Refused = "its path leads out of the destination";
const LINK_OUT: Refused = "it is a link that leads out of the destination";
const ROOT_LINK: Refused = "it is a link: copy what it leads to";
const NOT_ASKED: Refused = "it was not asked for";
const SPECIAL: Refused = "it is neither a file nor a folder nor a link";
const NO_FOLDER: Refused = "it is no folder, and the destination ends with a slash";

/// Writes the archive of `asked`, or without it of what is in a folder. Tells every entry that is refused, and returns how many.
pub fn unpack(
    from: mpsc::Receiver<Vec<u8>>,
    asked: Option<&str>,
    to: &Destination,
    mut refuse: impl FnMut(&Path, Refused),
) -> Result<u64> {
    let budget = Budget::new();
    let mut archive = Archive::new(Reader::new(from, budget.clone()));
    let tree = Tree::new(&to.base).with_context(|| format!("open {}", to.base.display()))?;
    let mut unpacking = Unpacking {
        asked,
        to,
        tree,
        begun: false,
    };
    let mut refused = 0;
    let mut entries = archive.entries()?;
    loop {
        budget.set(HEADERS);
        let Some(entry) = entries.next() else {
            break;
        };
        budget.set(u64::MAX);
        let mut entry = entry.context("read the archive")?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let written = unpacking.entry(&mut entry, &path);
        if let Err(reason) = written.with_context(|| format!("write {}", path.display()))? {
            refused += 1;
            refuse(&path, reason);
        }
        // What is left of it is not a header.
        io::copy(&mut entry, &mut io::sink()).context("read the archive")?;
    }
    unpacking.tree.close()?;
    // What fills the last block.
    budget.set(u64::MAX);
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(refused)
}

struct Unpacking<'a> {
    asked: Option<&'a str>,
    to: &'a Destination,
    tree: Tree,
    /// Whether an entry has come. What was asked for itself comes first.
    begun: bool,
}

impl Unpacking<'_> {
    fn entry(
        &mut self,
        entry: &mut Entry<'_, Reader>,
        path: &Path,
    ) -> io::Result<Result<(), Refused>> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(Ok(()));
        }
        let first = !std::mem::replace(&mut self.begun, true);
        let inner = match inside(path, self.asked) {
            Ok(inner) => inner,
            Err(reason) => return Ok(Err(reason)),
        };
        if inner.is_empty() && !first && !kind.is_dir() {
            return Ok(Err(NOT_ASKED));
        }
        let mode = entry.header().mode()?;
        let there = self.there(&inner);
        match kind {
            EntryType::Directory => self.tree.folder(&there, mode)?,
            EntryType::Regular | EntryType::Continuous => {
                let (mut file, new) = match (&inner[..], &there[..]) {
                    ([], _) if self.to.is_folder => return Ok(Err(NO_FOLDER)),
                    ([], [name]) => self.tree.named_file(name)?,
                    _ => (self.tree.file(&there)?, true),
                };
                io::copy(entry, &mut file)?;
                if new {
                    permit(&file, mode)?;
                }
            }
            EntryType::Symlink if inner.is_empty() => return Ok(Err(ROOT_LINK)),
            EntryType::Symlink => {
                let target = target(entry);
                if !stays(inner.len() - 1, &target) {
                    return Ok(Err(LINK_OUT));
                }
                self.tree.link(&there, &target)?;
            }
            // A few bytes of the archive could be any number of zeros here. tar makes none unless it is told to.
            EntryType::GNUSparse => return Err(io::Error::other("it is stored as a sparse file")),
            EntryType::Link if inner.is_empty() => return Ok(Err(NOT_ASKED)),
            EntryType::Link => match inside(&target(entry), self.asked) {
                Ok(target) => self.tree.hard_link(&there, &self.there(&target))?,
                Err(_) => return Ok(Err(LINK_OUT)),
            },
            _ => return Ok(Err(SPECIAL)),
        }
        Ok(Ok(()))
    }

    /// The path below the base.
    fn there(&self, inner: &[OsString]) -> Vec<OsString> {
        self.to.name.iter().chain(inner).cloned().collect()
    }
}

fn target(entry: &Entry<'_, Reader>) -> PathBuf {
    let name = entry.link_name_bytes().unwrap_or_default();
    PathBuf::from(OsStr::from_bytes(&name))
}

/// The path of an entry below what was asked for.
fn inside(path: &Path, asked: Option<&str>) -> Result<Vec<OsString>, Refused> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_owned()),
            Component::CurDir => {}
            _ => return Err(LEADS_OUT),
        }
    }
    match asked {
        None => Ok(parts),
        Some(asked) if parts.first().is_some_and(|first| first == asked) => Ok(parts.split_off(1)),
        Some(_) => Err(NOT_ASKED),
    }
}

/// Whether a link that is so many folders deep stays inside. Going up is allowed at the beginning only, where no other link can have led elsewhere.
fn stays(depth: usize, target: &Path) -> bool {
    let mut up = 0;
    let mut down = false;
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => down = true,
            Component::ParentDir if !down => up += 1,
            _ => return false,
        }
    }
    up <= depth
}

#[cfg(test)]
mod tests;
