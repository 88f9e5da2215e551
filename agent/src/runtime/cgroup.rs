//! Control groups: which version, where, and what they know about a container's end.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        statfs::{CGROUP2_SUPER_MAGIC, statfs},
    },
    unistd::Pid,
};

mod counters;
mod pod;

use super::QosClass;

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
    missing: pod::Missing,
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
            missing: pod::Missing::default(),
        }
    }

    /// Which version the machine uses.
    pub fn version(&self) -> CgroupVersion {
        self.version
    }

    /// The group of a container, as runc wants it: below the pod's, wherever that is. Each attempt has its own: counters begin at
    /// zero.
    pub fn path(&self, pod_uid: &str, id: &str) -> String {
        let pod = self.place(pod_uid, QosClass::Burstable);
        format!("/{}/{id}", pod.display())
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

    /// Kills every process of a group, and of those below it, that is in this session. One of another session is left alone, also when it was
    /// begun by one of this session.
    pub fn kill_session(&self, path: &str, session: i32) -> io::Result<()> {
        let mut processes = BTreeSet::new();
        for group in self.groups(Path::new(path.trim_start_matches('/')))? {
            processes_of(&group, &mut processes)?;
        }
        for process in processes {
            let stat = fs::read_to_string(format!("/proc/{process}/stat"));
            if stat.is_ok_and(|stat| session_of(&stat) == Some(session)) {
                match kill(Pid::from_raw(process), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Kills every process of a group and of those below it. Answers whether there was one: it takes a moment to go.
    pub fn kill(&self, path: &str) -> io::Result<bool> {
        let mut processes = BTreeSet::new();
        for group in self.groups(Path::new(path.trim_start_matches('/')))? {
            processes_of(&group, &mut processes)?;
        }
        for process in &processes {
            match kill(Pid::from_raw(*process), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(!processes.is_empty())
    }

    /// Removes all groups of a pod, which must be empty. That there are none is success.
    pub fn remove_pod(&self, pod_uid: &str) -> io::Result<()> {
        for place in self.places(pod_uid) {
            for group in self.groups(&place)? {
                remove_groups(&group)?;
            }
        }
        Ok(())
    }

    /// Where a group is, in every hierarchy; it need not be there.
    fn groups(&self, below: &Path) -> io::Result<Vec<PathBuf>> {
        match self.version {
            CgroupVersion::V2 => Ok(vec![self.mount.join(below)]),
            CgroupVersion::V1 => fs::read_dir(&self.mount)?
                .map(|hierarchy| Ok(hierarchy?.path().join(below)))
                .collect(),
        }
    }
}

/// Adds the processes of a group and of those below it.
fn processes_of(group: &Path, processes: &mut BTreeSet<i32>) -> io::Result<()> {
    let there = match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(there) => there,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let listed = there.lines().filter_map(|line| line.parse::<i32>().ok());
    // The kernel lists as 0 what is in no process namespace of ours, and a signal to 0 is one to ourselves.
    processes.extend(listed.filter(|process| *process > 0));
    for child in children(group)? {
        processes_of(&child, processes)?;
    }
    Ok(())
}

/// The session in a process's `stat`: the fourth field behind its name, which may have spaces and brackets in it.
fn session_of(stat: &str) -> Option<i32> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(3)?.parse().ok()
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
    for child in children(group)? {
        remove_groups(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// No group, not even a folder, or one that goes at this moment.
fn is_gone(error: &io::Error) -> bool {
    let going = [Errno::ENOENT, Errno::ENOTDIR, Errno::ENODEV].map(|code| code as i32);
    error
        .raw_os_error()
        .is_some_and(|code| going.contains(&code))
}

/// The groups right below one; none if it is not there.
fn children(group: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut groups = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            groups.push(entry.path());
        }
    }
    Ok(groups)
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
    fn a_session_is_found_behind_any_name() {
        assert_eq!(session_of("12 (sh) S 1 12 11 0 -1"), Some(11));
        assert_eq!(session_of("12 (a) b (c)) S 1 12 11 0 -1"), Some(11));
        assert_eq!(session_of("12"), None);
    }

    #[test]
    fn kills_what_is_in_a_group_and_below_it() {
        let mount = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::new(mount.path(), "barge");
        let path = cgroups.path("u", "u-c-0");
        assert!(!cgroups.kill(&path).unwrap(), "no such group");
        // A hierarchy's processes are files here: the kernel's own groups are the end-to-end tests' matter.
        let group = mount.path().join("cpu").join(path.trim_start_matches('/'));
        let below = group.join("below");
        fs::create_dir_all(&below).unwrap();
        fs::write(group.join("cgroup.procs"), "0\n").unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        fs::write(below.join("cgroup.procs"), format!("{}\n", child.id())).unwrap();
        assert!(cgroups.kill(&path).unwrap());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn removes_the_pod_from_every_hierarchy() {
        let mount = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::new(mount.path(), "barge");
        assert_eq!(cgroups.version(), CgroupVersion::V1);
        for hierarchy in ["cpu", "memory"] {
            for pod in ["u", "besteffort/u"] {
                let group = mount.path().join(hierarchy).join("barge").join(pod);
                fs::create_dir_all(group.join("c.0")).unwrap();
            }
        }
        cgroups.remove_pod("u").unwrap();
        cgroups.remove_pod("u").unwrap();
        for hierarchy in ["cpu", "memory"] {
            let root = mount.path().join(hierarchy).join("barge");
            assert_eq!(fs::read_dir(root.join("besteffort")).unwrap().count(), 0);
            assert_eq!(
                fs::read_dir(root).unwrap().count(),
                1,
                "the group of the class"
            );
        }
    }
}
