//! What the agent asks of a container runtime. Every step is safe to repeat: "already so" is success.

use std::{collections::BTreeMap, io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::{net::TcpStream, sync::watch};
use tokio_util::sync::CancellationToken;

mod cgroup;
mod client;
mod cni;
mod container;
pub mod containerd;
mod error;
mod events;
mod flight;
mod images;
mod keyring;
pub mod names;
mod network;
mod options;
mod paths;
mod program;
mod resources;
mod sandbox;
mod sandbox_spec;
mod secrets;
mod security;
mod spec;
mod traffic;
mod volumes;

pub use error::reason::{FAILED_MOUNT, PROGRAM_NOT_EXECUTABLE, PROGRAM_NOT_FOUND, START_ERROR};
pub use images::check_registry_config;
pub use keyring::{Keyring, docker_config, dockercfg};
pub use network::{
    VXLAN_OVERHEAD,
    links::{PREFIX as POD_LINKS, PROTOCOL as POD_ROUTES, name as pod_link},
    older::BRIDGE,
    own_network,
};
#[cfg(test)]
pub use network::{links::attach as attach_pod, older::care as care_for_bridge};
pub use options::{ConfigurationError, DEFAULT_POD_PIDS, Options, Registry, certificates};
pub use paths::Paths;
pub use program::{Control, Program, Running, TerminalSize};
pub use resources::{PodResources, QosClass};
pub use sandbox::ports::{Held, HostPort, HostPorts};
pub use sandbox_spec::{ClusterNames, Namespaces, PodNames, SandboxSpec};
pub use secrets::{PullSecret, PullSecrets};
pub use security::{Seccomp, Security};
pub use volumes::{
    HostPathType, Place, PodVolumes, VolumeFile, VolumeFiles, VolumeMount, VolumeSource,
};

/// A container runtime, as far as pods need one. Steps may be repeated after any failure or death.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Tidies up after an agent that died: to be called once, before anything is pulled. Containers are left alone.
    async fn recover(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// Prepares the machine for pods of this range ("10.244.1.0/24"). Needed before the first sandbox, and safe to
    /// repeat; a runtime without a network of its own has nothing to do.
    async fn ensure_network(&self, _pod_cidr: &str) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// Makes again what others removed of the interfaces of pods and of the routes to them. Answers which pods had to be mended, for people.
    async fn mend_network(&self) -> Result<Vec<String>, RuntimeError> {
        Ok(Vec::new())
    }
    /// The image, if it is here whole and a pod with these secrets may use it. Asks no registry and waits for no pull. A runtime that cannot tell
    /// answers `None`.
    async fn find_image(
        &self,
        _image: &str,
        _secrets: &PullSecrets,
    ) -> Result<Option<Image>, RuntimeError> {
        Ok(None)
    }
    /// Makes the image present for a pod with these secrets and answers what it is. Concurrent pulls of one image with the same credentials share the work,
    /// which is given up when the last of their futures is dropped.
    async fn pull(
        &self,
        image: &str,
        policy: PullPolicy,
        secrets: &PullSecrets,
    ) -> Result<Image, RuntimeError>;
    /// The images that pulls brought here, and how full their file system is. A runtime that cannot tell answers nothing, and nothing is collected.
    async fn images(&self) -> Result<ImageStore, RuntimeError> {
        Ok(ImageStore::default())
    }
    /// Removes an image by its name, and all of it that nothing else needs. Answers `false` when it stays, because it is being pulled.
    async fn remove_image(&self, _name: &str) -> Result<bool, RuntimeError> {
        Ok(false)
    }
    /// Makes the pod's network namespace, attached to the network. A sandbox that is there is answered as it is.
    async fn create_sandbox(&self, sandbox: &SandboxSpec) -> Result<Sandbox, RuntimeError>;
    /// Removes the volumes of a pod whose containers are gone, but those of the node. May take as long as containers' files are many, so it is to be done before
    /// the removal or release of the sandbox, which then finds none.
    async fn remove_volumes(&self, _pod_uid: &str) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// Detaches and removes the pod's network namespace and whatever else is left of the pod on this machine.
    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError>;
    /// Gives back the addresses and the network namespace of a pod whose containers are gone for good. What the pod is and what it wrote
    /// stays; its sandbox is then listed without addresses.
    async fn release_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError>;
    /// Looks whether files of the node that volumes name are what they have to be, and makes those that may be made. A file system that does not answer
    /// is an error after half a minute; giving up before that leaves nothing half done.
    async fn look_at_host_paths(&self, _volumes: &PodVolumes) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// Pins the parts of files of the node that a container mounts by `subPath`, for its start that follows. It may take as long as
    /// [`Runtime::look_at_host_paths`].
    async fn pin_host_paths(&self, _container: &ContainerSpec) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// Makes the volumes of a pod as they should be, but for those of the node; what containers wrote in them stays. Needed before a container that mounts some, once at a time
    /// for each pod. Its sandbox exists. Files that containers read are replaced all at once. They go with the sandbox, also when that is only released.
    async fn ensure_volumes(&self, _volumes: &PodVolumes) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// How many bytes of the node's disk an emptyDir takes. Counting ends at more than `enough`.
    async fn volume_bytes(
        &self,
        _pod_uid: &str,
        _volume: &str,
        _enough: u64,
    ) -> Result<u64, RuntimeError> {
        Ok(0)
    }
    /// How many bytes of the node's disk the files take that the agent made for the pod and its containers may write to: those in `/etc`, and last
    /// words. Counting ends at more than `enough`.
    async fn own_bytes(&self, _pod_uid: &str, _enough: u64) -> Result<u64, RuntimeError> {
        Ok(0)
    }
    /// How many bytes of the node's disk a container takes with its own file system and its log.
    async fn container_bytes(&self, _container: &Container) -> Result<u64, RuntimeError> {
        Ok(0)
    }
    /// Creates and starts a container, or answers the one of that id that is there (running or exited).
    async fn start_container(&self, container: &ContainerSpec) -> Result<Container, RuntimeError>;
    /// TERM (or the image's signal), then KILL after the grace; returns once the process is gone.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    /// Removes a stopped container: task, container, snapshot. Its log stays until the sandbox goes.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Runs a program in a running container and waits for its end. What runs after `timeout` is killed.
    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, RuntimeError>;
    /// Begins to run a program in a running container, for somebody who talks with it. Once `gone` is cancelled, or this is dropped, nobody waits for the
    /// program: it is not begun, or ended at once when containerd was told to begin it before.
    async fn attend(
        &self,
        id: &str,
        program: &Program,
        gone: &CancellationToken,
    ) -> Result<Running, RuntimeError>;
    /// Connects to a port on the loopback of a pod's network namespace. Takes as long as the kernel tries; NotFound when the pod has no network.
    async fn connect(&self, pod_uid: &str, port: u16) -> io::Result<TcpStream>;
    /// What a container that ended left behind as its last words; empty when that is nothing.
    async fn last_words(
        &self,
        _container: &Container,
        _wanted: LastWords,
    ) -> Result<String, RuntimeError> {
        Ok(String::new())
    }
    /// All sandboxes and containers that this agent made, whoever made them before it.
    async fn list(&self) -> Result<Inventory, RuntimeError>;
    /// What there is of one pod, like [`Runtime::list`].
    async fn find_pod(&self, pod_uid: &str) -> Result<Inventory, RuntimeError> {
        let mut found = self.list().await?;
        found.sandboxes.retain(|it| it.pod_uid == pod_uid);
        found.containers.retain(|it| it.pod_uid == pod_uid);
        Ok(found)
    }
    /// Which ports of the machine its pods have; `None` until that is known. A runtime without a network of its own has none.
    fn host_ports(&self) -> watch::Receiver<Option<Arc<HostPorts>>> {
        watch::channel(Some(Arc::default())).1
    }
    /// What happens to containers. `Resync` comes first and whenever something may have been missed: list again.
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;
    /// Where a container's log lies, for readers.
    fn log_path(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf;
    /// Opens the counters of what a running container takes. Blocks. A runtime that does not count says so.
    fn meter(&self, _pod_uid: &str, _id: &str) -> io::Result<Box<dyn Meter>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// What the interfaces of pods have carried since they were made, those in the machine's network apart; by the pods' uids. Blocks. What cannot be read is not in it.
    fn traffic(&self, _pod_uids: &[String]) -> io::Result<BTreeMap<String, Traffic>> {
        Ok(BTreeMap::new())
    }
    /// Waits until all that a container wrote which has ended is in its log. An error when that is not so within seconds.
    async fn settle_log(&self, _id: &str) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// Name and version ("containerd://1.6.20").
    async fn version(&self) -> Result<String, RuntimeError>;
}

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Resolve the tag at every start.
    Always,
    /// Only when the image is not here.
    IfNotPresent,
    /// Never; the image must be here.
    Never,
}

/// An image that is present.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name as asked, normalised ("docker.io/library/nginx:latest").
    pub name: String,
    /// Name and digest ("docker.io/library/nginx@sha256:…").
    pub id: String,
}

/// What images there are and what room they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageStore {
    /// The file system of the images; `None` when it is not known.
    pub disk: Option<Filled>,
    /// Images that pulls brought here. What was imported by hand is not among them: no registry would give it back.
    pub images: Vec<StoredImage>,
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Bytes in use, or kept for root.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
}

/// An image that a pull brought here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Its complete name ("docker.io/library/nginx:latest").
    pub name: String,
    /// When it was pulled last, in milliseconds since the Unix epoch.
    pub pulled_at_ms: i64,
}

/// The complete name of an image ("nginx" is "docker.io/library/nginx:latest"); `None` for what is no name.
pub fn complete_name(image: &str) -> Option<String> {
    images::complete_name(image)
}

/// A sandbox that exists.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Addresses of the pod, the primary one first. Empty: it is half made or half gone (the machine was booted
    /// since); `create_sandbox` makes it whole and `remove_sandbox` removes it.
    pub ips: Vec<IpAddr>,
    /// Why what was noted of it cannot be read, in one sentence; `ips` is empty then. What runs in it goes on running.
    pub damaged: Option<String>,
}

/// What a container needs.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Uid of the pod, whose sandbox exists.
    pub pod_uid: String,
    /// Namespace and name of the pod, for labels.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// The host name; empty: the pod's name. Of no effect in the machine's network.
    pub hostname: String,
    /// Which namespaces are not its own.
    pub namespaces: Namespaces,
    /// Name in the pod.
    pub name: String,
    /// Counts restarts, from 0; pod uid, name and attempt make the container's id.
    pub attempt: u32,
    /// The image as pulled.
    pub image: Image,
    /// Replaces the image's entry point unless empty.
    pub command: Vec<String>,
    /// Replaces the image's command unless empty.
    pub args: Vec<String>,
    /// Added to the image's environment.
    pub env: BTreeMap<String, String>,
    /// Replaces the image's working directory unless empty.
    pub working_dir: String,
    /// Where the container finds the file for its last words.
    pub last_words: String,
    /// Replaces the signal by which the image wants to be stopped, unless empty.
    pub stop_signal: String,
    /// What all containers of the pod request and may use together.
    pub pod_resources: PodResources,
    /// CPU request in thousandths of a core; becomes the weight among the pod's containers.
    pub cpu_request_milli: u64,
    /// CPU ceiling in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// Memory request in bytes; decides who goes first when the machine has no memory left.
    pub memory_request: u64,
    /// Memory ceiling in bytes.
    pub memory_limit: Option<u64>,
    /// Who its processes are and what they may do.
    pub security: Security,
    /// Where it has volumes of its pod, which exist.
    pub mounts: Vec<VolumeMount>,
}

/// How much of a container's last words is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastWords {
    /// At most this many bytes.
    pub most: usize,
    /// When it left none, the end of its log.
    pub or_log: bool,
}

/// A container that exists.
#[derive(Debug, Clone)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// Uid of its pod.
    pub pod_uid: String,
    /// Name in the pod.
    pub name: String,
    /// Which restart.
    pub attempt: u32,
    /// Name and digest of its image.
    pub image_id: String,
    /// The image's name as asked.
    pub image: String,
    /// How it is.
    pub state: ContainerState,
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started: nothing of it ever ran. To be removed and made again.
    Created,
    /// Its first process lives.
    Running {
        /// Its process id on the machine.
        pid: u32,
        /// Milliseconds since the Unix epoch.
        started_at_ms: i64,
    },
    /// Its first process ended.
    Exited {
        /// As the shell counts: 128 + signal for signals.
        code: u32,
        /// Killed for lack of memory.
        oom_killed: bool,
        /// Milliseconds since the Unix epoch; 0 when not known.
        started_at_ms: i64,
        /// Milliseconds since the Unix epoch.
        finished_at_ms: i64,
    },
    /// It existed and its end was not seen (its shim died unobserved).
    Lost,
}

/// The counters of a container, kept open.
pub trait Meter: Send {
    /// Reads them. Blocks.
    fn read(&mut self) -> io::Result<Usage>;
}

/// What a container, or a machine, has used and uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Microseconds of processor time since it began.
    pub cpu_us: u64,
    /// Bytes of memory that the kernel cannot take back when it is short of it: the working set, as Kubernetes counts.
    pub memory: u64,
}

/// What interfaces have carried since they were made, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Came in.
    pub received: u64,
    /// Went out.
    pub sent: u64,
}

/// Everything on this machine that is the agent's.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Network namespaces of pods.
    pub sandboxes: Vec<Sandbox>,
    /// Containers, running or not.
    pub containers: Vec<Container>,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// Anything may have happened: list.
    Resync,
    /// This container exited, was killed for lack of memory, or went.
    Changed {
        /// The container's id.
        id: String,
    },
}

/// What became of a program that was run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code; `None` when it was killed because its time was over.
    pub exit_code: Option<i32>,
    /// The beginning of what it wrote, at most 10 KiB.
    pub output: Vec<u8>,
}

/// Why a step failed, as people know it: `reason` goes into the status, `message` says what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// Kubernetes' word: ErrImagePull, InvalidImageName, CreateContainerError, RunContainerError, NetworkNotReady, RuntimeUnavailable…
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// Whether trying again later may help.
    pub retryable: bool,
}
