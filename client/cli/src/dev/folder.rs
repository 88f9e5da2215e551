//! The record of everything that `up` makes. `up` writes it to disk before it makes each thing, so `down` finds all of it after any crash.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use barge_client::files;
use serde::{Deserialize, Serialize};

use super::process::Process;

/// How long another `barge dev` on the same folder may take to end.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// Folders outside of the cluster's own that starting containers makes; those that were not there go with the cluster.
const SHARED: &[&str] = &[
    "/run/containerd/runc",
    "/run/containerd/fifo",
    "/run/containerd/s",
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/containerd",
];

/// The record of a cluster, `dev.toml` in its folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// Part of the names of everything on the host: eight hexadecimal digits of the folder's path.
    pub id: String,
    /// The first three bytes of the nodes' network ("10.213.0").
    pub network: String,
    pub managers: u8,
    pub agents: u8,
    /// The registry that stands in for docker.io.
    pub mirror: Option<String>,
    /// Whether that registry is ours.
    pub registry: bool,
    /// Of the certificates, when it is not the usual one.
    #[serde(default)]
    pub certificate_lifetime_seconds: Option<u64>,
    /// Whether managers answer GET /metrics.
    #[serde(default)]
    pub metrics: bool,
    /// Shared folders that were not there before.
    pub came: Vec<PathBuf>,
    #[serde(default)]
    pub processes: Vec<Process>,
}

/// A cluster's folder, locked against another `barge dev`.
pub struct Folder {
    pub dir: PathBuf,
    _lock: File,
}

impl Folder {
    /// Locks the folder, making it where there is none.
    pub fn open(dir: &Path) -> Result<Self> {
        if dir.as_os_str().len() > 60 {
            bail!(
                "{} is too long: paths of sockets below it would pass the system's limit; choose a shorter --dir",
                dir.display()
            );
        }
        files::create_private_dir(dir).with_context(|| format!("make {}", dir.display()))?;
        let path = dir.join("lock");
        let lock = File::create(&path).with_context(|| format!("open {}", path.display()))?;
        let begin = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        dir: dir.to_owned(),
                        _lock: lock,
                    });
                }
                // One that was just killed holds it until it is gone.
                Err(TryLockError::WouldBlock) if begin.elapsed() < PATIENCE => thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => {
                    bail!("another `barge dev` works on {}", dir.display())
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("lock {}", path.display()));
                }
            }
        }
    }

    /// The record, if there is one.
    pub fn load(dir: &Path) -> Result<Option<Cluster>> {
        let path = dir.join("dev.toml");
        let text =
            files::read_optional(&path).with_context(|| format!("read {}", path.display()))?;
        text.map(|text| toml::from_str(&text).with_context(|| format!("read {}", path.display())))
            .transpose()
    }

    /// Replaces the record.
    pub fn save(&self, cluster: &Cluster) -> Result<()> {
        let path = self.dir.join("dev.toml");
        files::write_private(&path, toml::to_string(cluster)?.as_bytes())
            .with_context(|| format!("write {}", path.display()))
    }

    /// Removes what a cluster keeps in its folder, the record last, and the folder when nothing else is in it.
    pub fn clear(self) -> Result<()> {
        for name in ["managers", "agents", "registry", "logs"] {
            remove(&self.dir.join(name))?;
        }
        for name in ["dev.toml", "lock"] {
            match fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        // It stays when it holds something that is not ours.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }
}

impl Cluster {
    /// A new record for a folder.
    pub fn new(dir: &Path, network: String, managers: u8, agents: u8) -> Self {
        let came = SHARED
            .iter()
            .map(PathBuf::from)
            .filter(|path| !path.exists())
            .collect();
        let processes = Vec::new();
        Self {
            id: id(dir),
            network,
            managers,
            agents,
            mirror: None,
            registry: false,
            certificate_lifetime_seconds: None,
            metrics: false,
            came,
            processes,
        }
    }

    /// The host's address on the nodes' network.
    pub fn gateway(&self) -> String {
        format!("{}.1", self.network)
    }
    /// Where a manager (from 1) listens.
    pub fn manager(&self, number: u8) -> String {
        format!("{}:{}", self.gateway(), 7100 + u16::from(number))
    }
    /// Where a manager (from 1) answers GET /metrics, if it does.
    pub fn manager_metrics(&self, number: u8) -> String {
        format!("{}:{}", self.gateway(), 7200 + u16::from(number))
    }
    /// The address of a node (from 1).
    pub fn node(&self, number: u8) -> String {
        format!("{}.{}", self.network, 10 + u16::from(number))
    }
    /// Where the registry listens.
    pub fn registry_address(&self) -> String {
        format!("{}:5000", self.gateway())
    }
    /// The bridge of the nodes' network.
    pub fn bridge(&self) -> String {
        format!("bd{}", self.id)
    }
    /// The host's end of a node's cable.
    pub fn link(&self, number: u8) -> String {
        format!("bv{}-{number}", self.id)
    }
    /// The containerd namespace of a node. runc keeps its state by this name, whichever containerd asked.
    pub fn namespace(&self, number: u8) -> String {
        format!("barge-{}-{number}", self.id)
    }
    /// The cgroup that holds a node's pods.
    pub fn cgroup(&self, number: u8) -> String {
        format!("barge-{}-{number}", self.id)
    }
}

/// The paths of one node.
pub struct NodePaths {
    pub dir: PathBuf,
}

impl NodePaths {
    pub fn new(dir: &Path, number: u8) -> Self {
        Self {
            dir: dir.join("agents").join(number.to_string()),
        }
    }
    /// Holds its network namespace.
    pub fn netns(&self) -> PathBuf {
        self.dir.join("netns")
    }
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

/// Where a manager (from 1) keeps its data.
pub fn manager_dir(dir: &Path, number: u8) -> PathBuf {
    dir.join("managers").join(number.to_string())
}

/// FNV-1a of the path (http://www.isthe.com/chongo/tech/comp/fnv/): short and the same in every version of this program.
fn id(dir: &Path) -> String {
    let hash = dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    format!("{hash:08x}")
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_names_of_their_own_that_fit() {
        let one = Cluster::new(Path::new("/tmp/one"), "10.213.0".into(), 3, 100);
        let two = Cluster::new(Path::new("/tmp/two"), "10.213.1".into(), 3, 100);
        assert_ne!(one.id, two.id);
        assert_eq!(id(Path::new("/tmp/one")), one.id);
        // IFNAMSIZ is 16 with the zero at the end.
        assert!(one.link(100).len() < 16 && one.bridge().len() < 16);
        assert_eq!(
            (one.manager(2), one.node(3)),
            ("10.213.0.1:7102".into(), "10.213.0.13".into())
        );
    }

    #[test]
    fn the_record_comes_back_and_the_folder_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dev");
        assert!(Folder::load(&path).unwrap().is_none());
        let folder = Folder::open(&path).unwrap();
        assert!(Folder::open(&path).is_err());
        let mut cluster = Cluster::new(&path, "10.213.0".into(), 1, 1);
        cluster.processes.push(Process {
            name: "manager-1".into(),
            pid: 1,
            start: 7,
        });
        folder.save(&cluster).unwrap();
        let loaded = Folder::load(&path).unwrap().unwrap();
        assert_eq!(loaded.processes.len(), 1);
        folder.clear().unwrap();
        assert!(!path.exists());
    }
}
