//! Links that are cut, or lose packets: from machines to managers, and between managers, which are processes of this machine. Every value
//! gives back what it took when it is dropped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Cluster,
    cluster::{Agent, Process},
    managers::run,
};

/// The table of the rules, on a machine and here.
const TABLE: &str = "inet barge_faults";
/// What the packets of the manager are known by.
const CLASS: u32 = 0x0010_0001;

/// Machines that reach some managers no more; these and the others reach each other.
#[derive(Debug)]
#[must_use]
pub struct Unreachable(Vec<Agent>);

impl Unreachable {
    /// Cuts the machines off from the managers.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn new<'a>(agents: Vec<Agent>, managers: impl IntoIterator<Item = &'a Process>) -> Self {
        let ports: Vec<_> = managers.into_iter().map(port).collect();
        let ports = ports.join(", ");
        let cut = Self(agents);
        for agent in &cut.0 {
            agent.inside(&["nft", &chain(&[format!("tcp dport {{ {ports} }} drop")])]);
        }
        cut
    }
}

impl Drop for Unreachable {
    fn drop(&mut self) {
        for agent in &self.0 {
            let netns = format!("--net={}", agent.netns.display());
            let _ = Command::new("nsenter")
                .args([&netns, "nft", &format!("delete table {TABLE}")])
                .status();
        }
    }
}

/// A manager whose packets to and from the other managers get lost. Agents reach it, and it reaches them.
#[derive(Debug)]
#[must_use]
pub struct Parted {
    pid: u32,
    groups: PathBuf,
}

impl Parted {
    /// Loses so many percent of them.
    ///
    /// # Panics
    /// When the kernel cannot do that.
    pub fn new(cluster: &Cluster, manager: &Process, percent: u8) -> Self {
        let parted = Self {
            pid: manager.pid,
            groups: cluster.dir().join("net_cls"),
        };
        // Managers share an address, so the packets of one are known by its control group.
        let group = parted.group();
        fs::create_dir_all(&parted.groups).expect("make a folder");
        let at = parted.groups.display().to_string();
        run(&["mount", "-t", "cgroup", "-o", "net_cls", "barge", &at]);
        fs::create_dir(&group).expect("make a control group");
        write(&group.join("net_cls.classid"), CLASS);
        write(&group.join("cgroup.procs"), parted.pid);
        let some = match percent {
            100.. => String::new(),
            _ => format!("numgen random mod 100 < {percent}"),
        };
        let lost = format!("oifname lo {some}");
        let rules = [
            format!("{lost} meta cgroup {CLASS} drop"),
            format!("{lost} tcp dport {} drop", port(manager)),
        ];
        run(&["nft", &chain(&rules)]);
        parted
    }

    fn group(&self) -> PathBuf {
        self.groups.join("barge-parted")
    }
}

impl Drop for Parted {
    fn drop(&mut self) {
        let delete = format!("delete table {TABLE}");
        let _ = Command::new("nft").arg(delete).status();
        // One that was killed meanwhile has left the group.
        let _ = fs::write(self.groups.join("cgroup.procs"), self.pid.to_string());
        let _ = fs::remove_dir(self.group());
        let _ = Command::new("umount").arg(&self.groups).status();
    }
}

fn chain(rules: &[String]) -> String {
    let rules = rules.join("; ");
    format!("table {TABLE} {{ chain lost {{ type filter hook output priority -300; {rules}; }}; }}")
}

fn port(manager: &Process) -> &str {
    let (_, port) = manager.address.rsplit_once(':').expect("host:port");
    port
}

fn write(file: &Path, value: u32) {
    fs::write(file, value.to_string())
        .unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
}
