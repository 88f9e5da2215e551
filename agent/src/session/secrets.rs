//! Secrets, kept in memory: in a file system that outlives this process and not the machine's boot. No disk ever has them.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use barge_proto::v1::Secret;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{TMPFS_MAGIC, statfs},
};
use prost::Message;

use crate::files;

/// Options of the file system. Kernels before 6.3 know no `noswap`.
const OPTIONS: [&str; 2] = ["mode=0700,size=256m,noswap", "mode=0700,size=256m"];

/// The file of all Secrets.
#[derive(Debug, Clone)]
pub struct SecretFiles {
    folder: PathBuf,
}

#[derive(Clone, PartialEq, Message)]
struct Secrets {
    #[prost(message, repeated, tag = "1")]
    secrets: Vec<Secret>,
}

impl SecretFiles {
    /// Those of a data folder. The file system is made with the first Secret.
    pub fn of(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.join("run/secrets"),
        }
    }

    /// What was kept; `None` when the machine was booted since, or when it cannot be read. Blocks.
    pub fn load(&self) -> Option<Vec<Secret>> {
        if !is_in_memory(&self.folder) {
            return None;
        }
        let bytes = files::read_if_there(&self.path()).ok().flatten()?;
        let secrets = Secrets::decode(bytes.as_slice()).ok()?;
        Some(secrets.secrets)
    }

    /// Keeps these instead of those before. Blocks.
    ///
    /// # Errors
    /// There is no file system in memory, or it is full; a disk is not used instead.
    pub fn save(&self, secrets: Vec<Secret>) -> io::Result<()> {
        if secrets.is_empty() {
            return match is_in_memory(&self.folder) {
                true => files::remove_if_there(&self.path()),
                false => Ok(()),
            };
        }
        self.prepare()?;
        let written = files::write_atomic(&self.path(), &Secrets { secrets }.encode_to_vec());
        if written.is_err() {
            // Older ones must not be taken for these.
            files::remove_if_there(&self.path())?;
        }
        written
    }

    fn prepare(&self) -> io::Result<()> {
        if is_in_memory(&self.folder) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let (source, kind) = (Some("barge-secrets"), Some("tmpfs"));
        let mounted = |options| mount(source, &self.folder, kind, flags, Some(options));
        let [best, other] = OPTIONS;
        mounted(best).or_else(|_| mounted(other))?;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.folder.join("assigned")
    }
}

/// The folder may be on a tmpfs already, mounted by this agent before or by whoever made the data folder.
fn is_in_memory(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nix::mount::{MntFlags, umount2};

    use super::*;

    /// Takes the file system away, also when the test fails: as a boot does.
    struct Mounted(PathBuf);

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        }
    }

    #[test]
    fn secrets_outlive_the_process_and_not_a_boot() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let files = SecretFiles::of(data.path());
        let mounted = Mounted(files.folder.clone());
        assert_eq!(files.load(), None);
        files.save(Vec::new()).unwrap();
        assert!(!is_in_memory(&files.folder), "nothing is to be kept");
        let secret = Secret {
            data: [("password".to_owned(), b"hunter2".to_vec())].into(),
            ..Secret::default()
        };
        files.save(vec![secret.clone()]).unwrap();
        let mode = fs::metadata(&files.folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(is_in_memory(&files.folder));
        assert_eq!(SecretFiles::of(data.path()).load(), Some(vec![secret]));
        drop(mounted);
        assert_eq!(files.load(), None);
        let left = fs::read_dir(&files.folder).unwrap().count();
        assert_eq!(left, 0, "the disk has nothing");
    }

    #[test]
    fn secrets_that_cannot_be_kept_leave_no_older_ones() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let files = SecretFiles::of(data.path());
        let _mounted = Mounted(files.folder.clone());
        files.save(vec![Secret::default()]).unwrap();
        fs::create_dir(files.path().with_extension("tmp")).unwrap();
        assert!(
            files
                .save(vec![Secret::default(), Secret::default()])
                .is_err()
        );
        assert_eq!(files.load(), None);
    }
}
