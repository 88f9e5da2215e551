//! Everything that pods could leave behind on a machine.

use std::{collections::BTreeSet, fs, path::Path};

use super::machine::{Machine, run};

/// One line for each thing there is.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Looks everywhere.
    pub fn of(machine: &Machine) -> Self {
        let mut found = BTreeSet::new();
        let mut note = |kind: &str, text: String| {
            found.extend(
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                    .map(|line| format!("{kind} {line}")),
            );
        };
        note("task", machine.ctr(&["task", "ls", "-q"]));
        note("container", machine.ctr(&["container", "ls", "-q"]));
        note("snapshot", machine.ctr(&["snapshot", "ls"]));
        note("lease", machine.ctr(&["leases", "ls", "-q"]));
        note("ingest", machine.ctr(&["content", "active"]));
        note("link", links());
        note("mount", mounts(machine));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let root = hierarchy.unwrap().path().join(machine.name());
            // The group of a class belongs to the node, what is in it to pods.
            let class = root.join("besteffort");
            let folders = folders(&root) + &folders(&class);
            note(
                "cgroup",
                folders.replace(&format!("{}\n", class.display()), ""),
            );
        }
        for folder in [
            "pods",
            "run/io",
            "run/netns",
            "run/ipc",
            "run/uts",
            "run/pid",
            "run/pause",
            "run/host",
            "run/shm",
            "run/volumes",
            "run/programs",
            "cni/addresses/barge",
        ] {
            note("file", files(&machine.path("data").join(folder)));
        }
        Self(found)
    }

    /// What is in only one of the two.
    pub fn beside<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let both = self.0.symmetric_difference(&other.0);
        both.map(String::as_str).collect()
    }
}

fn links() -> String {
    let links = run("ip", &["-o", "link"]);
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    names.map(|name| format!("{name}\n")).collect()
}

fn mounts(machine: &Machine) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places
        .filter(|place| Path::new(place).starts_with(machine.path("")))
        // Those of all volumes in memory and of pipes belong to the node, what is in them to pods.
        .filter(|place| !place.ends_with("/run/volumes") && !place.ends_with("/run/programs"))
        .map(|place| format!("{place}\n"))
        .collect()
}

fn folders(path: &Path) -> String {
    let children = fs::read_dir(path).into_iter().flatten().flatten();
    let folders = children.filter(|child| child.path().is_dir());
    folders
        .map(|child| format!("{}\n", child.path().display()))
        .collect()
}

fn files(path: &Path) -> String {
    let mut names = String::new();
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        // Beside the addresses: the one given out last, and the lock.
        let name = child.file_name().to_string_lossy().into_owned();
        if name != "lock" && !name.starts_with("last_reserved_ip") {
            names.push_str(&format!("{}\n", child.path().display()));
        }
    }
    names
}
