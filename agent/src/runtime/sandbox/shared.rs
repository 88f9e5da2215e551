//! What the containers of a pod share beside the network: System V and POSIX IPC, the host name, the files in `/dev/shm`, and processes where
//! the pod asks for it. All of it outlives each of them. What is the machine's instead is not made.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::{
    netns::{is_pinned, unpin},
    pause::Pause,
};
use crate::runtime::{Namespaces, Paths};

/// `/dev/shm` is writable for everybody and takes 64 MiB, as in Kubernetes. What lies there counts as memory of the
/// container that wrote it, and of the pod once that container is gone.
const SHM: &str = "mode=1777,size=65536k";

/// Where a pod's shared things are pinned.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The IPC namespace.
    pub ipc: PathBuf,
    /// The UTS namespace, which has the host name.
    pub uts: PathBuf,
    /// A file system in memory, for `/dev/shm`.
    pub shm: PathBuf,
    /// The process namespace.
    pub pause: Pause,
    /// The network namespace that the pod is in, as a process of the agent names it.
    pub netns: PathBuf,
    /// Which of these the pod has.
    pub namespaces: Namespaces,
}

impl Shared {
    /// Those of a pod, whether they are there or not.
    pub fn of(paths: &Paths, pod_uid: &str, namespaces: Namespaces) -> Self {
        Self {
            pause: Pause::of(paths, pod_uid),
            netns: match namespaces.host_network {
                true => "/proc/self/ns/net".into(),
                false => paths.netns(pod_uid),
            },
            namespaces,
            ipc: paths.ipc(pod_uid),
            uts: paths.uts(pod_uid),
            shm: paths.shm(pod_uid),
        }
    }

    /// Whether they were made for this pod. They were not for pods of agents that did not share them yet: each container
    /// of such a pod has its own, until the pod goes.
    pub fn were_made(&self) -> bool {
        // Agents that did not share know no namespaces of the machine.
        self.namespaces.host_ipc || self.ipc.exists()
    }

    /// Makes what is missing; what is there stays. The network namespace has to be pinned. Blocks.
    pub fn ensure(&self, hostname: &str, pause_command: &[OsString]) -> io::Result<()> {
        if self.namespaces.shared_pid {
            self.pause.ensure(pause_command, &self.netns)?;
        }
        if !self.namespaces.host_ipc && !is_mounted(&self.shm)? {
            fs::create_dir_all(&self.shm)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("shm"), &self.shm, Some("tmpfs"), flags, Some(SHM))?;
        }
        let uts = self.namespaces.host_network || is_pinned(&self.uts);
        let ipc = self.namespaces.host_ipc || is_pinned(&self.ipc);
        if uts && ipc {
            return Ok(());
        }
        // A thread that changes its namespaces is good for nothing else afterwards.
        thread::scope(|scope| {
            let maker = thread::Builder::new().name("namespaces".into());
            let made = maker.spawn_scoped(scope, || {
                if !uts {
                    unshare(CloneFlags::CLONE_NEWUTS)?;
                    // The namespace's own, which this thread is in.
                    fs::write("/proc/sys/kernel/hostname", hostname)?;
                    pin(&self.uts, "uts")?;
                }
                if !ipc {
                    unshare(CloneFlags::CLONE_NEWIPC)?;
                    pin(&self.ipc, "ipc")?;
                }
                Ok(())
            })?;
            made.join().unwrap_or_else(|_| {
                Err(io::Error::other(
                    "the thread that makes a pod's namespaces panicked",
                ))
            })
        })
    }

    /// Removes what is there; a namespace goes with its last process. That there is nothing is success. Blocks.
    pub fn remove(&self) -> io::Result<()> {
        self.pause.remove()?;
        unpin(&self.ipc)?;
        unpin(&self.uts)?;
        while is_mounted(&self.shm)? {
            match umount2(&self.shm, MntFlags::MNT_DETACH) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match fs::remove_dir(&self.shm) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Pins this thread's namespace of a kind ("ipc") at `path`.
fn pin(path: &Path, kind: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(path)?;
    let source = Path::new("/proc/thread-self/ns").join(kind);
    let none = None::<&str>;
    mount(Some(&source), path, none, MsFlags::MS_BIND, none)?;
    Ok(())
}

/// Whether another file system than the folder's own is at `path`.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    let device = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.dev())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let Some(here) = device(path)? else {
        return Ok(false);
    };
    let above = path.parent().map(device).transpose()?.flatten();
    Ok(above != Some(here))
}
