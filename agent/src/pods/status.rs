//! What to say about a pod: a pure function, by Kubernetes' rules.

use barge_proto::v1::{
    self, Condition, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod, PodIp, PodStatus,
};

use super::{
    memory::{ContainerMemory, Memory, Observed, container_id},
    plan::{Now, crash_wait, is_running},
    spec::{RestartPolicy, Role, containers, init_containers, restart_policy},
};
use crate::{clock::to_time, runtime};

/// For how long a failed pull is ErrImagePull before it is ImagePullBackOff, in milliseconds.
pub const FRESH_MS: i64 = 2000;

/// What a status is made of.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The pod as the managers know it.
    pub pod: &'a Pod,
    /// What the runtime has of it.
    pub observed: &'a Observed,
    /// What is remembered.
    pub memory: &'a Memory,
    /// The node's address.
    pub host_ip: &'a str,
    /// The pod is being ended.
    pub ending: bool,
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// What was said before, for the times of transitions.
    pub previous: Option<&'a PodStatus>,
}

impl<'a> View<'a> {
    fn now(self) -> Now<'a> {
        Now {
            pod: self.pod,
            observed: self.observed,
            memory: self.memory,
        }
    }
}

/// The phase of a pod that ended and should not have, or not so.
const FAILED: &str = "Failed";

/// One of the three.
enum State {
    Waiting(ContainerStateWaiting),
    Running(ContainerStateRunning),
    Terminated(ContainerStateTerminated),
}

impl From<State> for ContainerState {
    fn from(state: State) -> Self {
        let mut all = Self::default();
        match state {
            State::Waiting(waiting) => all.waiting = Some(waiting),
            State::Running(running) => all.running = Some(running),
            State::Terminated(terminated) => all.terminated = Some(terminated),
        }
        all
    }
}

/// The pod's status.
pub fn status(view: View<'_>) -> PodStatus {
    if let Some(finished) = &view.memory.finished {
        return finished.clone();
    }
    let of = |all: &[v1::Container]| -> Vec<_> {
        all.iter().map(|it| container_status(view, it)).collect()
    };
    let statuses = of(containers(view.pod));
    let init = of(init_containers(view.pod));
    let phase = phase(view, &init, &statuses);
    let failed = view.memory.failed.clone().filter(|_| phase == FAILED);
    let (reason, message) = failed.map(|it| (it.reason, it.message)).unwrap_or_default();
    let ips = view.memory.ips.iter().map(ToString::to_string);
    let pod_ips: Vec<_> = ips.map(|ip| PodIp { ip }).collect();
    PodStatus {
        conditions: conditions(view, phase, &init, &statuses),
        reason,
        message,
        phase: phase.to_owned(),
        host_ip: view.host_ip.to_owned(),
        pod_ip: pod_ips.first().map(|p| p.ip.clone()).unwrap_or_default(),
        pod_ips,
        start_time: Some(start_time(view)),
        container_statuses: statuses,
        init_container_statuses: init,
    }
}

fn start_time(view: View<'_>) -> v1::Time {
    let known = view.previous.and_then(|previous| previous.start_time);
    known.unwrap_or_else(|| match view.memory.started_ms {
        0 => to_time(view.now_ms),
        ms => to_time(ms),
    })
}

fn container_status(view: View<'_>, container: &v1::Container) -> ContainerStatus {
    let none = ContainerMemory::default();
    let memory = view.memory.containers.get(&container.name).unwrap_or(&none);
    let current = view.observed.current(&container.name);
    let state = container_state(view, container, memory, current);
    let running = matches!(state, State::Running(_));
    let attempt = current
        .map(|current| current.attempt)
        .or(memory.last_exit().map(|exit| exit.attempt));
    // The state before this one: the newest end that is not what `state` tells already.
    let told = match &state {
        State::Terminated(terminated) => Some(&terminated.container_id),
        _ => None,
    };
    let last = memory
        .exits
        .iter()
        .rev()
        .find(|exit| Some(&exit.terminated.container_id) != told);
    ContainerStatus {
        name: container.name.clone(),
        ready: running && !view.ending && current.is_some_and(|c| memory.is_ready(&c.id)),
        started: Some(running && current.is_some_and(|c| memory.is_started(&c.id))),
        restart_count: attempt.map_or(0, |n| i32::try_from(n).unwrap_or(i32::MAX)),
        image: container.image.clone(),
        image_id: current.map(|c| c.image_id.clone()).unwrap_or_default(),
        container_id: match current {
            Some(current) => container_id(&current.id),
            None => memory
                .last_exit()
                .map(|exit| exit.terminated.container_id.clone())
                .unwrap_or_default(),
        },
        last_state: last.map(|exit| State::Terminated(exit.terminated.clone()).into()),
        state: Some(state.into()),
    }
}

fn container_state(
    view: View<'_>,
    container: &v1::Container,
    memory: &ContainerMemory,
    current: Option<&runtime::Container>,
) -> State {
    if let Some(runtime::ContainerState::Running { started_at_ms, .. }) = current.map(|c| &c.state)
    {
        return State::Running(ContainerStateRunning {
            started_at: Some(to_time(*started_at_ms)),
        });
    }
    let now = view.now();
    let exit = now.counted(container);
    if let Some(exit) = exit
        && (view.ending || now.is_over() || !now.starts_again(container))
    {
        return State::Terminated(exit.terminated.clone());
    }
    if let Some(waiting) = waiting_for_retry(view, container, memory) {
        return State::Waiting(waiting);
    }
    match exit {
        Some(_) if crash_wait(memory, view.now_ms).is_some() => {
            State::Waiting(crash_loop(view, container, memory))
        }
        Some(exit) => State::Terminated(exit.terminated.clone()),
        None => State::Waiting(waiting(not_yet(view), String::new())),
    }
}

/// Why a container of which nothing failed does not run yet.
fn not_yet(view: View<'_>) -> &'static str {
    match init_containers(view.pod).is_empty() {
        true => "ContainerCreating",
        false => "PodInitializing",
    }
}

/// What a container waits for that failed before.
fn waiting_for_retry(
    view: View<'_>,
    container: &v1::Container,
    memory: &ContainerMemory,
) -> Option<ContainerStateWaiting> {
    if let Some(failure) = &memory.pull.failure {
        let fresh = view.now_ms - failure.failed_ms < FRESH_MS;
        return Some(match failure.reason {
            "ErrImagePull" if !fresh => waiting(
                "ImagePullBackOff",
                format!(
                    "Back-off pulling image \"{}\": {}",
                    container.image, failure.message
                ),
            ),
            reason => waiting(reason, failure.message.clone()),
        });
    }
    if let Some(failure) = &memory.start.failure {
        let reason = match failure.reason {
            runtime::FAILED_MOUNT => not_yet(view),
            reason => reason,
        };
        return Some(waiting(reason, failure.message.clone()));
    }
    // Of volumes, as of the sandbox, only who does not run waits for them.
    let Memory {
        volumes,
        host_paths,
        ..
    } = view.memory;
    let volumes = volumes.failure.as_ref().or(host_paths.failure.as_ref());
    let volumes = volumes.filter(|_| crash_wait(memory, view.now_ms).is_none());
    let failure = volumes.or(view.memory.sandbox.failure.as_ref())?;
    Some(waiting(not_yet(view), failure.message.clone()))
}

fn crash_loop(
    view: View<'_>,
    container: &v1::Container,
    memory: &ContainerMemory,
) -> ContainerStateWaiting {
    let meta = view.pod.metadata.clone().unwrap_or_default();
    let message = format!(
        "back-off {}s restarting failed container={} pod={}_{}({})",
        memory.crash.delay_ms / 1000,
        container.name,
        meta.name,
        meta.namespace,
        meta.uid
    );
    waiting("CrashLoopBackOff", message)
}

fn waiting(reason: &str, message: String) -> ContainerStateWaiting {
    ContainerStateWaiting {
        reason: reason.to_owned(),
        message,
    }
}

/// Kubernetes' getPhase.
fn phase(view: View<'_>, init: &[ContainerStatus], statuses: &[ContainerStatus]) -> &'static str {
    let now = view.now();
    if now.is_over() && (view.memory.failed.is_some() || now.init_failed()) {
        // Failed is final: it is said when nothing runs any more.
        let runs = view.observed.containers.iter().any(is_running);
        return match (runs, now.is_initialized()) {
            (false, _) => FAILED,
            (true, true) => "Running",
            (true, false) => "Pending",
        };
    }
    if !now.is_initialized() && !view.ending {
        return "Pending";
    }
    let sidecar_runs = init.iter().any(|status| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.running.is_some())
    });
    let (mut waiting, mut running, mut succeeded, mut failed) = (0, 0, 0, 0);
    for status in statuses {
        let state = status.state.clone().unwrap_or_default();
        match (state.running, state.terminated) {
            (Some(_), _) => running += 1,
            (None, Some(terminated)) if terminated.exit_code == 0 => succeeded += 1,
            (None, Some(_)) => failed += 1,
            // It ran before and will again.
            (None, None) if status.last_state.is_some() => failed += 1,
            (None, None) => waiting += 1,
        }
    }
    if waiting > 0 || statuses.is_empty() {
        return "Pending";
    }
    if running > 0 || sidecar_runs {
        return "Running";
    }
    match restart_policy(view.pod) {
        // Ended for good, whatever the policy.
        _ if view.ending && failed == 0 => "Succeeded",
        _ if view.ending => FAILED,
        RestartPolicy::Always => "Running",
        _ if failed == 0 && succeeded == statuses.len() => "Succeeded",
        RestartPolicy::Never => FAILED,
        RestartPolicy::OnFailure => "Running",
    }
}

fn conditions(
    view: View<'_>,
    phase: &str,
    init: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Vec<Condition> {
    let (initialized, why, uninitialized) = initialized(view, phase, init);
    let sidecar = |name: &str| Role::of(view.pod, name) == Some(Role::Sidecar);
    let stay = init.iter().filter(|status| sidecar(&status.name));
    let unready: Vec<_> = stay
        .chain(statuses)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    let (ready, reason, message) = match phase {
        "Succeeded" => ("False", "PodCompleted", String::new()),
        "Failed" => ("False", "PodFailed", String::new()),
        _ if unready.is_empty() => ("True", "", String::new()),
        _ => {
            let names = unready.join(" ");
            let message = format!("containers with unready status: [{names}]");
            ("False", "ContainersNotReady", message)
        }
    };
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let before = view
            .previous
            .and_then(|previous| previous.conditions.iter().find(|c| c.r#type == kind));
        let since = before
            .filter(|before| before.status == status)
            .and_then(|before| before.last_transition_time)
            .unwrap_or_else(|| to_time(view.now_ms));
        Condition {
            r#type: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Some(since),
            ..Default::default()
        }
    };
    vec![
        condition("Initialized", initialized, why, &uninitialized),
        condition("Ready", ready, reason, &message),
        condition("ContainersReady", ready, reason, &message),
        condition("PodScheduled", "True", "", ""),
    ]
}

/// Status, reason and message of the condition Initialized.
fn initialized(
    view: View<'_>,
    phase: &str,
    init: &[ContainerStatus],
) -> (&'static str, &'static str, String) {
    if init.is_empty() || view.now().is_initialized() || phase == "Succeeded" {
        return ("True", "", String::new());
    }
    let done = |status: &&ContainerStatus| {
        let ended = status.state.iter().flat_map(|it| &it.terminated).next();
        let sidecar = Role::of(view.pod, &status.name) == Some(Role::Sidecar);
        ended.is_some_and(|it| it.exit_code == 0) || (sidecar && status.started == Some(true))
    };
    let incomplete = init.iter().filter(|status| !done(status));
    let names: Vec<_> = incomplete.map(|status| status.name.as_str()).collect();
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    ("False", "ContainersNotInitialized", message)
}

/// When the status changes although nothing happens: a failed pull becomes a back-off.
pub fn changes_at(memory: &Memory, now_ms: i64) -> Option<i64> {
    memory
        .containers
        .values()
        .filter_map(|container| container.pull.failure.as_ref())
        .map(|failure| failure.failed_ms + FRESH_MS)
        .filter(|at| *at > now_ms)
        .min()
}

#[cfg(test)]
mod tests;
