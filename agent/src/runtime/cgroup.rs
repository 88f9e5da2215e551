//! Control groups: which version, where, and what they know about a container's end.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Which hierarchy the machine uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy per controller.
    V1,
    /// One for all.
    V2,
}

/// The control groups of this agent's pods.
#[derive(Debug, Clone)]
pub struct Cgroups {
    mount: PathBuf,
    root: String,
    version: CgroupVersion,
}

impl Cgroups {
    /// Looks at the machine.
    pub fn new(mount: &Path, root: &str) -> Self {
        let unified =
            statfs(mount).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
        Self {
            mount: mount.to_owned(),
            root: root.to_owned(),
            version: if unified {
                CgroupVersion::V2
            } else {
                CgroupVersion::V1
            },
        }
    }

    /// Which version the machine uses.
    pub fn version(&self) -> CgroupVersion {
        self.version
    }

    /// The group of a container, as runc wants it. Each attempt has its own: counters begin at zero.
    pub fn path(&self, pod_uid: &str, container: &str, attempt: u32) -> String {
        format!("/{}/{pod_uid}/{container}.{attempt}", self.root)
    }

    /// How many processes of a group were killed for lack of memory; 0 when the group is gone.
    pub fn oom_kills(&self, path: &str) -> u64 {
        let path = path.trim_start_matches('/');
        let file = match self.version {
            CgroupVersion::V1 => self
                .mount
                .join("memory")
                .join(path)
                .join("memory.oom_control"),
            CgroupVersion::V2 => self.mount.join(path).join("memory.events"),
        };
        fs::read_to_string(file).map_or(0, |text| counter(&text, "oom_kill"))
    }

    /// Removes all groups of a pod, which must be empty. That there are none is success.
    pub fn remove_pod(&self, pod_uid: &str) -> io::Result<()> {
        let below = Path::new(&self.root).join(pod_uid);
        match self.version {
            CgroupVersion::V2 => remove_groups(&self.mount.join(below)),
            CgroupVersion::V1 => {
                for hierarchy in fs::read_dir(&self.mount)? {
                    remove_groups(&hierarchy?.path().join(&below))?;
                }
                Ok(())
            }
        }
    }
}

fn counter(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(key, _)| *key == name);
    found
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Removes a group and those below it: only folders can be removed, the files go with them.
fn remove_groups(group: &Path) -> io::Result<()> {
    let children = match fs::read_dir(group) {
        Ok(children) => children,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for child in children {
        let child = child?;
        if child.file_type()?.is_dir() {
            remove_groups(&child.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counters_of_both_versions() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v2 = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(counter(v1, "oom_kill"), 3);
        assert_eq!(counter(v2, "oom_kill"), 2);
        assert_eq!(counter("", "oom_kill"), 0);
    }

    #[test]
    fn removes_the_pod_from_every_hierarchy() {
        let mount = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::new(mount.path(), "barge");
        assert_eq!(cgroups.version(), CgroupVersion::V1);
        for hierarchy in ["cpu", "memory"] {
            fs::create_dir_all(mount.path().join(hierarchy).join("barge/u/c.0")).unwrap();
        }
        cgroups.remove_pod("u").unwrap();
        cgroups.remove_pod("u").unwrap();
        for hierarchy in ["cpu", "memory"] {
            let root = mount.path().join(hierarchy).join("barge");
            assert_eq!(fs::read_dir(root).unwrap().count(), 0);
        }
    }
}
