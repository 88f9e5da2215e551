//! The [`Runtime`] over containerd's own API.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::{net::TcpStream, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    Container, ContainerSpec, ExecOutcome, HostPorts, Image, ImageStore, Inventory, LastWords,
    Meter, Options, Program, PullPolicy, PullSecrets, Running, Runtime, RuntimeError, RuntimeEvent,
    Sandbox, SandboxSpec, Traffic,
    cgroup::Cgroups,
    client::Client,
    container::Containers,
    error::reason,
    events, images,
    images::Images,
    names::{check_uid, container_id},
    resources::Machine,
    sandbox::Sandboxes,
    traffic,
    volumes::{PodVolumes, Volumes},
};
use crate::{carrier::Carrier, files};

/// Runs pods through containerd. What it made outlives it: another one over the same options finds everything again.
/// Cheap to clone.
#[derive(Clone)]
pub struct Containerd {
    options: Arc<Options>,
    client: Client,
    carrier: Carrier,
    images: Images,
    sandboxes: Sandboxes,
    containers: Containers,
    volumes: Volumes,
    /// What earlier agents ran beside containers has been looked for, which is done once.
    looked_for_execs: Arc<AtomicBool>,
}

impl Containerd {
    /// A runtime that connects when it is first asked for something. To be made inside a Tokio runtime.
    ///
    /// # Errors
    /// When a setting cannot work.
    pub fn new(options: Options) -> Result<Self, RuntimeError> {
        let unusable = |why: String| RuntimeError::lasting(reason::UNAVAILABLE, why);
        options
            .validate()
            .map_err(|error| unusable(error.to_string()))?;
        let options = Arc::new(options);
        let client = Client::new(&options.socket, &options.namespace, options.change_timeout);
        let client = client.map_err(|error| {
            unusable(format!("the containerd namespace cannot be sent: {error}"))
        })?;
        let cgroups = Cgroups::new(&options.cgroup_mount, &options.cgroup_root);
        let carrier = Carrier::new(options.paths.clone(), options.carrier_command.clone());
        let images = Images::new(client.clone(), Arc::clone(&options));
        let volumes = Volumes::new(options.paths.clone());
        Ok(Self {
            sandboxes: Sandboxes::new(Arc::clone(&options), cgroups.clone()),
            containers: Containers {
                client: client.clone(),
                options: Arc::clone(&options),
                cgroups,
                machine: Machine::read(Path::new("/proc")),
                images: images.clone(),
                carrier: carrier.clone(),
                volumes: volumes.clone(),
                creations: Arc::default(),
                run: format!("{:08x}", rand::random::<u32>()).into(),
            },
            looked_for_execs: Arc::default(),
            volumes,
            options,
            client,
            carrier,
            images,
        })
    }

    /// The same runtime on a node with this address, which pods in the machine's network have.
    pub fn at(self, address: IpAddr) -> Self {
        Self {
            sandboxes: self.sandboxes.at(address),
            ..self
        }
    }

    /// Removes volumes in memory of pods that have no folder and no container any more. What cannot be looked at stays.
    async fn sweep_volumes(&self) {
        let here: BTreeSet<String> = match self.containers.list().await {
            Ok(here) => here.into_iter().map(|it| it.pod_uid).collect(),
            Err(error) => {
                return tracing::warn!(%error, "volumes in memory of pods that are gone stay");
            }
        };
        let (volumes, paths) = (self.volumes.clone(), self.options.paths.clone());
        let left = files::in_volumes(move || {
            let mut left = volumes.pods_in_memory()?;
            left.retain(|uid| {
                check_uid(uid).is_ok() && !here.contains(uid) && is_gone(&paths.pod(uid))
            });
            Ok(left)
        });
        let left = match left.await {
            Ok(left) => left,
            Err(error) => return tracing::warn!(%error, "cannot list volumes in memory"),
        };
        for uid in left {
            if let Err(error) = self.volumes.remove(&uid).await {
                tracing::warn!(%error, "cannot remove the volumes of a pod that is gone");
            }
        }
    }

    /// Ends, in the background, what an earlier agent ran in containers and did not see to its end.
    async fn end_left_execs(&self) {
        if self.looked_for_execs.load(Ordering::Relaxed) {
            return;
        }
        match self.containers.end_left_execs().await {
            Ok(()) => self.looked_for_execs.store(true, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "cannot list pipes of an earlier agent"),
        }
    }

    /// The carrier of this data folder.
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }
}

#[async_trait]
impl Runtime for Containerd {
    async fn recover(&self) -> Result<(), RuntimeError> {
        if let Err(error) = self.carrier.ensure().await {
            // What runs is looked after all the same; whoever keeps the carrier goes on trying.
            tracing::error!(%error, "the containers' output stands still");
        }
        self.end_left_execs().await;
        self.sweep_volumes().await;
        images::sweep(&self.client).await.map_err(|status| {
            RuntimeError::from_status(reason::UNAVAILABLE, "give back leases", &status)
        })
    }

    async fn ensure_network(&self, pod_cidr: &str) -> Result<(), RuntimeError> {
        self.sandboxes.ensure_network(pod_cidr).await
    }

    async fn mend_network(&self) -> Result<Vec<String>, RuntimeError> {
        let sandboxes = self.sandboxes.clone();
        let mended = files::blocking(move || sandboxes.mend()).await;
        mended.map_err(|error| RuntimeError::passing(reason::NETWORK_NOT_READY, error.to_string()))
    }

    async fn find_image(
        &self,
        image: &str,
        secrets: &PullSecrets,
    ) -> Result<Option<Image>, RuntimeError> {
        self.images.find(image, secrets).await
    }

    async fn pull(
        &self,
        image: &str,
        policy: PullPolicy,
        secrets: &PullSecrets,
    ) -> Result<Image, RuntimeError> {
        self.images.pull(image, policy, secrets).await
    }

    async fn images(&self) -> Result<ImageStore, RuntimeError> {
        self.images.stored().await
    }

    async fn remove_image(&self, name: &str) -> Result<bool, RuntimeError> {
        self.images.remove(name).await
    }

    async fn create_sandbox(&self, sandbox: &SandboxSpec) -> Result<Sandbox, RuntimeError> {
        self.sandboxes.create(sandbox).await
    }

    async fn remove_volumes(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        check_uid(pod_uid)?;
        // Also those of which nobody knew: what they write in must not go under them.
        self.containers.remove_pod(pod_uid).await?;
        self.volumes.remove(pod_uid).await
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        check_uid(pod_uid)?;
        self.containers.remove_pod(pod_uid).await?;
        self.volumes.remove(pod_uid).await?;
        self.sandboxes.remove(pod_uid).await
    }

    async fn release_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        self.volumes.remove(pod_uid).await?;
        self.sandboxes.release(pod_uid).await
    }

    async fn look_at_host_paths(&self, volumes: &PodVolumes) -> Result<(), RuntimeError> {
        self.volumes.look_at_host_paths(volumes).await
    }

    async fn pin_host_paths(&self, container: &ContainerSpec) -> Result<(), RuntimeError> {
        self.volumes.pin_host_paths(container).await
    }

    async fn ensure_volumes(&self, volumes: &PodVolumes) -> Result<(), RuntimeError> {
        self.volumes.ensure(volumes).await
    }

    async fn volume_bytes(
        &self,
        pod_uid: &str,
        volume: &str,
        enough: u64,
    ) -> Result<u64, RuntimeError> {
        self.volumes.bytes(pod_uid, volume, enough).await
    }

    async fn own_bytes(&self, pod_uid: &str, enough: u64) -> Result<u64, RuntimeError> {
        self.volumes.own_bytes(pod_uid, enough).await
    }

    async fn start_container(&self, container: &ContainerSpec) -> Result<Container, RuntimeError> {
        let id = container_id(&container.pod_uid, &container.name, container.attempt);
        self.containers.start(&id, container).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.containers.stop(id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.containers.remove(id).await
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        self.containers.exec(id, command, timeout).await
    }

    async fn attend(
        &self,
        id: &str,
        program: &Program,
        gone: &CancellationToken,
    ) -> Result<Running, RuntimeError> {
        self.containers.attend(id, program, gone).await
    }

    async fn connect(&self, pod_uid: &str, port: u16) -> io::Result<TcpStream> {
        self.sandboxes.connect(pod_uid, port).await
    }

    async fn container_bytes(&self, container: &Container) -> Result<u64, RuntimeError> {
        self.containers.bytes(container).await
    }

    async fn last_words(
        &self,
        container: &Container,
        wanted: LastWords,
    ) -> Result<String, RuntimeError> {
        self.containers.last_words(container, wanted).await
    }

    async fn list(&self) -> Result<Inventory, RuntimeError> {
        // In this order: a container that is made meanwhile is not listed without its sandbox.
        let containers = self.containers.list().await?;
        let sandboxes = self.sandboxes.list().await?;
        Ok(Inventory {
            sandboxes,
            containers,
        })
    }

    async fn find_pod(&self, pod_uid: &str) -> Result<Inventory, RuntimeError> {
        if check_uid(pod_uid).is_err() {
            // Nothing was ever made for it; who tries is told why.
            return Ok(Inventory::default());
        }
        let containers = self.containers.of_pod(pod_uid).await?;
        let sandboxes = self.sandboxes.of_pod(pod_uid).await?;
        Ok(Inventory {
            sandboxes,
            containers,
        })
    }

    fn host_ports(&self) -> watch::Receiver<Option<Arc<HostPorts>>> {
        self.sandboxes.host_ports()
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        events::follow(self.client.clone(), self.options.namespace.clone())
    }

    fn log_path(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.options.paths.log(pod_uid, container, attempt)
    }

    fn meter(&self, pod_uid: &str, id: &str) -> io::Result<Box<dyn Meter>> {
        let cgroups = &self.containers.cgroups;
        let counters = cgroups.counters(&cgroups.path(pod_uid, id))?;
        Ok(Box::new(counters))
    }

    fn traffic(&self, pod_uids: &[String]) -> io::Result<BTreeMap<String, Traffic>> {
        let pods = pod_uids.iter();
        let pins = pods.map(|uid| (uid.clone(), self.options.paths.netns(uid)));
        traffic::read(pins.collect())
    }

    async fn settle_log(&self, id: &str) -> Result<(), RuntimeError> {
        let settled = self.carrier.settle(id).await;
        settled.map_err(|error| RuntimeError::passing(reason::UNAVAILABLE, error.to_string()))
    }

    async fn version(&self) -> Result<String, RuntimeError> {
        let answer = self
            .client
            .services()
            .version()
            .version(self.client.look(()))
            .await;
        let answer = answer.map_err(|status| {
            RuntimeError::from_status(
                reason::UNAVAILABLE,
                "ask containerd for its version",
                &status,
            )
        })?;
        Ok(format!("containerd://{}", answer.into_inner().version))
    }
}

/// Whether there is nothing at a path. Of what cannot be looked at nobody knows. Blocks.
fn is_gone(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert!(is_gone(&file));
        std::fs::write(&file, "").unwrap();
        assert!(!is_gone(&file));
        // The error is another than that there is none, as of a disk that does not answer.
        let within = file.join("pod");
        assert!(!within.exists() && !is_gone(&within));
    }
}
