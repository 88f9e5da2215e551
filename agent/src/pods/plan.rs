//! The next steps of a pod: a pure function of what it should be, what there is, and what is remembered.
//!
//! Invariants, asserted over generated cases: an attempt of a container is started only when no other attempt of it
//! exists; what runs as it should is not touched; repeated application ends in a state that needs no step.

use std::time::Duration;

use barge_proto::v1::{self, Pod};

use super::{
    memory::{ContainerMemory, EVICTED, Memory, Observed},
    spec::Role,
};
use crate::runtime::{Container, ContainerState};

mod stage;

pub use stage::Now;

/// Between two looks at a pod whose notes cannot be read, in milliseconds.
const DAMAGED_MS: i64 = 30_000;

/// Between TERM and KILL for a pod that takes too much of the disk: as Kubernetes, it goes at once.
const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// Between two counts of what is in a pod's volumes, in milliseconds.
const MEASURE_MS: i64 = 30_000;
/// Before the count that decides, after one that found too much.
const MEASURE_AGAIN_MS: i64 = 5_000;

/// What a pod on this node is meant for.
#[derive(Debug, Clone, Copy)]
pub enum Goal<'a> {
    /// To run.
    Run(&'a Pod),
    /// To end, its processes within this time. What the pod is may not be known any more.
    End(Option<&'a Pod>, Duration),
    /// To be left as it is: nobody here knows what it should be, and its deletion was not recorded.
    Leave,
}

/// Something for the runtime to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the pod's network namespace.
    CreateSandbox,
    /// Make a container's image present.
    Pull {
        /// Name of the container.
        container: String,
    },
    /// Make the pod's volumes as they should be.
    Volumes {
        /// A container starts next. Otherwise it is about the files of those that run.
        starting: bool,
    },
    /// Look whether files of the node that the pod names are what they have to be. It may take as long as their file system pleases.
    LookAtHostPaths,
    /// Count what is in volumes that have a limit.
    Measure,
    /// Create and start a container.
    Start {
        /// Name of the container.
        container: String,
        /// Which attempt.
        attempt: u32,
    },
    /// Stop a container.
    Stop {
        /// The runtime's id.
        id: String,
        /// Between TERM and KILL.
        grace: Duration,
    },
    /// Remove a container that does not run.
    Remove {
        /// The runtime's id.
        id: String,
    },
    /// Remove the network namespace and whatever else is left.
    RemoveSandbox,
    /// Give back addresses and network namespace of a pod that has ended for good. What it wrote stays until it is deleted.
    ReleaseSandbox,
}

impl Step {
    /// A word for the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateSandbox => "sandbox",
            Self::Pull { .. } => "image",
            Self::Volumes { .. } => "volumes",
            Self::LookAtHostPaths => "host paths",
            Self::Measure => "measure",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Remove { .. } => "remove",
            Self::RemoveSandbox => "remove sandbox",
            Self::ReleaseSandbox => "release sandbox",
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps that do not depend on each other: they may be done at once. Plan again afterwards.
    pub steps: Vec<Step>,
    /// When to plan again although nothing happened, in milliseconds since the epoch.
    pub wake_ms: Option<i64>,
    /// Nothing of the pod is left.
    pub gone: bool,
}

impl Plan {
    /// Leaves only what may be done while the pod's record cannot be written, until `again_ms`: what ends containers, which may make room on the disk that is full, what finds
    /// out whether they take too much, and the files of those that run.
    pub fn without_a_record(&mut self, volumes_due: bool, again_ms: i64) {
        self.steps.retain_mut(|step| match step {
            Step::Volumes { starting } => {
                *starting = false;
                volumes_due
            }
            step => matches!(step, Step::Stop { .. } | Step::Measure),
        });
        self.wake(Some(again_ms));
    }

    fn wake(&mut self, at_ms: Option<i64>) {
        self.wake_ms = match (self.wake_ms, at_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Plans the next steps of a pod.
pub fn next_steps(goal: Goal<'_>, observed: &Observed, memory: &Memory, now_ms: i64) -> Plan {
    match goal {
        Goal::Run(pod) => run(pod, observed, memory, now_ms),
        Goal::End(pod, grace) => end(pod, grace, observed, memory, now_ms),
        Goal::Leave => leave(observed, memory, now_ms),
    }
}

fn end(
    pod: Option<&Pod>,
    grace: Duration,
    observed: &Observed,
    memory: &Memory,
    now_ms: i64,
) -> Plan {
    let mut plan = Plan::default();
    if let Some(until) = memory.teardown.until(now_ms) {
        plan.wake(Some(until));
        return plan;
    }
    plan.steps = in_order(pod, observed, memory, grace, now_ms);
    if observed.containers.is_empty() {
        // Also without a sandbox in sight: more than it may be left.
        if observed.sandbox.is_some() || !memory.removed {
            plan.steps.push(Step::RemoveSandbox);
        } else {
            plan.gone = true;
        }
    }
    plan
}

/// Removes a pod of which no container ever ran: it was half made. Anything else stays.
fn leave(observed: &Observed, memory: &Memory, now_ms: i64) -> Plan {
    let mut containers = observed.containers.iter();
    match containers.all(|container| container.state == ContainerState::Created) {
        true => end(None, Duration::ZERO, observed, memory, now_ms),
        false => Plan::default(),
    }
}

/// The step that brings a container nearer to not being there.
fn clear(container: &Container, grace: Duration) -> Step {
    let id = container.id.clone();
    match container.state {
        ContainerState::Running { .. } => Step::Stop { id, grace },
        _ => Step::Remove { id },
    }
}

fn run(pod: &Pod, observed: &Observed, memory: &Memory, now_ms: i64) -> Plan {
    let mut plan = Plan::default();
    if memory.finished.is_some() {
        return give_back(pod, observed, memory, now_ms);
    }
    let now = Now {
        pod,
        observed,
        memory,
    };
    let here = Here {
        observed,
        memory,
        now_ms,
    };
    if observed.is_damaged() && observed.containers.iter().any(is_running) && !now.is_over() {
        set_aside(pod, here, &mut plan);
        return plan;
    }
    clear_strays(pod, observed, memory, now_ms, &mut plan);
    if now.is_over() {
        let failed = memory.failed.as_ref();
        let grace = match failed.is_some_and(|it| it.reason == EVICTED) {
            true => EVICTION_GRACE,
            false => super::spec::grace(Some(pod)),
        };
        let mut steps = in_order(Some(pod), observed, memory, grace, now_ms);
        // What ended stays until the pod's last status is made of it.
        steps.retain(|step| matches!(step, Step::Stop { .. }));
        tear_down(steps, memory, now_ms, &mut plan);
        return plan;
    }
    plan.wake(super::deadline::at_ms(pod, memory));
    let has = Has {
        volumes: memory.automounts || super::volumes::has_any(pod),
        host_paths: super::volumes::has_host_paths(pod),
    };
    let mut wanted = false;
    measure(pod, here, &mut plan);
    for container in now.due() {
        let none = ContainerMemory::default();
        let remembered = memory.containers.get(&container.name).unwrap_or(&none);
        let again = now.starts_again(container);
        let cleared = match observed.current(&container.name) {
            None if !again => continue,
            None => true,
            Some(current) => match current.state {
                ContainerState::Running { .. } => {
                    if let Some((_, grace)) = remembered.wants_kill(&current.id) {
                        let grace = grace.unwrap_or_else(|| super::spec::grace(Some(pod)));
                        let id = current.id.clone();
                        tear_down(vec![Step::Stop { id, grace }], memory, now_ms, &mut plan);
                    }
                    continue;
                }
                // A start that failed for good, half undone.
                ContainerState::Created if !again => {
                    let id = current.id.clone();
                    tear_down(vec![Step::Remove { id }], memory, now_ms, &mut plan);
                    continue;
                }
                ContainerState::Created => false,
                ContainerState::Exited { .. } | ContainerState::Lost if !again => continue,
                ContainerState::Exited { .. } | ContainerState::Lost => false,
            },
        };
        if let Some(until) = crash_wait(remembered, now_ms) {
            plan.wake(Some(until));
            continue;
        }
        wanted = true;
        prepare(container, remembered, here, (cleared, has), &mut plan);
    }
    if memory.volumes_due && observed.containers.iter().any(is_running) {
        make_volumes(here, false, &mut plan);
    }
    if wanted && !observed.has_network() {
        match memory.sandbox.until(now_ms) {
            None => plan.steps.push(Step::CreateSandbox),
            until => plan.wake(until),
        }
    }
    plan
}

/// What runs goes on running, and nothing is made beside it. The last one that runs may be ended for its probe: then the pod's place is made anew.
fn set_aside(pod: &Pod, here: Here<'_>, plan: &mut Plan) {
    plan.wake(Some(here.now_ms.saturating_add(DAMAGED_MS)));
    let running = here.observed.containers.iter().filter(|it| is_running(it));
    let [last] = running.collect::<Vec<_>>()[..] else {
        return;
    };
    let remembered = here.memory.containers.get(&last.name);
    if let Some((_, grace)) = remembered.and_then(|it| it.wants_kill(&last.id)) {
        let grace = grace.unwrap_or_else(|| super::spec::grace(Some(pod)));
        let id = last.id.clone();
        tear_down(
            vec![Step::Stop { id, grace }],
            here.memory,
            here.now_ms,
            plan,
        );
    }
}

/// The steps by which the containers of a pod come to their end. Sidecars serve the others, so they are stopped after them, the last one
/// first, in what is left of the grace.
fn in_order(
    pod: Option<&Pod>,
    observed: &Observed,
    memory: &Memory,
    grace: Duration,
    now_ms: i64,
) -> Vec<Step> {
    let role = |container: &Container| pod.and_then(|pod| Role::of(pod, &container.name));
    let is_sidecar = |container: &Container| role(container) == Some(Role::Sidecar);
    let there = || observed.containers.iter();
    let others_run = there().any(|it| is_running(it) && !is_sidecar(it));
    let sidecars = pod.map_or(&[][..], super::spec::init_containers).iter();
    let next = match others_run {
        true => None,
        false => sidecars
            .rev()
            .find(|sidecar| there().any(|it| it.name == sidecar.name && is_running(it))),
    };
    let left = memory.left_of(grace, now_ms);
    let steps = there().filter_map(|container| match container.state {
        ContainerState::Running { .. } if is_sidecar(container) => {
            let its_turn = next.is_some_and(|next| next.name == container.name);
            its_turn.then(|| clear(container, left))
        }
        _ => Some(clear(container, grace)),
    });
    steps.collect()
}

/// What a pod that has ended for good does not need any more: its containers, whose ends are on record, then its network.
fn give_back(pod: &Pod, observed: &Observed, memory: &Memory, now_ms: i64) -> Plan {
    let mut plan = Plan::default();
    let grace = super::spec::grace(Some(pod));
    let containers = observed.containers.iter();
    let mut steps: Vec<_> = containers.map(|c| clear(c, grace)).collect();
    if steps.is_empty() && observed.has_network() {
        steps.push(Step::ReleaseSandbox);
    }
    tear_down(steps, memory, now_ms, &mut plan);
    plan
}

#[derive(Clone, Copy)]
struct Here<'a> {
    observed: &'a Observed,
    memory: &'a Memory,
    now_ms: i64,
}

/// What a pod has that is looked at before each start of its containers.
#[derive(Clone, Copy)]
struct Has {
    volumes: bool,
    host_paths: bool,
}

/// The steps of a container that should run and does not. `cleared`: no attempt of it is there. `has` is about its pod.
fn prepare(
    container: &v1::Container,
    remembered: &ContainerMemory,
    here: Here<'_>,
    (cleared, has): (bool, Has),
    plan: &mut Plan,
) {
    let Here {
        observed,
        memory,
        now_ms,
    } = here;
    if let Some(until) = remembered.start.until(now_ms) {
        plan.wake(Some(until));
        return;
    }
    let name = &container.name;
    if !cleared {
        // Old attempts first: two are never there at once. Its end is on record by now.
        let attempts = observed.containers.iter().filter(|c| c.name == *name);
        let steps = attempts
            .filter(|old| !is_running(old))
            .map(|old| Step::Remove { id: old.id.clone() });
        tear_down(steps.collect(), memory, now_ms, plan);
    }
    if remembered.image.is_none() {
        match remembered.pull.until(now_ms) {
            None => plan.steps.push(Step::Pull {
                container: name.clone(),
            }),
            until => plan.wake(until),
        }
        return;
    }
    let (volumes, host_paths) = (
        !has.volumes || remembered.volumes,
        !has.host_paths || remembered.host_paths,
    );
    if !volumes {
        make_volumes(here, true, plan);
    }
    if !host_paths {
        look_at_host_paths(here, plan);
    }
    if volumes && host_paths && cleared && observed.has_network() {
        plan.steps.push(Step::Start {
            container: name.clone(),
            attempt: remembered.next_attempt,
        });
    }
}

/// Of pods with volumes on disk that have a limit, while containers can write to them.
fn measure(pod: &Pod, here: Here<'_>, plan: &mut Plan) {
    let writes = here.observed.containers.iter().any(is_running);
    if !writes || !super::storage::is_limited(pod) {
        return;
    }
    let pause = match here.memory.takes_too_much {
        true => MEASURE_AGAIN_MS,
        false => MEASURE_MS,
    };
    let due = here.memory.measured_ms.min(here.now_ms) + pause;
    match due > here.now_ms {
        true => plan.wake(Some(due)),
        false => plan.steps.push(Step::Measure),
    }
}

/// Volumes have their place with the sandbox, and go with it.
fn make_volumes(here: Here<'_>, starting: bool, plan: &mut Plan) {
    if !here.observed.has_network() {
        return;
    }
    let tries = match starting {
        true => &here.memory.volumes,
        false => &here.memory.refresh,
    };
    match tries.until(here.now_ms) {
        None if plan.steps.contains(&Step::Volumes { starting: true }) => {}
        None => plan.steps.push(Step::Volumes { starting }),
        until => plan.wake(until),
    }
}

/// A step of its own: a file system that does not answer holds up nothing but the starts of its pod.
fn look_at_host_paths(here: Here<'_>, plan: &mut Plan) {
    match here.memory.host_paths.until(here.now_ms) {
        None if plan.steps.contains(&Step::LookAtHostPaths) => {}
        None => plan.steps.push(Step::LookAtHostPaths),
        until => plan.wake(until),
    }
}

/// Clears what is of this pod and should not be: containers that the pod does not have, and attempts older than the newest.
fn clear_strays(pod: &Pod, observed: &Observed, memory: &Memory, now_ms: i64, plan: &mut Plan) {
    let grace = super::spec::grace(Some(pod));
    let strays = observed.containers.iter().filter(|container| {
        let known = super::spec::container(pod, &container.name).is_some();
        let newest = observed
            .current(&container.name)
            .is_some_and(|current| current.id == container.id);
        !known || !newest
    });
    let steps = strays.map(|container| clear(container, grace));
    tear_down(steps.collect(), memory, now_ms, plan);
}

/// Adds steps that stop or remove, each once, unless such a step failed a moment ago.
fn tear_down(steps: Vec<Step>, memory: &Memory, now_ms: i64, plan: &mut Plan) {
    if steps.is_empty() {
        return;
    }
    if let Some(until) = memory.teardown.until(now_ms) {
        plan.wake(Some(until));
        return;
    }
    for step in steps {
        if !plan.steps.contains(&step) {
            plan.steps.push(step);
        }
    }
}

/// Whether a container's first process lives.
pub fn is_running(container: &Container) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

/// Until when the back-off holds a container; `None` when it may start.
pub fn crash_wait(remembered: &ContainerMemory, now_ms: i64) -> Option<i64> {
    let exit = remembered.last_exit()?;
    remembered.crash.until(exit.finished_ms(), now_ms)
}

/// Whether all containers of a pod have ended and none will start again.
pub fn is_finished(pod: &Pod, observed: &Observed, memory: &Memory) -> bool {
    let now = Now {
        pod,
        observed,
        memory,
    };
    now.is_over() && !observed.containers.iter().any(is_running)
}

#[cfg(test)]
mod tests;
