//! A runtime that lives in memory and does as told, for tests of everything above it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::{
    clock::Clock,
    runtime::{
        Container, ContainerSpec, ContainerState, ExecOutcome, FAILED_MOUNT, Filled, Image,
        ImageStore, Inventory, Meter, Place, PodVolumes, PullPolicy, PullSecrets, Runtime,
        RuntimeError, RuntimeEvent, Sandbox, SandboxSpec, StoredImage,
    },
};

pub mod managers;
pub mod netns;
pub mod registry;
mod scales;
mod steps;
pub mod talk;

use scales::Scales;

/// The runtime. It outlives the agents that use it, as containerd does.
pub struct Scripted {
    world: Mutex<World>,
    events: broadcast::Sender<RuntimeEvent>,
    clock: Arc<dyn Clock>,
    /// The programs that somebody talks with.
    pub talk: talk::Programs,
    scales: Arc<Scales>,
}

#[derive(Default)]
struct World {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    /// By the operation's name; taken once each.
    failures: BTreeMap<&'static str, Vec<RuntimeError>>,
    calls: Vec<String>,
    /// What must never be, in words.
    violations: Vec<String>,
    made: u32,
    lists: usize,
    /// Calls until the agent dies: the call does its work and never answers.
    lives: Option<u32>,
    ignores_term: bool,
    /// With which the last pull came.
    secrets: PullSecrets,
    /// Images that need no pull.
    images: BTreeSet<String>,
    /// Images on the disk, with the bytes that each takes alone.
    stored: BTreeMap<String, u64>,
    /// Bytes of that disk; 0 when nobody knows.
    disk: u64,
    /// Images whose pull never ends.
    stalled: BTreeSet<String>,
    /// Calls of this operation panic, so many times.
    panics: BTreeMap<&'static str, u32>,
    /// Pods whose volumes are never removed.
    unremovable: BTreeSet<String>,
    /// Pulls that have not ended.
    pulling: usize,
    /// What is still to be written when a container has ended.
    last_output: Option<Box<dyn FnOnce() + Send>>,
    /// How programs in containers end, by their first word; 0 unless it is here.
    exits: BTreeMap<String, i32>,
    /// For how long programs in containers run.
    exec_takes: Duration,
    /// Programs that run, and the most that ran at a time.
    execs: (usize, usize),
    /// Where logs are; nowhere, unless a test says otherwise.
    logs: PathBuf,
    /// Each volume as it was asked for last, by pod.
    volumes: BTreeMap<String, PodVolumes>,
    /// Files of the node that do not answer.
    hung: BTreeSet<PathBuf>,
    /// Names of volumes that cannot be made.
    broken_volumes: BTreeSet<String>,
    /// Bytes that each emptyDir takes.
    volume_bytes: u64,
    /// Bytes that pods' files in `/etc` take.
    own_bytes: u64,
    /// Bytes that containers take, by name.
    container_bytes: BTreeMap<String, u64>,
}

impl Scripted {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            world: Mutex::new(World {
                logs: "/nonexistent".into(),
                ..World::default()
            }),
            events: broadcast::channel(64).0,
            clock,
            talk: talk::Programs::default(),
            scales: Arc::default(),
        })
    }

    /// The next call of this operation fails so.
    pub fn fail(&self, operation: &'static str, reason: &'static str) {
        let error = RuntimeError {
            reason,
            message: format!("{operation} fails"),
            retryable: true,
        };
        let mut world = self.world();
        world.failures.entry(operation).or_default().push(error);
    }

    /// After this many more calls none is answered, as for an agent that was killed; `None` ends that.
    pub fn die_after(&self, calls: Option<u32>) {
        self.world().lives = calls;
    }

    /// What was noted of this pod cannot be read any more.
    pub fn damage(&self, pod_uid: &str) {
        if let Some(sandbox) = self.world().sandboxes.get_mut(pod_uid) {
            sandbox.ips.clear();
            sandbox.damaged = Some("a file is damaged".to_owned());
        }
    }

    /// Nothing that was noted of this pod is there any more.
    pub fn lose(&self, pod_uid: &str) {
        self.world().sandboxes.remove(pod_uid);
    }

    /// Containers end only by KILL, after the grace.
    pub fn ignore_term(&self) {
        self.world().ignores_term = true;
    }

    /// From now on this program ends so in every container.
    pub fn exec_exits(&self, program: &str, code: i32) {
        self.world().exits.insert(program.to_owned(), code);
    }

    /// From now on programs in containers run for so long.
    pub fn exec_takes(&self, takes: Duration) {
        self.world().exec_takes = takes;
    }

    /// The most programs that ran in containers at a time.
    pub fn most_execs(&self) -> usize {
        self.world().execs.1
    }

    /// With which the last pull came.
    pub fn pull_secrets(&self) -> PullSecrets {
        self.world().secrets.clone()
    }

    /// Puts an image there.
    pub fn put_image(&self, image: &str) {
        self.world().images.insert(image.to_owned());
    }

    /// From now on the images lie on a disk of so many bytes.
    pub fn fill_disk(&self, bytes: u64, images: BTreeMap<String, u64>) {
        let mut world = self.world();
        (world.disk, world.stored) = (bytes, images);
    }

    /// The images on that disk.
    pub fn stored(&self) -> Vec<String> {
        self.world().stored.keys().cloned().collect()
    }

    /// From now on a pull of this image never ends.
    pub fn stall_pulls_of(&self, image: &str) {
        self.world().stalled.insert(image.to_owned());
    }

    /// From now on these files of the node do not answer.
    pub fn hang(&self, paths: &[&str]) {
        self.world().hung = paths.iter().map(PathBuf::from).collect();
    }

    /// From now on no volume of this name can be made.
    pub fn break_volume(&self, name: &str) {
        self.world().broken_volumes.insert(name.to_owned());
    }

    /// The next calls of this operation panic.
    pub fn panic_in(&self, operation: &'static str, times: u32) {
        self.world().panics.insert(operation, times);
    }

    /// The removal of this pod's volumes never ends.
    pub fn stall_removal_of(&self, pod_uid: &str) {
        self.world().unremovable.insert(pod_uid.to_owned());
    }

    /// The volumes of a pod as they were asked for last.
    pub fn volumes(&self, pod_uid: &str) -> Option<PodVolumes> {
        self.world().volumes.get(pod_uid).cloned()
    }

    /// Pulls under way.
    pub fn pulling(&self) -> usize {
        self.world().pulling
    }

    /// Logs are in this folder.
    pub fn keep_logs_in(&self, folder: &std::path::Path) {
        self.world().logs = folder.to_owned();
    }

    /// The log of a container that has ended is written to by this, until which it is not settled.
    pub fn settle_with(&self, write: impl FnOnce() + Send + 'static) {
        self.world().last_output = Some(Box::new(write));
    }

    /// A container's process ends.
    pub fn exit(&self, id: &str, code: u32) {
        let now = self.clock.now_ms();
        if let Some(container) = self.world().containers.get_mut(id)
            && let ContainerState::Running { started_at_ms, .. } = container.state
        {
            container.state = ContainerState::Exited {
                code,
                oom_killed: false,
                started_at_ms,
                finished_at_ms: now,
            };
        }
        self.changed(id);
    }

    /// Puts a container there as if an agent had made it before.
    pub fn put(&self, container: Container) {
        let mut world = self.world();
        let sandbox = Sandbox {
            pod_uid: container.pod_uid.clone(),
            namespace: "default".into(),
            name: container.pod_uid.clone(),
            ips: vec![Ipv4Addr::new(10, 244, 9, 9).into()],
            damaged: None,
        };
        world.sandboxes.insert(container.pod_uid.clone(), sandbox);
        world.containers.insert(container.id.clone(), container);
    }

    pub fn containers(&self) -> Vec<Container> {
        self.world().containers.values().cloned().collect()
    }

    pub fn is_empty(&self) -> bool {
        let world = self.world();
        world.sandboxes.is_empty() && world.containers.is_empty()
    }

    /// Whether a pod has addresses.
    pub fn holds_network(&self, pod_uid: &str) -> bool {
        let world = self.world();
        let sandbox = world.sandboxes.get(pod_uid);
        sandbox.is_some_and(|sandbox| !sandbox.ips.is_empty())
    }

    pub fn calls(&self) -> Vec<String> {
        self.world().calls.clone()
    }

    /// How often all containers were listed.
    pub fn lists(&self) -> usize {
        self.world().lists
    }

    pub fn violations(&self) -> Vec<String> {
        self.world().violations.clone()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, id: &str) {
        // Nobody may be listening.
        let _ = self
            .events
            .send(RuntimeEvent::Changed { id: id.to_owned() });
    }

    /// Counts the call and fails it if that was asked for.
    fn call(&self, operation: &'static str, about: &str) -> Result<(), RuntimeError> {
        let mut world = self.world();
        world.calls.push(format!("{operation} {about}"));
        let panics = world.panics.get_mut(operation).filter(|left| **left > 0);
        let told = panics.map(|left| *left -= 1).is_some();
        assert!(!told, "{operation} was told to panic");
        let failures = world.failures.get_mut(operation);
        match failures.filter(|failures| !failures.is_empty()) {
            Some(failures) => Err(failures.remove(0)),
            None => Ok(()),
        }
    }

    /// Answers, unless the agent is dead.
    async fn answer<T>(&self, result: T) -> T {
        let dead = match &mut self.world().lives {
            Some(0) => true,
            Some(lives) => {
                *lives -= 1;
                false
            }
            None => false,
        };
        if dead {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        result
    }

    /// As a file system of the node that does not answer: an error after half a minute.
    async fn answers(
        &self,
        places: impl Iterator<Item = Place> + Send,
    ) -> Result<(), RuntimeError> {
        let hung = self.world().hung.clone();
        let hangs = |place: &Place| matches!(place, Place::Host(path) if hung.contains(path));
        let places: Vec<_> = places.filter(hangs).collect();
        if places.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        Err(RuntimeError {
            reason: FAILED_MOUNT,
            message: format!("{places:?} does not answer"),
            retryable: true,
        })
    }

    fn make_volumes(&self, volumes: &PodVolumes) -> Result<(), RuntimeError> {
        let uid = &volumes.pod_uid;
        self.call("volumes", uid)?;
        let mut world = self.world();
        let mut names = volumes.volumes.keys();
        if let Some(name) = names.find(|name| world.broken_volumes.contains(*name)) {
            return Err(RuntimeError {
                reason: FAILED_MOUNT,
                message: format!("cannot make volume {name:?}"),
                retryable: true,
            });
        }
        if !world.sandboxes.contains_key(uid) {
            let what = format!("volumes of {uid} were made without a sandbox");
            world.violations.push(what);
        }
        // What is not named stays as it is.
        let made = world.volumes.entry(uid.clone()).or_default();
        made.pod_uid.clone_from(uid);
        made.group = volumes.group;
        made.volumes.extend(volumes.volumes.clone());
        Ok(())
    }

    fn start(&self, spec: &ContainerSpec) -> Result<Container, RuntimeError> {
        self.call("start", &format!("{}/{}", spec.name, spec.attempt))?;
        let now = self.clock.now_ms();
        let id = container_id(&spec.pod_uid, &spec.name, spec.attempt);
        let mut world = self.world();
        if let Some(there) = world.containers.get(&id) {
            return Ok(there.clone());
        }
        if !world.sandboxes.contains_key(&spec.pod_uid) {
            let what = format!("{id} was started without a sandbox");
            world.violations.push(what);
        }
        let made = world.volumes.get(&spec.pod_uid);
        let missing = |name| made.is_none_or(|made| !made.volumes.contains_key(name));
        if spec.mounts.iter().any(|mount| missing(&mount.volume)) {
            let what = format!("{id} was started before its volumes were made");
            world.violations.push(what);
        }
        let other = world
            .containers
            .values()
            .find(|c| c.pod_uid == spec.pod_uid && c.name == spec.name)
            .map(|other| format!("{id} was started beside {}", other.id));
        world.violations.extend(other);
        world.made += 1;
        let container = Container {
            id: id.clone(),
            pod_uid: spec.pod_uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image_id: spec.image.id.clone(),
            image: spec.image.name.clone(),
            state: ContainerState::Running {
                pid: world.made,
                started_at_ms: now,
            },
        };
        world.containers.insert(id, container.clone());
        Ok(container)
    }

    fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.call("remove", id)?;
        let mut world = self.world();
        let running = world
            .containers
            .get(id)
            .is_some_and(|c| matches!(c.state, ContainerState::Running { .. }));
        if running {
            world
                .violations
                .push(format!("{id} was removed while it ran"));
        }
        world.containers.remove(id);
        Ok(())
    }

    fn remove_all(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        self.call("remove_sandbox", pod_uid)?;
        let mut world = self.world();
        if world.containers.values().any(|c| c.pod_uid == pod_uid) {
            let what = format!("the sandbox of {pod_uid} was removed under its containers");
            world.violations.push(what);
        }
        world.sandboxes.remove(pod_uid);
        Ok(())
    }

    fn release(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        self.call("release_sandbox", pod_uid)?;
        let mut world = self.world();
        if world.containers.values().any(|c| c.pod_uid == pod_uid) {
            let what = format!("the network of {pod_uid} was taken from its containers");
            world.violations.push(what);
        }
        if let Some(sandbox) = world.sandboxes.get_mut(pod_uid) {
            sandbox.ips.clear();
        }
        Ok(())
    }

    fn create(&self, spec: &SandboxSpec) -> Result<Sandbox, RuntimeError> {
        self.call("create_sandbox", &spec.pod_uid)?;
        let mut world = self.world();
        world.made += 1;
        let [_, _, third, fourth] = world.made.to_be_bytes();
        let sandbox = Sandbox {
            pod_uid: spec.pod_uid.clone(),
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            ips: vec![IpAddr::from([10, 244, third, fourth])],
            damaged: None,
        };
        let entry = world.sandboxes.entry(spec.pod_uid.clone());
        Ok(entry.or_insert(sandbox).clone())
    }
}

fn image(image: &str) -> Image {
    Image {
        name: image.to_owned(),
        id: format!("{image}@sha256:00"),
    }
}

/// A pull, until it ends or is given up.
struct Ended<'a>(&'a Scripted);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.world().pulling -= 1;
    }
}

/// As the test finds containers again.
pub fn container_id(pod_uid: &str, name: &str, attempt: u32) -> String {
    format!("{pod_uid}-{name}-{attempt}")
}
