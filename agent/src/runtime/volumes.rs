//! Volumes of pods on this machine: made before a container starts, looked at again before each start, removed with the pod.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{TMPFS_MAGIC, statfs},
};

use super::{
    Paths, RuntimeError, error::reason, flight::Flights, names::check_uid, resources::Machine,
};
use crate::files;

mod atomic;
mod binds;
mod empty;
mod host;
mod measure;
mod pins;
mod remove;
mod subpath;

pub use host::HostPathType;

/// Of the machine's memory, in hundredths, what the files of all pods take at most: no container's limit counts them.
const MOST_OF_MEMORY: u64 = 25;
/// Bytes of the machine's memory for each file, link and folder that there may be. One takes about a KiB of the kernel's memory, also when it is empty.
const MEMORY_PER_NODE: u64 = 32 << 10;
/// What there may be of them on the smallest machine.
const LEAST_NODES: u64 = 32 << 10;

/// Bytes of a pod's files in `/etc` and of its last words that count for nobody: what the agent wrote there itself.
const FREE: u64 = 64 << 10;

/// For so long a start waits for a file system of the node at a time; then its pod says so, and it is tried again.
const ANSWERS: Duration = Duration::from_secs(30);
/// Files of the node that are looked at for one pod at a time.
const AT_A_TIME: usize = 4;

/// The volumes of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodVolumes {
    /// Uid of the pod, whose sandbox exists.
    pub pod_uid: String,
    /// The group that owns them (`fsGroup`), but for those of the node.
    pub group: Option<u32>,
    /// By name, each once.
    pub volumes: BTreeMap<String, VolumeSource>,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// An empty folder on the node's disk.
    Disk,
    /// An empty folder in memory.
    Memory {
        /// The most that it takes, in bytes; `None`: half of the machine's memory.
        size: Option<u64>,
    },
    /// Files that the agent writes, by their paths in the volume. They are in memory.
    Files(VolumeFiles),
    /// A file or folder of the node.
    Host {
        /// Where it is.
        path: PathBuf,
        /// What it has to be.
        kind: HostPathType,
    },
}

/// Files by their relative paths.
pub type VolumeFiles = BTreeMap<String, VolumeFile>;

/// A file that the agent writes.
#[derive(Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Why its content is not known now: it is left as it is.
    pub unknown: Option<String>,
    /// One whose content is not known, and that is not there, is left out. Otherwise the volume cannot be made.
    pub may_be_missing: bool,
}

impl VolumeFile {
    /// A file with this content.
    pub fn new(bytes: Vec<u8>, mode: u32) -> Self {
        Self {
            bytes,
            mode,
            unknown: None,
            may_be_missing: false,
        }
    }

    /// A file that is left as it is, because its content is not known now: for this reason.
    pub fn as_it_is(mode: u32, why: String) -> Self {
        Self {
            unknown: Some(why),
            ..Self::new(Vec::new(), mode)
        }
    }
}

/// Without the content: it may be secret.
impl std::fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {:o}", self.bytes.len(), self.mode)
    }
}

/// Where a container has a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// Name of the volume.
    pub volume: String,
    /// Where the volume is.
    pub place: Place,
    /// Where it is in the container.
    pub path: String,
    /// The part of it that is mounted; empty: all.
    pub sub_path: String,
    /// The container cannot write to it.
    pub read_only: bool,
    /// What the node mounts below it later is seen.
    pub sees_mounts: bool,
}

/// Where a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the pod's folder on disk.
    Disk,
    /// A file system in memory.
    Memory,
    /// Among the files that the agent writes.
    Files,
    /// On the node.
    Host(PathBuf),
}

/// What runc binds into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the node.
    pub source: PathBuf,
    /// In the container.
    pub destination: String,
    /// The container cannot write to it.
    pub read_only: bool,
    /// What the node mounts below it later is seen.
    pub sees_mounts: bool,
}

/// The volumes of this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Volumes {
    paths: Paths,
    /// Looks at files of the node that are under way, by path and type.
    looks: Arc<Flights<Result<(), String>>>,
}

impl Volumes {
    /// Those below a data folder.
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            looks: Arc::default(),
        }
    }

    /// Looks at files of the node that a pod names, some at a time. One that does not answer in time is an error, which names each such of these; the look at it
    /// goes on, and whoever looks at it next waits for that one. The pod's others are not looked at then: it does not take the threads of all pods.
    pub async fn look_at_host_paths(&self, pod: &PodVolumes) -> Result<(), RuntimeError> {
        let looks = pod.volumes.iter().filter_map(|(name, source)| {
            let VolumeSource::Host { path, kind } = source else {
                return None;
            };
            let key = format!("{kind:?} {}", path.display());
            let (path, kind) = (path.clone(), *kind);
            Some(async move {
                let looked = self.look(&key, ANSWERS, move || host::check(&path, kind));
                let looked = looked.await;
                looked.map_err(|error| failed(name, &source.place(), &error))
            })
        });
        let mut looks: Vec<_> = looks.collect();
        while !looks.is_empty() {
            let later = looks.split_off(looks.len().min(AT_A_TIME));
            let some = std::mem::replace(&mut looks, later);
            let looked = join_all(some).await.into_iter();
            let failed = looked.filter_map(Result::err).reduce(|one, other| {
                let message = format!("{}; {}", one.message, other.message);
                RuntimeError { message, ..one }
            });
            if let Some(failed) = failed {
                return Err(failed);
            }
        }
        Ok(())
    }

    /// Each key has one thread at a time, so a file system that never answers takes no more than that of each of its paths.
    async fn look(
        &self,
        key: &str,
        patience: Duration,
        check: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let look = move || async move {
            let looked = files::at_host_paths(check).await;
            looked.map_err(|error| error.to_string())
        };
        match tokio::time::timeout(patience, self.looks.run(key, look)).await {
            Ok(Some(looked)) => looked.map_err(io::Error::other),
            Ok(None) => Err(io::Error::other("the look at it failed")),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "it does not answer for {} s; the container starts when it does",
                    patience.as_secs()
                ),
            )),
        }
    }

    /// Makes what is missing of a pod's own volumes, and replaces files that are not as they should be. What containers wrote stays. To be called once
    /// at a time for each pod. One that cannot be made holds up no other; the first error is told.
    pub async fn ensure(&self, pod: &PodVolumes) -> Result<(), RuntimeError> {
        check_uid(&pod.pod_uid)?;
        let mut all = Ok(());
        for (name, source) in &pod.volumes {
            if let Err(error) = check_name(name) {
                all = all.and(Err(error));
                continue;
            }
            let (this, uid) = (self.clone(), pod.pod_uid.clone());
            let (name, source, group) = (name.clone(), source.clone(), pod.group);
            let place = source.place();
            let ensure = {
                let name = name.clone();
                move || this.ensure_one(&uid, &name, &source, group)
            };
            let ensured = match place {
                Place::Disk => files::blocking(ensure).await,
                _ => files::in_volumes(ensure).await,
            };
            all = all.and(ensured.map_err(|error| failed(&name, &place, &error)));
        }
        all
    }

    /// Blocks.
    fn ensure_one(
        &self,
        uid: &str,
        name: &str,
        source: &VolumeSource,
        group: Option<u32>,
    ) -> io::Result<()> {
        let folder = self.folder(uid, name, &source.place());
        match source {
            VolumeSource::Disk => empty::on_disk(&folder, group),
            VolumeSource::Memory { size } => {
                self.ensure_memory()?;
                empty::in_memory(&folder, *size, group)
            }
            VolumeSource::Files(files) => {
                self.ensure_memory()?;
                atomic::write(&folder, files, group)
            }
            VolumeSource::Host { .. } => Ok(()),
        }
    }

    /// Bytes of an emptyDir on disk; counting ends at more than `enough`.
    pub async fn bytes(&self, uid: &str, name: &str, enough: u64) -> Result<u64, RuntimeError> {
        check_uid(uid)?;
        check_name(name)?;
        let folder = self.folder(uid, name, &Place::Disk);
        let measured = files::counting(move || measure::bytes(&folder, enough)).await;
        measured.map_err(|error| {
            let message = format!("volume {name:?}: cannot count what is in it: {error}");
            RuntimeError::passing(reason::FAILED_MOUNT, message)
        })
    }

    /// Bytes of the files of a pod that the agent made and containers may write to; counting ends at more than `enough`.
    pub async fn own_bytes(&self, uid: &str, enough: u64) -> Result<u64, RuntimeError> {
        check_uid(uid)?;
        let folders = [self.paths.etc(uid), self.paths.words(uid)];
        let measured = files::counting(move || {
            let mut total = 0_u64;
            for folder in folders {
                match measure::bytes(&folder, enough) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    bytes => total = total.saturating_add(bytes?),
                }
            }
            Ok(total.saturating_sub(FREE))
        });
        measured.await.map_err(|error| {
            let message = format!("cannot count what is in the pod's /etc and last words: {error}");
            RuntimeError::passing(reason::FAILED_MOUNT, message)
        })
    }

    /// Removes all volumes of a pod but those of the node. Its containers are gone. That there are none is success.
    pub async fn remove(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        check_uid(pod_uid)?;
        let (run, disk) = (self.paths.volumes_run(pod_uid), self.paths.volumes(pod_uid));
        // Secrets go at once, however long the rest takes.
        let in_memory = files::in_volumes(move || {
            pins::unpin_all(&run.join("sub"))?;
            empty::unmount_all(&run.join("memory"))?;
            remove::tree(&run)
        });
        let removed = match in_memory.await {
            Ok(()) => files::removing(move || remove::tree(&disk)).await,
            failed => failed,
        };
        removed.map_err(|error| {
            let message = format!("cannot remove the volumes of pod {pod_uid}: {error}");
            RuntimeError::passing(reason::KILL_SANDBOX, message)
        })
    }

    /// Uids of pods that have volumes in memory. Blocks.
    pub fn pods_in_memory(&self) -> io::Result<Vec<String>> {
        let folder = match fs::read_dir(self.paths.volumes_in_memory()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            folder => folder?,
        };
        let names = folder.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn folder(&self, uid: &str, name: &str, place: &Place) -> PathBuf {
        match place {
            Place::Disk => self.paths.volumes(uid).join(name),
            Place::Memory => self.paths.volumes_run(uid).join("memory").join(name),
            Place::Files => self.paths.volumes_run(uid).join("files").join(name),
            Place::Host(path) => path.clone(),
        }
    }

    /// Mounts the file system that has all volumes in memory; not after the first time since the machine's boot. Blocks.
    fn ensure_memory(&self) -> io::Result<()> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.paths.volumes_in_memory();
        if statfs(&folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
            return Ok(());
        }
        fs::create_dir_all(&folder)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let (source, kind) = (Some("barge-volumes"), Some("tmpfs"));
        let mounted = |options: &str| mount(source, &folder, kind, flags, Some(options));
        let options = options(Machine::read(Path::new("/proc")).memory);
        // Kernels before 6.3 know no `noswap`.
        mounted(&format!("{options},noswap")).or_else(|_| mounted(&options))?;
        Ok(())
    }
}

impl VolumeSource {
    /// Where such a volume is.
    pub fn place(&self) -> Place {
        match self {
            Self::Disk => Place::Disk,
            Self::Memory { .. } => Place::Memory,
            Self::Files(_) => Place::Files,
            Self::Host { path, .. } => Place::Host(path.clone()),
        }
    }
}

/// Options of the file system of all volumes in memory, on a machine with this memory in bytes.
fn options(memory: u64) -> String {
    let nodes = (memory / MEMORY_PER_NODE).max(LEAST_NODES);
    format!("mode=0700,size={MOST_OF_MEMORY}%,nr_inodes={nodes}")
}

/// Volumes' names become file names.
fn check_name(name: &str) -> Result<(), RuntimeError> {
    super::names::check_container(name).map_err(|_| {
        let message = format!("the volume's name {name:?} is not a DNS label");
        RuntimeError::lasting(reason::FAILED_MOUNT, message)
    })
}

fn failed(name: &str, place: &Place, error: &io::Error) -> RuntimeError {
    let what = match place {
        Place::Host(path) => format!("hostPath {}", path.display()),
        _ => "its files".to_owned(),
    };
    let why = match error.kind() {
        io::ErrorKind::StorageFull if *place == Place::Files => format!(
            "the memory for files of all pods on this node is full ({MOST_OF_MEMORY}% of the machine's memory, and a file, link or folder for each \
             {MEMORY_PER_NODE} bytes of it): end pods that mount many or large ConfigMaps and Secrets"
        ),
        _ => error.to_string(),
    };
    let message = format!("volume {name:?}: {what}: {why}");
    RuntimeError::passing(reason::FAILED_MOUNT, message)
}

/// Whether another file system than the folder's own is at `path`.
fn is_mounted(path: &Path) -> io::Result<bool> {
    super::sandbox::shared::is_mounted(path)
}

#[cfg(test)]
mod tests;
