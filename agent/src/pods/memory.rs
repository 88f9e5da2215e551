//! What a worker remembers of its pod beyond what the runtime shows.

use std::{collections::BTreeMap, time::Duration};

use barge_proto::v1::{ContainerStateTerminated, Pod, PodStatus};

use super::{
    backoff::{CrashBackoff, Retry},
    deadline::DEADLINE_EXCEEDED,
    spec::{RestartPolicy, Role, restart_policy},
};
use crate::{
    clock::{to_ms, to_time},
    probes::{Known, state::Kind},
    runtime::{Container, ContainerState, FAILED_MOUNT, Image, Inventory, Sandbox},
};

/// Exit code of a container that could not be started, as Kubernetes has it.
const START_ERROR: i32 = 128;
/// Exit code of a container whose end was not seen.
const LOST: i32 = 137;
/// What a container has at least between TERM and KILL when others used up the grace before it (Kubernetes' minimumGracePeriodInSeconds).
pub const LEAST_GRACE: Duration = Duration::from_secs(2);

/// A longer grace is as good as none at all: the container ends by itself. Clocks cannot count as far as users may ask for.
pub const LONGEST_GRACE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The last words of containers that ended, by id.
pub type LastWords = BTreeMap<String, String>;

/// What the runtime has of one pod.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Its network namespace.
    pub sandbox: Option<Sandbox>,
    /// Its containers, running or not.
    pub containers: Vec<Container>,
}

/// What is remembered of one pod.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// By the container's name.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Tries to make the sandbox.
    pub sandbox: Retry,
    /// Tries to make the volumes before a container starts.
    pub volumes: Retry,
    /// Tries to look at files of the node.
    pub host_paths: Retry,
    /// Tries to renew the files of what runs: these hold up no start.
    pub refresh: Retry,
    /// Its containers get a token of the pod's ServiceAccount without asking.
    pub automounts: bool,
    /// Files in the volumes may not be as they should be.
    pub volumes_due: bool,
    /// When its volumes were measured last, in milliseconds since the epoch; 0 before.
    pub measured_ms: i64,
    /// The last measurement found more than the pod may take.
    pub takes_too_much: bool,
    /// Tries to stop or remove something.
    pub teardown: Retry,
    /// When the agent first saw the pod; 0 before.
    pub started_ms: i64,
    /// The init containers have done their part in the pod's present network. Kept on disk.
    pub initialized: bool,
    /// Why the pod is to end as Failed, whatever its containers do. Kept on disk.
    pub failed: Option<PodFailure>,
    /// When the end of the pod's containers began; `None` before, and after the agent was started again.
    pub ending_ms: Option<i64>,
    /// The pod's last status, once all its containers ended for good. Kept on disk.
    pub finished: Option<PodStatus>,
    /// The end of the pod: everything but the record was removed.
    pub removed: bool,
    /// The addresses the sandbox had.
    pub ips: Vec<std::net::IpAddr>,
}

/// What is remembered of one container of a pod.
#[derive(Debug, Clone, Default)]
pub struct ContainerMemory {
    /// The attempt that comes next. Kept on disk.
    pub next_attempt: u32,
    /// The first attempt in the pod's present network. Kept on disk.
    pub first_attempt: u32,
    /// The id of the attempt whose hook after the start is not done yet.
    pub starting: Option<String>,
    /// The last two ends, older first. Kept on disk.
    pub exits: Vec<Exit>,
    /// Kept on disk.
    pub crash: CrashBackoff,
    /// Pulled for the next start.
    pub image: Option<Image>,
    /// The pod's volumes were made, or looked at, for the next start.
    pub volumes: bool,
    /// The files of the node that the pod names were looked at for the next start.
    pub host_paths: bool,
    /// The next start goes without the token that nobody asked for: its volume could not be made.
    pub without_token: bool,
    /// Tries to pull.
    pub pull: Retry,
    /// Tries to create and start.
    pub start: Retry,
    /// What its probes found. The prober keeps it.
    pub probed: Option<Known>,
}

/// Why a pod failed that took more of the node's disk than it may, in Kubernetes' word.
pub const EVICTED: &str = "Evicted";

/// Why a pod ends as Failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFailure {
    /// One of Kubernetes' words ("DeadlineExceeded").
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Why a container is not made: something that it needs is missing.
pub const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// Which.
    pub attempt: u32,
    /// How.
    pub terminated: ContainerStateTerminated,
}

impl Exit {
    /// When it ended, in milliseconds since the epoch.
    pub fn finished_ms(&self) -> i64 {
        self.terminated.finished_at.as_ref().map_or(0, to_ms)
    }
}

impl Observed {
    /// One pod's part of an inventory.
    pub fn of(inventory: &Inventory, pod_uid: &str) -> Self {
        Self {
            sandbox: inventory
                .sandboxes
                .iter()
                .find(|sandbox| sandbox.pod_uid == pod_uid)
                .cloned(),
            containers: inventory
                .containers
                .iter()
                .filter(|container| container.pod_uid == pod_uid)
                .cloned()
                .collect(),
        }
    }

    /// Nothing of the pod is here.
    pub fn is_empty(&self) -> bool {
        self.sandbox.is_none() && self.containers.is_empty()
    }

    /// The newest attempt of a container.
    pub fn current(&self, name: &str) -> Option<&Container> {
        self.containers
            .iter()
            .filter(|container| container.name == name)
            .max_by_key(|container| container.attempt)
    }

    /// Whether the sandbox is whole.
    pub fn has_network(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|s| !s.ips.is_empty())
    }

    /// Whether what was noted of the pod cannot be read, or does not fit what runs.
    pub fn is_damaged(&self) -> bool {
        self.damage().is_some()
    }

    /// What is wrong with the pod's place on this machine, in a sentence; a place that is missing while nothing runs in it is made.
    pub fn damage(&self) -> Option<&str> {
        let sandbox = self.sandbox.as_ref();
        if let Some(why) = sandbox.and_then(|sandbox| sandbox.damaged.as_deref()) {
            return Some(why);
        }
        let runs = |it: &Container| matches!(it.state, ContainerState::Running { .. });
        let runs = self.containers.iter().any(runs);
        match sandbox {
            None if runs => Some("what was noted of it is gone from this machine's disk"),
            Some(sandbox) if runs && sandbox.ips.is_empty() => {
                Some("its network namespace was unmounted under the containers that run in it")
            }
            _ => None,
        }
    }

    /// Puts a container in place of the one with its id.
    pub fn put(&mut self, container: Container) {
        self.forget(&container.id);
        self.containers.push(container);
    }

    /// The container is gone.
    pub fn forget(&mut self, id: &str) {
        self.containers.retain(|container| container.id != id);
    }
}

impl Memory {
    /// The cluster gives the pod something that it did not have: containers that waited for it try again at once. `pulls`: so do those whose image no
    /// registry gave.
    pub fn given_more(&mut self, pulls: bool) {
        self.volumes.worked();
        self.refresh.worked();
        for container in self.containers.values_mut() {
            let failure = container.pull.failure.as_ref();
            if pulls && failure.is_some_and(|failure| failure.reason.starts_with("ErrImage")) {
                container.pull.worked();
            }
            let failure = container.start.failure.as_ref();
            let waits = |reason| matches!(reason, CONFIG_ERROR | FAILED_MOUNT);
            if failure.is_some_and(|failure| waits(failure.reason)) {
                container.start.worked();
            }
        }
    }

    /// The volumes are as they should be for the next start of these containers. What changed since makes them due again.
    pub fn has_volumes(&mut self, containers: &[String], without_token: bool) {
        for name in containers {
            let container = self.container(name);
            (container.volumes, container.without_token) = (true, without_token);
        }
    }

    /// The files of the node are what they have to be for the next start of these containers.
    pub fn has_host_paths(&mut self, containers: &[String]) {
        for name in containers {
            self.container(name).host_paths = true;
        }
    }

    /// What files are made of changed: they are renewed for what runs, and made again before each start.
    pub fn files_changed(&mut self) {
        self.volumes_due = true;
        for container in self.containers.values_mut() {
            container.volumes = false;
        }
    }

    /// Learns from what the runtime shows: attempts, ends, addresses. Tells whether what is kept on disk changed; it
    /// has to be there before anything is removed, or the next attempt would reuse a number. `words` are the last words of
    /// containers that ended, by id.
    pub fn absorb(&mut self, observed: &Observed, words: &LastWords, now_ms: i64) -> bool {
        if let Some(sandbox) = observed.sandbox.as_ref().filter(|s| !s.ips.is_empty()) {
            self.ips.clone_from(&sandbox.ips);
        }
        let mut containers: Vec<_> = observed.containers.iter().collect();
        containers.sort_by_key(|container| container.attempt);
        let mut changed = false;
        for container in containers {
            let memory = self.containers.entry(container.name.clone()).or_default();
            changed |= memory.absorb(container, words, now_ms);
        }
        changed
    }

    /// The pod gets a new network, and its init containers run again in it. Tells whether what is kept on disk changed.
    pub fn begins_anew(&mut self) -> bool {
        let mut changed = std::mem::take(&mut self.initialized);
        for container in self.containers.values_mut() {
            changed |= container.first_attempt != container.next_attempt;
            container.first_attempt = container.next_attempt;
        }
        changed
    }

    /// What is left of a grace that began with the end of the pod's containers, at least [`LEAST_GRACE`] unless there was none.
    pub fn left_of(&self, grace: Duration, now_ms: i64) -> Duration {
        let passed = self
            .ending_ms
            .map_or(0, |since| now_ms.saturating_sub(since));
        let passed = Duration::from_millis(u64::try_from(passed).unwrap_or(0));
        grace.saturating_sub(passed).max(LEAST_GRACE.min(grace))
    }

    /// In place of a record that cannot be read: what the managers know of the pod. Containers of which nothing is left, and which
    /// ran, ended unseen; so none runs twice that must not.
    pub fn unreadable(pod: &Pod, observed: &Observed, now_ms: i64) -> Self {
        let mut memory = Self::default();
        let statuses = pod.status.iter();
        let statuses = statuses.flat_map(|s| {
            s.init_container_statuses
                .iter()
                .chain(&s.container_statuses)
        });
        let ran = statuses.filter(|s| !s.container_id.is_empty() || s.restart_count > 0);
        let main = |name: &str| Role::of(pod, name) == Some(Role::Main);
        memory.initialized = ran.clone().any(|it| main(&it.name))
            || observed.containers.iter().any(|it| main(&it.name));
        for status in ran.filter(|s| observed.current(&s.name).is_none()) {
            let id = status.container_id.strip_prefix("containerd://");
            let told = status.state.as_ref().and_then(|it| it.terminated.clone());
            let exit = told.unwrap_or_else(|| ContainerStateTerminated {
                message: "What was recorded of the container cannot be read.".to_owned(),
                ..lost(id.unwrap_or_default(), now_ms)
            });
            memory.container(&status.name).ended(Exit {
                attempt: u32::try_from(status.restart_count).unwrap_or(0),
                terminated: exit,
            });
        }
        memory
    }

    /// Learns from what the managers have of a pod that this node has no record of: one that has ended for good does not run again.
    pub fn take_end(&mut self, pod: &Pod, observed: &Observed) {
        let ends = |status: &PodStatus| {
            let whole = matches!(status.reason.as_str(), DEADLINE_EXCEEDED | EVICTED);
            whole || restart_policy(pod) != RestartPolicy::Always
        };
        let ended = pod.status.as_ref().filter(|status| {
            ends(status) && matches!(status.phase.as_str(), "Succeeded" | "Failed")
        });
        if self.finished.is_none() && observed.containers.is_empty() {
            self.finished = ended.cloned();
        }
    }

    /// What is remembered of a container.
    pub fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }
}

impl ContainerMemory {
    fn absorb(&mut self, container: &Container, words: &LastWords, now_ms: i64) -> bool {
        let attempt = container.attempt;
        let Some(mut terminated) = terminated(container, now_ms) else {
            // A number is taken once it is seen; that needs no record as long as the container is there.
            self.next_attempt = self.next_attempt.max(attempt);
            return false;
        };
        if attempt < self.next_attempt {
            return false;
        }
        if let Some(words) = words.get(&container.id) {
            terminated.message.clone_from(words);
        }
        self.ended(Exit {
            attempt,
            terminated,
        });
        true
    }

    /// What was prepared for the next start is prepared anew: what it was made of may be another by then.
    pub fn prepares_anew(&mut self) {
        (self.volumes, self.host_paths) = (false, false);
    }

    /// The start of an attempt failed because of what it should run. That is its end.
    pub fn failed_to_start(&mut self, id: &str, attempt: u32, message: String, now_ms: i64) {
        if let Some(exit) = self.last_exit() {
            self.crash = self.crash.restarted(exit.finished_ms(), now_ms);
        }
        self.ended(Exit {
            attempt,
            terminated: ContainerStateTerminated {
                exit_code: START_ERROR,
                reason: "StartError".to_owned(),
                message,
                finished_at: Some(to_time(now_ms)),
                container_id: container_id(id),
                ..Default::default()
            },
        });
    }

    /// Whether the container with this id may get traffic, by its hook and its probes.
    pub fn is_ready(&self, id: &str) -> bool {
        !self.is_starting(id) && self.probed(id).is_none_or(|known| known.verdict.ready)
    }

    /// Whether the container with this id has started, by its hook and its startup probe.
    pub fn is_started(&self, id: &str) -> bool {
        !self.is_starting(id) && self.probed(id).is_none_or(|known| known.verdict.started)
    }

    /// Whether the hook after the start of the container with this id is not done yet.
    pub fn is_starting(&self, id: &str) -> bool {
        self.starting.as_deref() == Some(id)
    }

    /// The probe because of which the container with this id is to be ended, and the probe's own grace.
    pub fn wants_kill(&self, id: &str) -> Option<(Kind, Option<Duration>)> {
        let known = self.probed(id)?;
        Some((known.verdict.failed?, known.grace))
    }

    fn probed(&self, id: &str) -> Option<&Known> {
        self.probed.as_ref().filter(|known| known.id == id)
    }

    fn ended(&mut self, exit: Exit) {
        self.next_attempt = exit.attempt.saturating_add(1);
        self.exits.push(exit);
        if self.exits.len() > 2 {
            self.exits.remove(0);
        }
    }

    /// The newest end.
    pub fn last_exit(&self) -> Option<&Exit> {
        self.exits.last()
    }

    /// The newest end in the pod's present network.
    pub fn exit_here(&self) -> Option<&Exit> {
        let last = self.last_exit();
        last.filter(|exit| exit.attempt >= self.first_attempt)
    }
}

/// How a container ended; `None` while it has not.
fn terminated(container: &Container, now_ms: i64) -> Option<ContainerStateTerminated> {
    let id = container_id(&container.id);
    match container.state {
        ContainerState::Created | ContainerState::Running { .. } => None,
        ContainerState::Exited {
            code,
            oom_killed,
            started_at_ms,
            finished_at_ms,
        } => {
            let exit_code = i32::try_from(code).unwrap_or(i32::MAX);
            let reason = match (oom_killed, exit_code) {
                (true, _) => "OOMKilled",
                (false, 0) => "Completed",
                (false, _) => "Error",
            };
            Some(ContainerStateTerminated {
                exit_code,
                reason: reason.to_owned(),
                started_at: (started_at_ms > 0).then(|| to_time(started_at_ms)),
                finished_at: Some(to_time(finished_at_ms)),
                container_id: id,
                ..Default::default()
            })
        }
        ContainerState::Lost => Some(lost(&container.id, now_ms)),
    }
}

fn lost(id: &str, now_ms: i64) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: LOST,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container's end was not seen: the machine or its runtime went down with it."
            .to_owned(),
        finished_at: Some(to_time(now_ms)),
        container_id: container_id(id),
        ..Default::default()
    }
}

/// A container's id as the API has it.
pub fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}
