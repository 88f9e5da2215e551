//! What this machine is and how it does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barge_proto::v1::{Condition, NodeAddress, NodeStatus, NodeSystemInfo, Quantity};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, to_time},
    outbox::Outbox,
    pods::unknown::{self, Unknown},
    runtime::Runtime,
};

/// Between looks at the machine.
const PERIOD: Duration = Duration::from_secs(10);
/// Pods a node takes.
const PODS: u32 = 110;
/// Memory, in bytes, that is kept from pods; with less than that available there is memory pressure.
const MEMORY_RESERVE: u64 = 100 << 20;
/// Of the data folder's file system, in percent; below that there is disk pressure.
const DISK_FREE_PERCENT: u64 = 10;

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

/// Looks at the machine again and again; a change goes to the managers.
pub struct NodeWatcher {
    /// Where to look.
    pub sources: Sources,
    /// Asked for its version.
    pub runtime: Arc<dyn Runtime>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Pods that run here and that the managers do not know.
    pub unknown: watch::Receiver<Unknown>,
    /// Where changes go.
    pub outbox: Arc<Outbox>,
}

impl NodeWatcher {
    /// The machine now. `before` gives the times of transitions.
    pub async fn look(&self, before: Option<&NodeStatus>) -> NodeStatus {
        let version = self.runtime.version().await;
        let mut status = read(&self.sources);
        let (ready, message) = match version {
            Ok(version) => {
                if let Some(info) = &mut status.node_info {
                    info.container_runtime_version = version;
                }
                (true, String::new())
            }
            Err(error) => (false, error.message),
        };
        let runtime = condition(
            "RuntimeReady",
            ready,
            "RuntimeAnswers",
            "RuntimeUnavailable",
        );
        status.conditions.push(Condition { message, ..runtime });
        status
            .conditions
            .push(unknown::condition(&self.unknown.borrow()));
        let now = to_time(self.clock.now_ms());
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

    /// Looks until `stop` is cancelled.
    pub async fn run(self, status: watch::Sender<NodeStatus>, stop: CancellationToken) {
        let mut unknown = self.unknown.clone();
        let look = async {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(PERIOD) => {}
                    Ok(()) = unknown.changed() => {}
                }
                let before = status.borrow().clone();
                let now = self.look(Some(&before)).await;
                if now != before {
                    status.send_replace(now.clone());
                    self.outbox.node_status(now);
                }
            }
        };
        stop.run_until_cancelled(look).await;
    }
}

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
        conditions: vec![
            condition(
                "MemoryPressure",
                memory.available < MEMORY_RESERVE,
                "MemoryIsShort",
                "MemoryIsSufficient",
            ),
            condition(
                "DiskPressure",
                disk_is_short(&sources.data_dir),
                "DiskIsShort",
                "DiskIsSufficient",
            ),
        ],
        addresses: vec![
            address("InternalIP", &sources.address),
            address("Hostname", &sources.name),
        ],
        node_info: Some(system_info(sources)),
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

fn disk_is_short(folder: &Path) -> bool {
    nix::sys::statvfs::statvfs(folder).is_ok_and(|disk| {
        let (free, all) = (
            u128::from(disk.blocks_available()),
            u128::from(disk.blocks()),
        );
        free * 100 < all * u128::from(DISK_FREE_PERCENT)
    })
}

fn system_info(sources: &Sources) -> NodeSystemInfo {
    let proc = |path: &str| read_text(&sources.proc.join(path)).trim().to_owned();
    let release = read_text(&sources.etc.join("os-release"));
    let os_image = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned());
    NodeSystemInfo {
        machine_id: read_text(&sources.etc.join("machine-id")).trim().to_owned(),
        boot_id: proc("sys/kernel/random/boot_id"),
        kernel_version: proc("sys/kernel/osrelease"),
        os_image: os_image.unwrap_or_default(),
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
        let status = read(&Sources {
            proc,
            etc,
            data_dir: root.path().to_owned(),
            name: "n1".into(),
            address: "10.0.0.7".into(),
        });
        assert_eq!(status.capacity["cpu"].value, "2");
        assert_eq!(status.capacity["memory"].value, "1048576Ki");
        assert_eq!(status.allocatable["memory"].value, "946176Ki");
        assert_eq!(status.allocatable["pods"].value, "110");
        assert_eq!(status.conditions[0].status, "True");
        let info = status.node_info.unwrap();
        assert_eq!(info.kernel_version, "6.1.0");
        assert_eq!(info.os_image, "Debian 12");
    }
}
