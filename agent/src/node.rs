//! What this machine is and how it does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barge_proto::v1::{Condition, NodeAddress, NodeStatus, NodeSystemInfo, Quantity};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, to_time},
    files,
    network::Found,
    outbox::Outbox,
    pods::unknown::{self, Unknown},
    runtime::Runtime,
};

mod disk;

use disk::Disk;

/// Between looks at the machine.
const PERIOD: Duration = Duration::from_secs(10);
/// Pods a node takes.
const PODS: u32 = 110;
/// Memory, in bytes, that is kept from pods; with less than that available there is memory pressure.
const MEMORY_RESERVE: u64 = 100 << 20;
/// For the first answers of the runtime and the disk. Without one the node says nothing of them: the session must not wait.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// For their later answers; then the node says that there is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// The condition that the container runtime answers. A node on which it is false is not ready.
const RUNTIME_READY: &str = "RuntimeReady";
/// Its reason when there is no answer at all.
const RUNTIME_UNRESPONSIVE: &str = "ContainerRuntimeUnresponsive";
/// The condition that no more may be put on this disk.
const DISK_PRESSURE: &str = "DiskPressure";

/// Where to look.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `/proc`, but in tests.
    pub proc: PathBuf,
    /// `/etc`, but in tests.
    pub etc: PathBuf,
    /// On the file system that images and logs fill.
    pub data_dir: PathBuf,
    /// The node's name.
    pub name: String,
    /// The node's address.
    pub address: String,
}

/// What a watcher needs.
pub struct Options {
    /// Where to look.
    pub sources: Sources,
    /// Asked for its version.
    pub runtime: Arc<dyn Runtime>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Pods that run here and that the managers do not know.
    pub unknown: watch::Receiver<Unknown>,
    /// What is told of the pod network.
    pub network: watch::Receiver<Found>,
    /// Where changes go.
    pub outbox: Arc<Outbox>,
}

/// Looks at the machine again and again; a change goes to the managers.
pub struct NodeWatcher {
    options: Options,
    /// Taken while a look at the disk has not ended.
    looking: Arc<Semaphore>,
}

impl NodeWatcher {
    /// Looks when it is asked to.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            looking: Arc::new(Semaphore::new(1)),
        }
    }

    /// The machine now. `before` gives the times of transitions, and what a part says that does not answer.
    pub async fn look(&self, before: Option<&NodeStatus>) -> NodeStatus {
        let sources = &self.options.sources;
        let mut status = read(sources);
        let was_short = before.is_some_and(|before| has(before, DISK_PRESSURE));
        let patience = before.map_or(FIRST_PATIENCE, |_| PATIENCE);
        let (version, disk) = tokio::join!(
            timeout(patience, self.options.runtime.version()),
            timeout(patience, self.look_at_disk(was_short)),
        );
        let disk = disk.ok().flatten();
        let mut info = system_info(sources);
        let known = before.and_then(|before| before.node_info.as_ref());
        if let Some(known) = known {
            info.container_runtime_version
                .clone_from(&known.container_runtime_version);
            (info.machine_id, info.os_image) = (known.machine_id.clone(), known.os_image.clone());
        }
        if let Some(disk) = &disk {
            (info.machine_id, info.os_image) = (disk.machine_id.clone(), disk.os_image.clone());
        }
        let total = disk.as_ref().map(|disk| disk.total);
        disk::put_resources(&mut status, total, before);
        let trouble = match version {
            Ok(Ok(version)) => {
                info.container_runtime_version = version;
                Some(("", String::new()))
            }
            Ok(Err(error)) => Some(("RuntimeUnavailable", error.message)),
            Err(_) if before.is_none() => None,
            Err(_) => Some((RUNTIME_UNRESPONSIVE, unresponsive())),
        };
        status.node_info = Some(info);
        if disk.is_some() || before.is_some() {
            status.conditions.push(disk::condition(disk, sources));
        }
        if let Some((reason, message)) = trouble {
            let runtime = condition(RUNTIME_READY, reason.is_empty(), "RuntimeAnswers", reason);
            status.conditions.push(Condition { message, ..runtime });
        }
        status
            .conditions
            .push(unknown::condition(&self.options.unknown.borrow()));
        let network = self.options.network.borrow().conditions.clone();
        status.conditions.extend(network);
        let now = to_time(self.options.clock.now_ms());
        for condition in &mut status.conditions {
            let same = before
                .and_then(|before| {
                    let mut all = before.conditions.iter();
                    all.find(|c| c.r#type == condition.r#type)
                })
                .filter(|before| before.status == condition.status);
            condition.last_transition_time =
                Some(same.and_then(|c| c.last_transition_time).unwrap_or(now));
        }
        status
    }

    /// `None` while an earlier look has not ended. One look at a time: a disk that hangs gets no more of them.
    async fn look_at_disk(&self, was_short: bool) -> Option<Disk> {
        let turn = self.looking.clone().try_acquire_owned().ok()?;
        let sources = self.options.sources.clone();
        let look = files::blocking(move || {
            let disk = Disk::look(&sources, was_short);
            drop(turn);
            Ok(disk)
        });
        look.await.ok()
    }

    /// Looks until `stop` is cancelled.
    pub async fn run(self, status: watch::Sender<NodeStatus>, stop: CancellationToken) {
        let mut unknown = self.options.unknown.clone();
        let mut network = self.options.network.clone();
        let mut pause = match is_whole(&status.borrow()) {
            true => PERIOD,
            false => Duration::ZERO,
        };
        let look = async {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    Ok(()) = unknown.changed() => {}
                    Ok(()) = network.changed() => {}
                }
                pause = PERIOD;
                let before = status.borrow().clone();
                let now = self.look(Some(&before)).await;
                if now != before {
                    status.send_replace(now.clone());
                    self.options.outbox.node_status(now);
                }
            }
        };
        stop.run_until_cancelled(look).await;
    }
}

/// Whether the first look had all its answers.
fn is_whole(status: &NodeStatus) -> bool {
    [DISK_PRESSURE, RUNTIME_READY]
        .iter()
        .all(|kind| status.conditions.iter().any(|c| c.r#type == **kind))
}

fn has(status: &NodeStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.r#type == kind && condition.status == "True")
}

fn unresponsive() -> String {
    let seconds = PATIENCE.as_secs();
    format!(
        "the container runtime did not answer within {seconds} s: containers go on running, and none is started, stopped or looked after"
    )
}

/// What needs neither the disk nor the runtime: it is read from memory.
fn read(sources: &Sources) -> NodeStatus {
    let memory = memory(&sources.proc);
    let cpus = cpus(&sources.proc);
    let quantity = |value: String| Quantity { value };
    let resources = |bytes: u64| {
        BTreeMap::from([
            ("cpu".to_owned(), quantity(cpus.to_string())),
            ("memory".to_owned(), quantity(format!("{}Ki", bytes / 1024))),
            ("pods".to_owned(), quantity(PODS.to_string())),
        ])
    };
    let address = |kind: &str, address: &str| NodeAddress {
        r#type: kind.to_owned(),
        address: address.to_owned(),
    };
    NodeStatus {
        capacity: resources(memory.total),
        allocatable: resources(memory.total.saturating_sub(MEMORY_RESERVE)),
        conditions: vec![condition(
            "MemoryPressure",
            memory.available < MEMORY_RESERVE,
            "MemoryIsShort",
            "MemoryIsSufficient",
        )],
        addresses: vec![
            address("InternalIP", &sources.address),
            address("Hostname", &sources.name),
        ],
        ..NodeStatus::default()
    }
}

fn condition(kind: &str, holds: bool, yes: &str, no: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: if holds { yes } else { no }.to_owned(),
        ..Default::default()
    }
}

struct Memory {
    total: u64,
    available: u64,
}

fn memory(proc: &Path) -> Memory {
    let text = read_text(&proc.join("meminfo"));
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    let total = value("MemTotal:").unwrap_or(0);
    Memory {
        total,
        available: value("MemAvailable:").unwrap_or(total),
    }
}

fn cpus(proc: &Path) -> usize {
    let text = read_text(&proc.join("stat"));
    let lines = text.lines();
    lines
        .filter(|line| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .count()
        .max(1)
}

fn system_info(sources: &Sources) -> NodeSystemInfo {
    let proc = |path: &str| read_text(&sources.proc.join(path)).trim().to_owned();
    NodeSystemInfo {
        boot_id: proc("sys/kernel/random/boot_id"),
        kernel_version: proc("sys/kernel/osrelease"),
        kubelet_version: format!("v{}", env!("CARGO_PKG_VERSION")),
        operating_system: std::env::consts::OS.to_owned(),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        ..Default::default()
    }
}

/// What is not there is empty: a machine without a machine id is still a machine.
fn read_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The machine's host name.
pub fn host_name() -> String {
    read_text(Path::new("/proc/sys/kernel/hostname"))
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let root = tempfile::tempdir().unwrap();
        let (proc, etc) = (root.path().join("proc"), root.path().join("etc"));
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
        fs::write(proc.join("stat"), "cpu  1 2\ncpu0 1\ncpu1 1\nintr 3\n").unwrap();
        let meminfo = "MemTotal:       1048576 kB\nMemFree: 1 kB\nMemAvailable:     51200 kB\n";
        fs::write(proc.join("meminfo"), meminfo).unwrap();
        fs::write(proc.join("sys/kernel/osrelease"), "6.1.0\n").unwrap();
        fs::write(etc.join("os-release"), "ID=x\nPRETTY_NAME=\"Debian 12\"\n").unwrap();
        let sources = Sources {
            proc,
            etc,
            data_dir: root.path().to_owned(),
            name: "n1".into(),
            address: "10.0.0.7".into(),
        };
        let status = read(&sources);
        assert_eq!(status.capacity["cpu"].value, "2");
        assert_eq!(status.capacity["memory"].value, "1048576Ki");
        assert_eq!(status.allocatable["memory"].value, "946176Ki");
        assert_eq!(status.allocatable["pods"].value, "110");
        assert_eq!(status.conditions[0].status, "True");
        assert_eq!(system_info(&sources).kernel_version, "6.1.0");
        assert_eq!(Disk::look(&sources, false).os_image, "Debian 12");
    }
}
