//! Where things lie below the data folder; nothing is anywhere else.

use std::path::{Path, PathBuf};

use crate::files::Reserve;

/// The layout of an agent's data folder, as far as pods and their output go.
///
/// ```text
/// D/pods/<uid>/sandbox.json             what the pod is, written before anything of it exists
///              network.json             the network configuration used and what the plugins answered
///              etc/…                    hosts, hostname, resolv.conf of its containers
///              started/<container>.<attempt>   when it was started: it may have run
///              words/<container>.<attempt>     its last words, which it writes itself
///              logs/<container>/<attempt>.log  its output
///              volumes/<volume>/        its emptyDirs on disk
/// D/cni/                                generated network configuration, addresses given out
/// D/reserve                             room for what has to be saved on a full disk
/// D/carrier.log, D/dns.log              what the carrier and the name server have to say
/// D/run/{netns,ipc,uts,pid}/<uid>       namespaces of pods, pinned by bind mounts
///       host/<uid>                      the machine's network namespace, for a pod that is in it
///       pause/<uid>                     id of the process that holds the pod's process namespace
///       empty/                          all that this process sees of the machine's files
///       secrets/                        Secrets that pods use, in memory
///       volumes/<uid>/files/<volume>/   files of ConfigMaps, Secrets and the pod, in memory
///                     memory/<volume>/  emptyDirs in memory, a file system each
///                     sub/<container>/<n>   what subPath names, pinned by a bind mount
///       shm/<uid>                       file systems in memory, `/dev/shm` of their containers
///       programs/<container id>@<exec id>/…   pipes of programs that are run in containers; a file system in memory
///       exec/                           where earlier agents had them, on disk
///       io/<container id>/…             pipes for output, and the carrier's record of them
///       carrier.{sock,lock}             how control finds the carrier; held while one runs
///       dns/names                       what the name server answers from, in memory
///       dns.lock                        held while a name server runs
/// ```
#[derive(Debug, Clone)]
pub struct Paths {
    data_dir: PathBuf,
}

impl Paths {
    /// The layout below a data folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
        }
    }

    /// The data folder itself.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Room for what has to be saved on a full disk.
    pub fn reserve(&self) -> Reserve {
        Reserve::of(&self.data_dir)
    }

    /// Folder of the profiles of system calls that pods may name.
    pub fn seccomp(&self) -> PathBuf {
        self.data_dir.join("seccomp")
    }

    /// Folder of all pods.
    pub fn pods(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    /// Everything of a pod that outlives a boot.
    pub fn pod(&self, pod_uid: &str) -> PathBuf {
        self.pods().join(pod_uid)
    }

    /// Where a container's log lies; once rotated, its older part has ".1" added.
    pub fn log(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        let folder = self.pod(pod_uid).join("logs").join(container);
        folder.join(format!("{attempt}.log"))
    }

    /// Exists once a container's process may have been started.
    pub fn started(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        let folder = self.pod(pod_uid).join("started");
        folder.join(format!("{container}.{attempt}"))
    }

    /// The file in which a container leaves its last words.
    pub fn last_words(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.words(pod_uid).join(format!("{container}.{attempt}"))
    }

    /// Folder of the last words of a pod's containers.
    pub fn words(&self, pod_uid: &str) -> PathBuf {
        self.pod(pod_uid).join("words")
    }

    /// Folder of the files that a pod's containers have in `/etc`.
    pub fn etc(&self, pod_uid: &str) -> PathBuf {
        self.pod(pod_uid).join("etc")
    }

    /// Folder of a pod's emptyDirs on disk.
    pub fn volumes(&self, pod_uid: &str) -> PathBuf {
        self.pod(pod_uid).join("volumes")
    }

    /// Where the file system is mounted that has all volumes in memory.
    pub fn volumes_in_memory(&self) -> PathBuf {
        self.run().join("volumes")
    }

    /// What of a pod's volumes is in memory.
    pub fn volumes_run(&self, pod_uid: &str) -> PathBuf {
        self.volumes_in_memory().join(pod_uid)
    }

    /// Generated network configuration and given-out addresses.
    pub fn cni(&self) -> PathBuf {
        self.data_dir.join("cni")
    }

    /// What does not survive a boot.
    pub fn run(&self) -> PathBuf {
        self.data_dir.join("run")
    }

    /// The pin of a pod's network namespace.
    pub fn netns(&self, pod_uid: &str) -> PathBuf {
        self.run().join("netns").join(pod_uid)
    }

    /// The pin of the machine's network namespace for a pod that is in it. It has a folder of its own, because what is in [`Self::netns`] is
    /// given to plugins, which remove interfaces in it.
    pub fn host_netns(&self, pod_uid: &str) -> PathBuf {
        self.run().join("host").join(pod_uid)
    }

    /// The pin of the process namespace that a pod's containers share.
    pub fn pid(&self, pod_uid: &str) -> PathBuf {
        self.run().join("pid").join(pod_uid)
    }

    /// The id of the process that holds a pod's process namespace.
    pub fn pause(&self, pod_uid: &str) -> PathBuf {
        self.run().join("pause").join(pod_uid)
    }

    /// An empty folder.
    pub fn empty(&self) -> PathBuf {
        self.run().join("empty")
    }

    /// The pin of a pod's IPC namespace.
    pub fn ipc(&self, pod_uid: &str) -> PathBuf {
        self.run().join("ipc").join(pod_uid)
    }

    /// The pin of a pod's UTS namespace.
    pub fn uts(&self, pod_uid: &str) -> PathBuf {
        self.run().join("uts").join(pod_uid)
    }

    /// Where the file system is mounted that a pod's containers have as `/dev/shm`.
    pub fn shm(&self, pod_uid: &str) -> PathBuf {
        self.run().join("shm").join(pod_uid)
    }

    /// Where the file system is mounted that has the pipes of programs that are run in containers. It is in memory: whoever reads or writes a pipe
    /// notes the time in its file system, and waits there for a disk that hangs.
    pub fn programs(&self) -> PathBuf {
        self.run().join("programs")
    }

    /// Where earlier agents had these pipes, on disk.
    pub fn earlier_programs(&self) -> PathBuf {
        self.run().join("exec")
    }

    /// Folder of all pipes.
    pub fn io(&self) -> PathBuf {
        self.run().join("io")
    }

    /// Folder of a container's pipes.
    pub fn container_io(&self, container_id: &str) -> PathBuf {
        self.io().join(container_id)
    }

    /// The carrier's socket.
    pub fn carrier_socket(&self) -> PathBuf {
        self.run().join("carrier.sock")
    }

    /// Locked by the carrier for as long as it lives.
    pub fn carrier_lock(&self) -> PathBuf {
        self.run().join("carrier.lock")
    }

    /// Folder of what the name server answers from.
    pub fn dns(&self) -> PathBuf {
        self.run().join("dns")
    }

    /// Locked by the name server for as long as it lives.
    pub fn dns_lock(&self) -> PathBuf {
        self.run().join("dns.lock")
    }

    /// What the name server has to say.
    pub fn dns_log(&self) -> PathBuf {
        self.data_dir.join("dns.log")
    }

    /// What the carrier has to say.
    pub fn carrier_log(&self) -> PathBuf {
        self.data_dir.join("carrier.log")
    }
}
