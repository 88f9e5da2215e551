//! The control group of a pod: what its containers get and may use together.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{CgroupVersion, Cgroups};
use crate::runtime::{
    PodResources, QosClass,
    resources::{LEAST_SHARES, cpu_shares, cpu_weight},
};

/// The group above all pods of best effort. Each of them alone would weigh as much as a small request.
const BEST_EFFORT: &str = "besteffort";
/// The controllers that pods need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Controllers that the machine does not have and that were told about.
pub type Missing = Arc<Mutex<BTreeSet<&'static str>>>;

impl Cgroups {
    /// Where a pod's group is, or would be by its class, below the mount points.
    ///
    /// A pod whose group is there stays where it is: containers do not move.
    pub(super) fn place(&self, pod_uid: &str, qos: QosClass) -> PathBuf {
        let [plain, best_effort] = self.places(pod_uid);
        let is_there = |place: &Path| {
            let groups = self.groups(place);
            groups.is_ok_and(|groups| groups.iter().any(|group| group.exists()))
        };
        if is_there(&plain) {
            return plain;
        }
        match qos == QosClass::BestEffort || is_there(&best_effort) {
            true => best_effort,
            false => plain,
        }
    }

    /// All places where a pod's group may be.
    pub(super) fn places(&self, pod_uid: &str) -> [PathBuf; 2] {
        let root = Path::new(&self.root);
        [root.join(pod_uid), root.join(BEST_EFFORT).join(pod_uid)]
    }

    /// Makes a pod's group, or finds it, and sets what the pod gets: the CPU weight of its requests, its memory limit, and
    /// how many processes and threads it may have (`None`: any number). Blocks.
    ///
    /// # Errors
    /// When the kernel refuses. A controller that the machine does not have is no error: the agent's log says so once.
    pub fn ensure_pod(
        &self,
        pod_uid: &str,
        pod: &PodResources,
        pids_limit: Option<u64>,
    ) -> io::Result<()> {
        let place = self.place(pod_uid, pod.qos);
        self.make(&place)?;
        if place
            .parent()
            .is_some_and(|parent| parent.ends_with(BEST_EFFORT))
            && let Some(parent) = place.parent()
        {
            self.set_weight(parent, LEAST_SHARES)?;
        }
        self.set_weight(&place, cpu_shares(pod.cpu_request_milli))?;
        if let Some(limit) = pod.memory_limit {
            let file = match self.version {
                CgroupVersion::V1 => "memory.limit_in_bytes",
                CgroupVersion::V2 => "memory.max",
            };
            self.set(&place, "memory", file, &limit.to_string())?;
        }
        let pids = pids_limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
        self.set(&place, "pids", "pids.max", &pids)
    }

    /// Makes a group and those above it, with the controllers that pods need.
    fn make(&self, place: &Path) -> io::Result<()> {
        match self.version {
            CgroupVersion::V1 => {
                let hierarchies = CONTROLLERS.map(|controller| self.mount.join(controller));
                let mut there = hierarchies.iter().filter(|hierarchy| hierarchy.exists());
                there.try_for_each(|hierarchy| fs::create_dir_all(hierarchy.join(place)))
            }
            CgroupVersion::V2 => {
                let mut group = self.mount.clone();
                for part in place {
                    // A group has the controllers that the one above it hands down.
                    hand_down(&group)?;
                    group.push(part);
                    fs::create_dir_all(&group)?;
                }
                Ok(())
            }
        }
    }

    fn set_weight(&self, place: &Path, shares: u64) -> io::Result<()> {
        match self.version {
            CgroupVersion::V1 => self.set(place, "cpu", "cpu.shares", &shares.to_string()),
            CgroupVersion::V2 => {
                let weight = cpu_weight(shares);
                self.set(place, "cpu", "cpu.weight", &weight.to_string())
            }
        }
    }

    fn set(
        &self,
        place: &Path,
        controller: &'static str,
        file: &str,
        value: &str,
    ) -> io::Result<()> {
        let group = match self.version {
            CgroupVersion::V1 => self.mount.join(controller).join(place),
            CgroupVersion::V2 => self.mount.join(place),
        };
        let path = group.join(file);
        match write(&path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
                if missing.insert(controller) {
                    tracing::warn!(
                        controller,
                        path = %path.display(),
                        "the machine does not have this control group controller: pods do not get what it would give them"
                    );
                }
                Ok(())
            }
            result => result.map_err(|error| {
                let message = format!("cannot write {value} to {}: {error}", path.display());
                io::Error::new(error.kind(), message)
            }),
        }
    }
}

/// Hands the controllers that pods need down to the groups below one, as far as it has them. Version 2 only.
fn hand_down(group: &Path) -> io::Result<()> {
    let words = |file: &str| -> io::Result<BTreeSet<String>> {
        let text = fs::read_to_string(group.join(file))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let (has, hands) = (
        words("cgroup.controllers")?,
        words("cgroup.subtree_control")?,
    );
    let missing = |controller: &&str| has.contains(*controller) && !hands.contains(*controller);
    let wanted: Vec<String> = CONTROLLERS
        .into_iter()
        .filter(missing)
        .map(|controller| format!("+{controller}"))
        .collect();
    match wanted.is_empty() {
        true => Ok(()),
        false => write(&group.join("cgroup.subtree_control"), &wanted.join(" ")),
    }
}

/// Writes to a file that is there.
fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Folders and files in place of the kernel's. What is set is read back from them.
    struct Fake(tempfile::TempDir, CgroupVersion);

    impl Fake {
        fn new(version: CgroupVersion) -> Self {
            let fake = Self(tempfile::tempdir().unwrap(), version);
            for place in [
                "",
                "barge",
                "barge/u",
                "barge/besteffort",
                "barge/besteffort/u",
            ] {
                fake.group(place);
            }
            fake
        }

        /// The kernel makes a group's files with the group.
        fn group(&self, place: &str) {
            let files = |group: PathBuf, names: &[&str]| {
                fs::create_dir_all(&group).unwrap();
                for name in names {
                    fs::write(group.join(name), "").unwrap();
                }
            };
            match self.1 {
                CgroupVersion::V1 => {
                    for (hierarchy, names) in [
                        ("cpu", &["cpu.shares"][..]),
                        ("memory", &["memory.limit_in_bytes"]),
                        ("pids", &["pids.max"]),
                    ] {
                        files(self.0.path().join(hierarchy).join(place), names);
                    }
                }
                CgroupVersion::V2 => {
                    let group = self.0.path().join(place);
                    let names = [
                        "cpu.weight",
                        "memory.max",
                        "pids.max",
                        "cgroup.subtree_control",
                    ];
                    files(group.clone(), &names);
                    fs::write(
                        group.join("cgroup.controllers"),
                        "cpuset cpu io memory pids",
                    )
                    .unwrap();
                }
            }
        }

        fn remove(&self, place: &str) {
            for group in self.cgroups().groups(Path::new(place)).unwrap() {
                fs::remove_dir_all(group).unwrap();
            }
        }

        fn cgroups(&self) -> Cgroups {
            let mut cgroups = Cgroups::new(self.0.path(), "barge");
            cgroups.version = self.1;
            cgroups
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.0.path().join(path)).unwrap()
        }
    }

    const BURSTABLE: PodResources = PodResources {
        qos: QosClass::Burstable,
        cpu_request_milli: 1000,
        memory_limit: Some(1 << 30),
    };

    #[test]
    fn a_pod_gets_what_it_requests_by_either_version() {
        let fake = Fake::new(CgroupVersion::V1);
        fake.cgroups()
            .ensure_pod("u", &BURSTABLE, Some(4096))
            .unwrap();
        assert_eq!(fake.read("cpu/barge/u/cpu.shares"), "1024");
        assert_eq!(
            fake.read("memory/barge/u/memory.limit_in_bytes"),
            "1073741824"
        );
        assert_eq!(fake.read("pids/barge/u/pids.max"), "4096");

        let fake = Fake::new(CgroupVersion::V2);
        fake.cgroups().ensure_pod("u", &BURSTABLE, None).unwrap();
        assert_eq!(fake.read("barge/u/cpu.weight"), "39");
        assert_eq!(fake.read("barge/u/memory.max"), "1073741824");
        assert_eq!(fake.read("barge/u/pids.max"), "max");
        for above in ["", "barge/"] {
            let handed_down = fake.read(&format!("{above}cgroup.subtree_control"));
            assert_eq!(handed_down, "+cpu +memory +pids");
        }
    }

    #[test]
    fn pods_of_best_effort_share_the_least_weight() {
        let best_effort = PodResources::default();
        for (version, root, file, least) in [
            (CgroupVersion::V1, "cpu/barge", "cpu.shares", "2"),
            (CgroupVersion::V2, "barge", "cpu.weight", "1"),
        ] {
            let fake = Fake::new(version);
            fake.remove("barge/u");
            let cgroups = fake.cgroups();
            cgroups.ensure_pod("u", &best_effort, None).unwrap();
            for group in ["besteffort", "besteffort/u"] {
                assert_eq!(fake.read(&format!("{root}/{group}/{file}")), least);
            }
            assert_eq!(cgroups.path("u", "c"), "/barge/besteffort/u/c");
            fake.remove("barge/besteffort/u");
            assert_eq!(cgroups.path("u", "c"), "/barge/u/c", "it is gone");
        }
    }

    #[test]
    fn a_pod_that_runs_stays_where_it_is() {
        let fake = Fake::new(CgroupVersion::V1);
        fake.remove("barge/besteffort/u");
        let cgroups = fake.cgroups();
        cgroups
            .ensure_pod("u", &PodResources::default(), None)
            .unwrap();
        assert_eq!(cgroups.path("u", "c"), "/barge/u/c");
        assert_eq!(fake.read("cpu/barge/u/cpu.shares"), "2");
    }

    #[test]
    fn a_controller_that_is_not_there_stops_no_pod() {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir_all(mount.path().join("cpu")).unwrap();
        let cgroups = Cgroups::new(mount.path(), "barge");
        cgroups.ensure_pod("u", &BURSTABLE, Some(9)).unwrap();
        assert!(!mount.path().join("memory").exists());
    }
}
