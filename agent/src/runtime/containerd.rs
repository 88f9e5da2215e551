//! The [`Runtime`] over containerd's own API.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::watch;

use super::{
    Container, ContainerSpec, ExecOutcome, HostPorts, Image, ImageStore, Inventory, LastWords,
    Options, PullPolicy, PullSecrets, Runtime, RuntimeError, RuntimeEvent, Sandbox, SandboxSpec,
    cgroup::Cgroups,
    client::Client,
    container::Containers,
    error::reason,
    events, images,
    images::Images,
    names::{check_uid, container_id},
    network,
    resources::Machine,
    sandbox::Sandboxes,
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
            },
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

    /// Removes volumes in memory of pods that have no folder any more.
    async fn sweep_volumes(&self) {
        let (volumes, paths) = (self.volumes.clone(), self.options.paths.clone());
        let left = files::in_volumes(move || {
            let mut left = volumes.pods_in_memory()?;
            left.retain(|uid| check_uid(uid).is_ok() && !paths.pod(uid).exists());
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
        // Of programs that an earlier agent ran in containers.
        let pipes = self.options.paths.execs();
        let swept = files::blocking(move || match std::fs::remove_dir_all(pipes) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "cannot remove pipes of an earlier agent");
        }
        self.sweep_volumes().await;
        images::sweep(&self.client).await.map_err(|status| {
            RuntimeError::from_status(reason::UNAVAILABLE, "give back leases", &status)
        })
    }

    async fn ensure_network(&self, pod_cidr: &str) -> Result<(), RuntimeError> {
        network::ensure(&self.options, pod_cidr).await
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

    fn host_ports(&self) -> watch::Receiver<Option<Arc<HostPorts>>> {
        self.sandboxes.host_ports()
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        events::follow(self.client.clone(), self.options.namespace.clone())
    }

    fn log_path(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.options.paths.log(pod_uid, container, attempt)
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
