//! Small disks: file systems in files, which can be filled up, and copied while they are written to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::statvfs::statvfs;

use crate::managers::run;

/// What fills a disk up.
const BALLAST: &str = "ballast";

/// An ext4 file system in a file; unmounted when dropped.
pub struct Disk {
    image: PathBuf,
    mounted: Option<PathBuf>,
}

impl Disk {
    /// Makes one of this size ("256M").
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(image: &Path, size: &str) -> Self {
        let name = image.display().to_string();
        run(&["truncate", "-s", size, &name]);
        run(&["mkfs.ext4", "-q", "-F", "-m", "0", &name]);
        Self {
            image: image.to_owned(),
            mounted: None,
        }
    }

    /// Mounts it at a folder, which is made.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(&mut self, at: &Path) {
        fs::create_dir_all(at).expect("make a folder");
        run(&[
            "mount",
            "-o",
            "loop",
            &self.image.display().to_string(),
            &at.display().to_string(),
        ]);
        self.mounted = Some(at.to_owned());
    }

    /// What the disk holds right now; what only memory holds is not in the copy.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn copy(&self, to: &Path) -> Self {
        let (from, name) = (self.image.display().to_string(), to.display().to_string());
        run(&["cp", "--sparse=always", &from, &name]);
        Self {
            image: to.to_owned(),
            mounted: None,
        }
    }

    /// Fills it up until about so many bytes are free.
    ///
    /// # Panics
    /// When it has less already.
    pub fn fill(&self, leave: u64) {
        let at = self.mounted.as_ref().expect("it is mounted");
        let disk = statvfs(at).expect("ask for the free space");
        let free = disk.blocks_available() * disk.fragment_size();
        let ballast = free
            .checked_sub(leave)
            .expect("there is less space already");
        let path = at.join(BALLAST).display().to_string();
        run(&["fallocate", "-l", &ballast.to_string(), &path]);
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn empty(&self) {
        let at = self.mounted.as_ref().expect("it is mounted");
        fs::remove_file(at.join(BALLAST)).expect("remove the ballast");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(at) = &self.mounted {
            // Whoever still writes to it loses nothing but its name.
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
    }
}
