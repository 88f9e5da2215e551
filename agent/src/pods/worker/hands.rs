//! What carries out a step: a task of its own, so that a step that takes long (a pull, a grace) delays no other of its pod.

use std::{net::IpAddr, sync::Arc};

use barge_proto::{accounts, v1::Pod};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Shared, Wanted, pulling::Got};
use crate::{
    dns::Resolver,
    events::{Severity, pod_reference},
    pods::{
        environment::{Around, environment},
        memory::CONFIG_ERROR,
        plan::{self, Step},
        spec, storage,
        volumes::{
            self,
            account::{AUTOMATIC, Account},
        },
    },
    runtime::{ClusterNames, Container, ContainerSpec, FAILED_MOUNT, Image, RuntimeError, Sandbox},
    timing::timed,
    tokens::{Token, TokenRequest},
};

/// What became of a step.
pub enum Outcome {
    Sandbox(Result<Sandbox, RuntimeError>),
    Pulled(String, Result<Got, RuntimeError>),
    Volumes {
        /// Whether a container starts next.
        starting: bool,
        /// The tokens that the files were made of.
        made_of: Vec<Option<Arc<Token>>>,
        /// Why containers go without the token that they did not ask for, if they do.
        made: Result<Option<String>, RuntimeError>,
    },
    /// Whether the files of the node are what they have to be.
    Looked(Result<(), RuntimeError>),
    /// Why the pod takes too much, if it does.
    Measured(Result<Option<String>, RuntimeError>),
    /// Name and attempt of the container.
    Started(String, u32, Result<Container, RuntimeError>),
    Stopped(String, Result<(), RuntimeError>),
    Removed(String, Result<(), RuntimeError>),
    SandboxRemoved(Result<(), RuntimeError>),
    SandboxReleased(Result<(), RuntimeError>),
    /// Given up because the managers changed their mind.
    Dropped,
}

/// Does steps of one pod. Cheap to clone.
#[derive(Clone)]
pub struct Hands {
    pub uid: String,
    pub shared: Arc<Shared>,
    pub wanted: watch::Receiver<Wanted>,
    pub stop: CancellationToken,
    /// Cancelled when no container of the pod starts any more.
    pub over: CancellationToken,
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    /// The pod's containers get a token without asking.
    pub automounts: bool,
    /// The tokens that the pod's files are made of.
    pub tokens: Vec<TokenRequest>,
    /// Since when the pod has been ending, in milliseconds since the epoch.
    pub ending_ms: Option<i64>,
    /// The name of the container that a step stops.
    pub container: Option<String>,
    /// The pod's containers, for what looks at all of them.
    pub containers: Vec<Container>,
    /// Cancelled when the container that a step started has ended: its hook is given up.
    pub ended: CancellationToken,
}

impl Hands {
    /// Does a step. `image` is what a container to be started was pulled as.
    pub async fn perform(
        &self,
        pod: Option<Arc<Pod>>,
        image: Option<Image>,
        step: Step,
    ) -> Outcome {
        let runtime = &self.shared.runtime;
        match (step, pod) {
            (Step::Stop { id, grace }, pod) => {
                // The agent's own end does not wait for somebody else's grace; stopping goes on when it is back.
                let container = pod.as_deref().zip(self.container.as_deref());
                let container = container.and_then(|(pod, name)| spec::container(pod, name));
                let stop = self.stop_container(pod.as_deref(), container, &id, grace);
                match self.stop.run_until_cancelled(stop).await {
                    Some(result) => Outcome::Stopped(id, result),
                    None => Outcome::Dropped,
                }
            }
            (Step::Remove { id }, _) => {
                let _permit = self.shared.removals.acquire().await;
                let result = runtime.remove_container(&id).await;
                Outcome::Removed(id, result)
            }
            (Step::RemoveSandbox, _) => {
                Outcome::SandboxRemoved(self.take_away(runtime.remove_sandbox(&self.uid)).await)
            }
            (Step::ReleaseSandbox, _) => {
                Outcome::SandboxReleased(self.take_away(runtime.release_sandbox(&self.uid)).await)
            }
            (Step::CreateSandbox, Some(pod)) => {
                // The machine's own network is there.
                let waits = !spec::is_in_host_network(&pod);
                let mut ready = self.shared.network_ready.clone();
                let ready = ready.wait_for(|ready| *ready || !waits);
                if self.while_wanted(ready).await.is_none() {
                    return Outcome::Dropped;
                }
                let _permit = self.shared.creations.acquire().await;
                let mut sandbox = spec::sandbox_spec(&pod);
                sandbox.names.cluster = self.cluster_names(&pod);
                Outcome::Sandbox(runtime.create_sandbox(&sandbox).await)
            }
            (Step::Volumes { starting }, Some(pod)) => {
                match self.make_volumes(&pod, starting).await {
                    Some((made_of, made)) => Outcome::Volumes {
                        starting,
                        made_of,
                        made,
                    },
                    None => Outcome::Dropped,
                }
            }
            (Step::LookAtHostPaths, Some(pod)) => {
                let named = volumes::host_paths(&pod);
                // The pod's end does not wait for a file system that does not answer.
                let looked = self.while_wanted(runtime.look_at_host_paths(&named));
                looked.await.map_or(Outcome::Dropped, Outcome::Looked)
            }
            (Step::Measure, Some(pod)) => match self.while_wanted(self.measure(&pod)).await {
                Some(result) => Outcome::Measured(result),
                None => Outcome::Dropped,
            },
            (Step::Pull { container }, Some(pod)) => self.pull(&pod, container).await,
            (Step::Start { container, attempt }, Some(pod)) => {
                match self.start(&pod, &container, attempt, image).await {
                    Some(result) => Outcome::Started(container, attempt, result),
                    None => Outcome::Dropped,
                }
            }
            (_, None) => Outcome::Dropped,
        }
    }

    /// Where the pod asks for names, when that is the cluster. A name server that does not answer holds up no pod.
    fn cluster_names(&self, pod: &Pod) -> Option<ClusterNames> {
        if !spec::asks_cluster(pod) {
            return None;
        }
        let meta = pod.metadata.as_ref();
        match *self.shared.resolver.borrow() {
            Resolver::Absent => None,
            Resolver::At(server) => Some(ClusterNames {
                server,
                namespace: meta.map(|meta| meta.namespace.clone()).unwrap_or_default(),
            }),
            Resolver::Silent => {
                let message = "the node's name server does not answer: the pod asks the node's own name servers, as long as it lives, and \
                     does not find Services by name; delete it when the node has NameServerAnswers, and another one will";
                let (recorder, about) = (&self.shared.recorder, pod_reference(pod));
                recorder.record(
                    about,
                    Severity::Warning,
                    "NamesUnavailable",
                    message.to_owned(),
                );
                None
            }
        }
    }

    /// Gives up, with `None`, once the pod is to end or has come to its end, or the agent is to end.
    pub(super) async fn while_wanted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut wanted = self.wanted.clone();
        let unwanted = wanted.wait_for(|w| w.pod.as_deref().is_none_or(spec::is_ending));
        tokio::select! {
            result = work => Some(result),
            _ = unwanted => None,
            () = self.over.cancelled() => None,
            () = self.stop.cancelled() => None,
        }
    }

    /// Removes the pod's volumes, then does the rest. Nobody waits for the volumes but the pod itself: what containers wrote may take hours to remove.
    async fn take_away(
        &self,
        rest: impl Future<Output = Result<(), RuntimeError>>,
    ) -> Result<(), RuntimeError> {
        self.shared.runtime.remove_volumes(&self.uid).await?;
        let _permit = self.shared.removals.acquire().await;
        rest.await
    }

    /// Why the pod takes too much of the node's disk, if it does.
    async fn measure(&self, pod: &Pod) -> Result<Option<String>, RuntimeError> {
        let runtime = &self.shared.runtime;
        let limits = storage::limits(pod).map_err(|message| RuntimeError {
            reason: FAILED_MOUNT,
            message,
            retryable: false,
        })?;
        let mut total = 0_u64;
        for volume in limits.volumes {
            let enough = volume.limit.or(limits.pod).unwrap_or(0);
            let bytes = runtime
                .volume_bytes(&self.uid, &volume.name, enough)
                .await?;
            if volume.limit.is_some_and(|limit| bytes > limit) {
                return Ok(Some(volume.too_large()));
            }
            total = total.saturating_add(bytes);
        }
        if let Some(limit) = limits.pod {
            let own = runtime.own_bytes(&self.uid, limit).await?;
            total = total.saturating_add(own);
            // One that ended counts no more: the pod's limit is that of those that run at a time.
            let running = self.containers.iter().filter(|it| plan::is_running(it));
            for container in running {
                let bytes = runtime.container_bytes(container).await?;
                self.shared.taken.put_storage(&container.into(), bytes);
                let limit = limits.containers.get(&container.name).copied();
                if let Some(limit) = limit.filter(|limit| bytes > *limit) {
                    return Ok(Some(storage::container_too_large(&container.name, limit)));
                }
                total = total.saturating_add(bytes);
            }
        }
        let limit = limits.pod.filter(|limit| total > *limit);
        Ok(limit.map(storage::pod_too_large))
    }

    /// Answers which tokens the files were made of, and why the pod's containers go without the one that they did not ask for, if they do.
    async fn make_volumes(
        &self,
        pod: &Pod,
        starting: bool,
    ) -> Option<(
        Vec<Option<Arc<Token>>>,
        Result<Option<String>, RuntimeError>,
    )> {
        let given = self.wanted.borrow().given.clone();
        let allocatable = self.shared.node.borrow().allocatable.clone();
        let around = Around {
            allocatable: &allocatable,
            pod,
            given: &given,
            host_ip: &self.shared.host_ip,
            ips: &self.ips,
        };
        let roots = (self.shared.roots)();
        let account = Account {
            tokens: &self.shared.tokens,
            automounts: self.automounts,
            roots: &roots,
        };
        if starting {
            let arrive = self.while_wanted(volumes::account::arrive(pod, account));
            timed(&self.uid, "token", arrive).await?;
        }
        let made_of = self.tokens.iter().map(|it| account.tokens.get(it));
        let made_of = made_of.collect();
        let (mut volumes, whole) = volumes::of_pod(pod, around, account);
        let runtime = &self.shared.runtime;
        // Also when one cannot be made: containers that run go on having the others as they should be. To its end: what is made after the pod's removal
        // would stay.
        let mut made = runtime.ensure_volumes(&volumes).await.map(|()| None);
        if let Err(message) = whole {
            let error = RuntimeError {
                reason: FAILED_MOUNT,
                message,
                // What could not be written heals by itself.
                retryable: made.is_err(),
            };
            return Some((made_of, Err(error)));
        }
        if made.is_err()
            && starting
            && let Some(automatic) = volumes.volumes.remove(AUTOMATIC)
        {
            // No container waits for what it did not ask for, and none goes without it because of another volume.
            made = runtime.ensure_volumes(&volumes).await.map(|()| None);
            volumes.volumes.insert(AUTOMATIC.to_owned(), automatic);
            if made.is_ok() {
                let again = runtime.ensure_volumes(&volumes).await;
                made = Ok(again.err().map(|error| error.message));
            }
        }
        Some((made_of, made))
    }

    /// Starts a container. `None` when that was given up before it was begun.
    async fn start(
        &self,
        pod: &Pod,
        name: &str,
        attempt: u32,
        image: Option<Image>,
    ) -> Option<Result<Container, RuntimeError>> {
        let spec = match self.specify(pod, name, attempt, image) {
            Ok(spec) => spec,
            Err(error) => return Some(Err(error)),
        };
        // Without a permit: it may wait for a file system that does not answer.
        let pinned = self.while_wanted(self.shared.runtime.pin_host_paths(&spec));
        if let Err(error) = pinned.await? {
            return Some(Err(error));
        }
        let permit = self.shared.creations.acquire().await;
        let started = self.shared.runtime.start_container(&spec).await;
        // The hook may take as long as it likes.
        drop(permit);
        if let Ok(started) = &started
            && let Some(container) = spec::container(pod, name)
        {
            self.after_start(pod, container, &started.id).await;
        }
        Some(started)
    }

    /// What the runtime is asked to start.
    fn specify(
        &self,
        pod: &Pod,
        name: &str,
        attempt: u32,
        image: Option<Image>,
    ) -> Result<ContainerSpec, RuntimeError> {
        let config_error = |message: String| RuntimeError {
            reason: CONFIG_ERROR,
            message,
            retryable: false,
        };
        let container = spec::container(pod, name)
            .ok_or_else(|| config_error("the pod has no such container".to_owned()))?;
        let image = image.ok_or_else(|| config_error("the image was not pulled".to_owned()))?;
        let given = self.wanted.borrow().given.clone();
        // As in Kubernetes, an account that goes later ends nothing.
        if attempt == 0
            && let Err(why) = given.account(pod)
            && !accounts::is_default(pod)
        {
            return Err(config_error(why));
        }
        let allocatable = self.shared.node.borrow().allocatable.clone();
        let around = Around {
            allocatable: &allocatable,
            pod,
            given: &given,
            host_ip: &self.shared.host_ip,
            ips: &self.ips,
        };
        let environment = environment(container, around).map_err(config_error)?;
        for message in &environment.skipped {
            let reason = "InvalidEnvironmentVariableNames";
            let recorder = &self.shared.recorder;
            recorder.record(pod_reference(pod), Severity::Warning, reason, message);
        }
        if let Some(message) = &environment.unlinked {
            let recorder = &self.shared.recorder;
            recorder.record(
                pod_reference(pod),
                Severity::Warning,
                "ServiceLinksLeftOut",
                message,
            );
        }
        let spec = spec::container_spec(pod, container, attempt, image, environment);
        let mut spec = spec.map_err(config_error)?;
        if self.automounts {
            spec.mounts.extend(volumes::account::mount(container));
        }
        Ok(spec)
    }
}
