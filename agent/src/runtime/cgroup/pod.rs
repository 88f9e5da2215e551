//! The control group of a pod: what its containers get and may use together.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{CgroupVersion, Cgroups, remove_groups};
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
    /// Nothing here stops a pod that runs: a limit of a group that was there already is not set below what the pod uses, and
    /// what the kernel refuses is only logged. The next start of one of the pod's containers tries again.
    ///
    /// # Errors
    /// When the kernel refuses a new group. A controller that the machine does not have is no error: the agent's log says so once.
    pub fn ensure_pod(
        &self,
        pod_uid: &str,
        pod: &PodResources,
        pids_limit: Option<u64>,
    ) -> io::Result<()> {
        let place = self.place(pod_uid, pod.qos);
        let groups = self.groups(&place).unwrap_or_default();
        let was_there = groups.iter().any(|group| group.exists());
        self.make(&place)?;
        let settings = self.settings(&place, pod, pids_limit);
        for setting in settings {
            let result = match was_there {
                true => self.adjust(&setting),
                false => self.set(&setting),
            };
            match result {
                Err(error) if was_there => {
                    tracing::warn!(pod_uid, %error, "cannot adjust the control group of a pod that is there: it stays as it was");
                }
                Err(error) => {
                    // The next try is to find no group that was set by half.
                    for group in &groups {
                        if let Err(error) = remove_groups(group) {
                            tracing::debug!(group = %group.display(), %error, "cannot remove a new control group");
                        }
                    }
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// All that a pod's group is told, in order.
    fn settings(&self, place: &Path, pod: &PodResources, pids_limit: Option<u64>) -> Vec<Setting> {
        let mut settings = Vec::new();
        let above = place.parent();
        if let Some(parent) = above.filter(|parent| parent.ends_with(BEST_EFFORT)) {
            settings.push(self.weight(parent, LEAST_SHARES));
        }
        settings.push(self.weight(place, cpu_shares(pod.cpu_request_milli)));
        if let Some(limit) = pod.memory_limit {
            let (file, usage) = match self.version {
                CgroupVersion::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
                CgroupVersion::V2 => ("memory.max", "memory.current"),
            };
            settings.push(Setting {
                group: self.group_of("memory", place),
                controller: "memory",
                file,
                value: limit.to_string(),
                limit: Some((limit, usage)),
            });
        }
        settings.push(Setting {
            group: self.group_of("pids", place),
            controller: "pids",
            file: "pids.max",
            value: pids_limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string()),
            limit: pids_limit.map(|limit| (limit, "pids.current")),
        });
        settings
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

    fn weight(&self, place: &Path, shares: u64) -> Setting {
        let (file, value) = match self.version {
            CgroupVersion::V1 => ("cpu.shares", shares),
            CgroupVersion::V2 => ("cpu.weight", cpu_weight(shares)),
        };
        Setting {
            group: self.group_of("cpu", place),
            controller: "cpu",
            file,
            value: value.to_string(),
            limit: None,
        }
    }

    fn group_of(&self, controller: &str, place: &Path) -> PathBuf {
        match self.version {
            CgroupVersion::V1 => self.mount.join(controller).join(place),
            CgroupVersion::V2 => self.mount.join(place),
        }
    }

    /// Sets it, unless the group uses more than that already.
    fn adjust(&self, setting: &Setting) -> io::Result<()> {
        if let Some((limit, usage)) = setting.limit {
            let used = fs::read_to_string(setting.group.join(usage)).unwrap_or_default();
            let used = used.trim().parse::<u64>().unwrap_or(0);
            if used > limit {
                tracing::warn!(
                    group = %setting.group.display(), file = setting.file, limit, used,
                    "a pod uses more than its new limit: the limit stays as it was until the pod uses less and one of its containers starts"
                );
                return Ok(());
            }
        }
        self.set(setting)
    }

    fn set(&self, setting: &Setting) -> io::Result<()> {
        let path = setting.group.join(setting.file);
        let (controller, value) = (setting.controller, &setting.value);
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

/// A value for a file of a group.
struct Setting {
    group: PathBuf,
    controller: &'static str,
    file: &'static str,
    value: String,
    /// The value as a number, and the file that says how much of it is used. `None` for what is no limit.
    limit: Option<(u64, &'static str)>,
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
                        (
                            "memory",
                            &["memory.limit_in_bytes", "memory.usage_in_bytes"],
                        ),
                        ("pids", &["pids.max", "pids.current"]),
                    ] {
                        files(self.0.path().join(hierarchy).join(place), names);
                    }
                }
                CgroupVersion::V2 => {
                    let group = self.0.path().join(place);
                    let names = [
                        "cpu.weight",
                        "memory.max",
                        "memory.current",
                        "pids.max",
                        "pids.current",
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
    fn a_limit_never_falls_below_what_a_running_pod_uses() {
        for (version, pids, memory, limit, usage) in [
            (
                CgroupVersion::V1,
                "pids/barge/u",
                "memory/barge/u",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
            (
                CgroupVersion::V2,
                "barge/u",
                "barge/u",
                "memory.max",
                "memory.current",
            ),
        ] {
            let fake = Fake::new(version);
            let write = |path: &str, value: &str| fs::write(fake.0.path().join(path), value);
            let (limit, usage) = (format!("{memory}/{limit}"), format!("{memory}/{usage}"));
            let max = format!("{pids}/pids.max");
            write(&max, "max").unwrap();
            write(&limit, "4294967296").unwrap();
            write(&format!("{pids}/pids.current"), "65\n").unwrap();
            write(&usage, "1073741825\n").unwrap();
            let ensure = || {
                fake.cgroups()
                    .ensure_pod("u", &BURSTABLE, Some(64))
                    .unwrap()
            };
            ensure();
            assert_eq!(fake.read(&max), "max");
            assert_eq!(fake.read(&limit), "4294967296");
            // Once it uses less, the next start of one of its containers sets them.
            write(&format!("{pids}/pids.current"), "64\n").unwrap();
            write(&usage, "1073741824\n").unwrap();
            ensure();
            assert_eq!(fake.read(&max).trim_matches('x'), "64");
            assert!(fake.read(&limit).starts_with("1073741824"));
        }
    }

    #[test]
    fn what_the_kernel_refuses_a_running_pod_stops_no_container() {
        let fake = Fake::new(CgroupVersion::V1);
        for file in ["pids/barge/u/pids.max", "cpu/barge/u/cpu.shares"] {
            let file = fake.0.path().join(file);
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
        }
        let cgroups = fake.cgroups();
        cgroups.ensure_pod("u", &BURSTABLE, Some(64)).unwrap();
        let limit = fake.read("memory/barge/u/memory.limit_in_bytes");
        assert_eq!(limit, "1073741824", "the others are set");
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
