//! The [`Runtime`] over containerd's own API.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    Container, ContainerSpec, ExecOutcome, Image, ImageStore, Inventory, LastWords, Options,
    PullPolicy, PullSecrets, Runtime, RuntimeError, RuntimeEvent, Sandbox, SandboxSpec,
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
        Ok(Self {
            sandboxes: Sandboxes::new(Arc::clone(&options), cgroups.clone()),
            containers: Containers {
                client: client.clone(),
                options: Arc::clone(&options),
                cgroups,
                machine: Machine::read(Path::new("/proc")),
                images: images.clone(),
                carrier: carrier.clone(),
                creations: Arc::default(),
            },
            options,
            client,
            carrier,
            images,
        })
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

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        check_uid(pod_uid)?;
        self.containers.remove_pod(pod_uid).await?;
        self.sandboxes.remove(pod_uid).await
    }

    async fn release_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        self.sandboxes.release(pod_uid).await
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

    async fn last_words(
        &self,
        container: &Container,
        wanted: LastWords,
    ) -> Result<String, RuntimeError> {
        self.containers.last_words(container, wanted).await
    }

    async fn list(&self) -> Result<Inventory, RuntimeError> {
        let (sandboxes, containers) =
            tokio::try_join!(self.sandboxes.list(), self.containers.list())?;
        Ok(Inventory {
            sandboxes,
            containers,
        })
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
