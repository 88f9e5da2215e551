//! What is on this machine that a cluster could leave behind, to compare before and after.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Places where containers, networks and clusters leave files.
const FOLDERS: &[&str] = &[
    "/run",
    "/etc/cni",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/barge",
    "/opt/cni",
];

/// Names of programs that a cluster starts.
const PROGRAMS: &[&str] = &[
    "barge",
    "containerd",
    "runc",
    "docker-registry",
    "nginx",
    "busybox",
];

/// One look at the machine: each fact is one line.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    facts: BTreeSet<String>,
}

impl Machine {
    /// Looks at processes, mounts, namespaces, links, routes, nftables, cgroups, switches and files.
    #[must_use]
    pub fn look() -> Self {
        let mut facts = BTreeSet::new();
        processes(&mut facts);
        mounts(&mut facts);
        command(&mut facts, "link", &["ip", "-o", "link"], |line| {
            line.split(' ')
                .nth(1)
                .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        });
        command(
            &mut facts,
            "address",
            &["ip", "-o", "-4", "address"],
            |line| {
                Some(
                    line.split_whitespace()
                        .take(4)
                        .skip(1)
                        .collect::<Vec<_>>()
                        .join(" "),
                )
            },
        );
        command(&mut facts, "route", &["ip", "route"], |line| {
            Some(line.to_owned())
        });
        command(&mut facts, "rule", &["nft", "list", "ruleset"], |line| {
            Some(line.to_owned())
        });
        // Others make and remove control groups all the time; ours are below one that is called so.
        let ours = |path: &Path| path.is_dir() && path.to_string_lossy().contains("barge");
        folders(&mut facts, "cgroup", Path::new("/sys/fs/cgroup"), &ours);
        for folder in FOLDERS {
            folders(&mut facts, "file", Path::new(folder), &|_| true);
        }
        for switch in ["ip_forward", "conf/all/forwarding"] {
            let value =
                fs::read_to_string(format!("/proc/sys/net/ipv4/{switch}")).unwrap_or_default();
            facts.insert(format!("switch {switch} = {}", value.trim()));
        }
        Self { facts }
    }

    /// What is there now and was not before, and the other way round; empty when nothing changed.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let came = self
            .facts
            .difference(&before.facts)
            .map(|fact| format!("+ {fact}"));
        let went = before
            .facts
            .difference(&self.facts)
            .map(|fact| format!("- {fact}"));
        came.chain(went).collect()
    }
}

/// Processes of the kinds that a cluster starts, and all that live in another network namespace than ours.
fn processes(facts: &mut BTreeSet<String>) {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit())
        {
            continue;
        }
        let Ok(name) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        // Threads of the kernel, and processes that have ended and wait for their parent to look.
        if words.is_empty() {
            continue;
        }
        let elsewhere = fs::read_link(path.join("ns/net"))
            .ok()
            .is_some_and(|net| Some(net) != own);
        let ours = PROGRAMS.iter().any(|program| name.starts_with(program));
        if elsewhere || ours {
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            facts.insert(format!(
                "process {} {}",
                entry.file_name().to_string_lossy(),
                words.trim()
            ));
        }
    }
}

fn mounts(facts: &mut BTreeSet<String>) {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in table.lines() {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        facts.insert(format!("mount {kind} on {point}"));
    }
}

fn command(
    facts: &mut BTreeSet<String>,
    label: &str,
    words: &[&str],
    pick: impl Fn(&str) -> Option<String>,
) {
    let output = match Command::new(words[0]).args(&words[1..]).output() {
        Ok(output) => output,
        Err(error) => {
            facts.insert(format!("{label}: {words:?} failed: {error}"));
            return;
        }
    };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(fact) = pick(line) {
            facts.insert(format!("{label} {}", fact.trim()));
        }
    }
}

fn folders(facts: &mut BTreeSet<String>, label: &str, at: &Path, keep: &dyn Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(at) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if keep(&path) {
            facts.insert(format!("{label} {}", path.display()));
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders(facts, label, &path, keep);
        }
    }
}
