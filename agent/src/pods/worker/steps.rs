//! Steps of a plan: begun, their results remembered, what matters told as events.

use std::net::IpAddr;

use tokio_util::sync::CancellationToken;

use super::{
    Pad, Worker,
    hands::{Hands, Outcome},
    hooks::post_start,
};
use crate::{
    events::{Severity, pod_reference},
    pods::{
        backoff::{Pace, QUICK, SLOW},
        memory::{EVICTED, PodFailure},
        plan::{Now, Step, crash_wait, is_running},
        spec,
    },
    probes::state::Kind,
    runtime::{
        self, Container, FAILED_MOUNT, Image, RuntimeError, START_ERROR, names::container_id,
    },
    timing::timed,
};

impl Worker {
    /// Begins what is not under way.
    pub(super) fn begin(&self, pad: &mut Pad, steps: Vec<Step>) {
        for step in steps {
            if !pad.running.admits(&step) {
                continue;
            }
            if let Step::Stop { id, .. } = &step {
                self.tell_killing(pad, id);
            }
            let ended = CancellationToken::new();
            if let Step::Start { container, attempt } = &step {
                self.note_hook(pad, container, *attempt, &ended);
            }
            if matches!(step, Step::Volumes { .. }) {
                // What changes from here on makes them due again.
                pad.memory.volumes_due = false;
            }
            let hands = Hands {
                uid: self.uid.clone(),
                shared: self.shared.clone(),
                wanted: self.wanted.clone(),
                stop: self.stop.clone(),
                over: pad.over.clone(),
                ips: ips(pad),
                automounts: pad.memory.automounts && !goes_without(pad, &step),
                tokens: pad.tokens.clone(),
                ending_ms: pad.memory.ending_ms.filter(|_| !pad.found_ending),
                container: stopped(pad, &step),
                containers: match step {
                    Step::Measure => pad.observed.containers.clone(),
                    _ => Vec::new(),
                },
                ended,
            };
            let (pod, image) = (pad.pod.clone(), image_for(pad, &step));
            let about = step.clone();
            let name = about.name();
            let work = async move {
                let uid = hands.uid.clone();
                timed(&uid, name, hands.perform(pod, image, step)).await
            };
            pad.running.begin(&about, work);
        }
    }

    /// Remembers an outcome. True when the runtime must be asked what there is now.
    pub(super) fn learn(&self, pad: &mut Pad, outcome: Outcome) -> bool {
        let now = self.shared.clock.now_ms();
        if let Outcome::Started(name, ..) = &outcome
            && let Some(id) = pad.memory.container(name).starting.take()
        {
            pad.hooks.remove(&id);
        }
        if let Outcome::Volumes { made_of, .. } = &outcome {
            pad.had_tokens.clone_from(made_of);
            self.take_tokens(pad);
        }
        match outcome {
            Outcome::Sandbox(Ok(sandbox)) => {
                pad.memory.sandbox.worked();
                pad.observed.sandbox = Some(sandbox);
            }
            Outcome::Sandbox(Err(error)) => {
                self.event(
                    pad,
                    Severity::Warning,
                    "FailedCreatePodSandBox",
                    &error.message,
                );
                pad.memory
                    .sandbox
                    .failed(QUICK, error.reason, error.message, now);
            }
            Outcome::Volumes {
                starting,
                made: Ok(without),
                ..
            } => {
                pad.memory.refresh.worked();
                if starting {
                    pad.memory.volumes.worked();
                    // What changed meanwhile is not in them.
                    if !pad.memory.volumes_due {
                        let due = due(pad);
                        pad.memory.has_volumes(&due, without.is_some());
                    }
                }
                if let Some(why) = without {
                    let message = format!("The token of the pod's account is not mounted: {why}");
                    self.event(pad, Severity::Warning, "FailedMount", &message);
                    // Containers that run may have it: theirs is renewed.
                    pad.memory.volumes_due = true;
                }
            }
            Outcome::Volumes {
                starting,
                made: Err(error),
                ..
            } => {
                self.event(pad, Severity::Warning, "FailedMount", &error.message);
                // An object that is missing is tried again when it comes.
                let pace = if error.retryable { QUICK } else { SLOW };
                pad.memory.volumes_due = true;
                let tries = match starting {
                    true => &mut pad.memory.volumes,
                    false => &mut pad.memory.refresh,
                };
                tries.failed(pace, error.reason, error.message, now);
            }
            Outcome::Looked(Ok(())) => {
                pad.memory.host_paths.worked();
                let due = due(pad);
                pad.memory.has_host_paths(&due);
            }
            Outcome::Looked(Err(error)) => {
                self.event(pad, Severity::Warning, "FailedMount", &error.message);
                let pace = if error.retryable { QUICK } else { SLOW };
                let tries = &mut pad.memory.host_paths;
                tries.failed(pace, error.reason, error.message, now);
            }
            Outcome::Measured(Ok(None)) => {
                pad.memory.measured_ms = now;
                pad.memory.takes_too_much = false;
            }
            // What is moved while it is counted may count twice: the next count decides.
            Outcome::Measured(Ok(Some(_))) if !pad.memory.takes_too_much => {
                pad.memory.measured_ms = now;
                pad.memory.takes_too_much = true;
            }
            Outcome::Measured(Ok(Some(why))) => {
                self.event(pad, Severity::Warning, EVICTED, &why);
                pad.memory.failed = Some(PodFailure {
                    reason: EVICTED.to_owned(),
                    message: why,
                });
                pad.unsaved = true;
            }
            Outcome::Measured(Err(error)) => {
                pad.memory.measured_ms = now;
                self.event(pad, Severity::Warning, "VolumeNotMeasured", &error.message);
            }
            Outcome::Pulled(name, result) => self.pulled(pad, &name, result, now),
            Outcome::Started(name, _, Ok(container)) => self.started(pad, &name, container, now),
            Outcome::Started(name, attempt, Err(error)) if error.reason == START_ERROR => {
                self.event(pad, Severity::Warning, "Failed", &error.message);
                let id = container_id(&self.uid, &name, attempt);
                let memory = pad.memory.container(&name);
                memory.start.worked();
                memory.image = None;
                memory.prepares_anew();
                memory.failed_to_start(&id, attempt, error.message, now);
                pad.unsaved = true;
                return true;
            }
            Outcome::Started(name, _, Err(error)) => {
                let mount = error.reason == FAILED_MOUNT;
                let word = if mount { FAILED_MOUNT } else { "Failed" };
                self.event(pad, Severity::Warning, word, &error.message);
                let gone = error.reason == "ErrImagePull";
                let pace = if gone { QUICK } else { pace(&error) };
                let memory = pad.memory.container(&name);
                memory.prepares_anew();
                if gone {
                    // The image went after it was pulled: it is pulled again.
                    memory.image = None;
                }
                memory.start.failed(pace, error.reason, error.message, now);
                // Half of it may be there.
                return true;
            }
            Outcome::Stopped(id, Ok(())) => {
                pad.stopped.push(id);
                return true;
            }
            Outcome::Removed(id, Ok(())) => {
                pad.memory.teardown.worked();
                pad.observed.forget(&id);
            }
            Outcome::SandboxRemoved(Ok(())) => {
                pad.memory.teardown.worked();
                pad.memory.removed = true;
                pad.observed.sandbox = None;
            }
            Outcome::SandboxReleased(Ok(())) => {
                pad.memory.teardown.worked();
                if let Some(sandbox) = &mut pad.observed.sandbox {
                    sandbox.ips.clear();
                }
            }
            Outcome::Stopped(_, Err(error))
            | Outcome::Removed(_, Err(error))
            | Outcome::SandboxRemoved(Err(error))
            | Outcome::SandboxReleased(Err(error)) => {
                self.event(pad, Severity::Warning, "FailedKillPod", &error.message);
                pad.memory
                    .teardown
                    .failed(QUICK, error.reason, error.message, now);
                return true;
            }
            Outcome::Dropped => {}
        }
        false
    }

    /// Until its hook is done, a container that runs has not started.
    fn note_hook(&self, pad: &mut Pad, name: &str, attempt: u32, ended: &CancellationToken) {
        let pod = pad.pod.as_deref();
        let container = pod.and_then(|pod| spec::container(pod, name));
        if container.is_some_and(|it| post_start(it).is_some()) {
            let id = container_id(&self.uid, name, attempt);
            pad.hooks.insert(id.clone(), ended.clone());
            pad.memory.container(name).starting = Some(id);
        }
    }

    fn started(&self, pad: &mut Pad, name: &str, container: Container, now: i64) {
        for word in ["Created", "Started"] {
            let message = format!("{word} container {name}");
            self.event(pad, Severity::Normal, word, &message);
        }
        let memory = pad.memory.container(name);
        memory.start.worked();
        // The next start asks for the image anew: its tag may have moved, or it was removed.
        memory.image = None;
        memory.prepares_anew();
        if let Some(exit) = memory.last_exit() {
            memory.crash = memory.crash.restarted(exit.finished_ms(), now);
            pad.unsaved = true;
        }
        // A listing may have shown its end by now.
        let known = pad
            .observed
            .containers
            .iter()
            .find(|c| c.id == container.id);
        let ended = known.is_some_and(|known| {
            use runtime::ContainerState::{Exited, Lost};
            matches!(known.state, Exited { .. } | Lost)
        });
        if !ended {
            pad.observed.put(container);
        }
    }

    /// Compares what was stopped with what is there now. A container that runs on is stopped again, but not at once.
    pub(super) fn check_stopped(&self, pad: &mut Pad, now: i64) {
        for id in std::mem::take(&mut pad.stopped) {
            let mut containers = pad.observed.containers.iter();
            let runs = containers
                .any(|c| c.id == id && matches!(c.state, runtime::ContainerState::Running { .. }));
            if runs {
                let message = format!("{id} was stopped and still runs");
                self.event(pad, Severity::Warning, "FailedKillPod", &message);
                let teardown = &mut pad.memory.teardown;
                teardown.failed(QUICK, "KillContainerError", message, now);
            } else {
                pad.memory.teardown.worked();
            }
        }
    }

    /// Tells once per attempt that a container waits after a crash.
    pub(super) fn tell_back_off(&self, pad: &mut Pad, now: i64) {
        let waiting: Vec<_> = pad
            .memory
            .containers
            .iter()
            .filter(|(_, memory)| crash_wait(memory, now).is_some())
            .map(|(name, memory)| (name.clone(), memory.next_attempt))
            .collect();
        for key in waiting {
            if pad.told.contains(&key) {
                continue;
            }
            let message = format!("Back-off restarting failed container {}", key.0);
            self.event(pad, Severity::Warning, "BackOff", &message);
            // Only the newest attempt of a container waits.
            pad.told.retain(|(name, _)| *name != key.0);
            pad.told.insert(key);
        }
    }

    fn tell_killing(&self, pad: &Pad, id: &str) {
        let name = pad.observed.containers.iter().find(|c| c.id == id);
        let name = name.map_or(id, |container| &container.name);
        let memory = pad.memory.containers.get(name);
        let failed = memory.and_then(|memory| memory.wants_kill(id));
        let message = match failed.filter(|_| !self.is_ending(pad)) {
            Some((Kind::Startup, _)) => {
                format!("Stopping container {name}, because its startup probe failed")
            }
            Some(_) => format!("Stopping container {name}, because its liveness probe failed"),
            None => format!("Stopping container {name}"),
        };
        self.event(pad, Severity::Normal, "Killing", &message);
    }

    pub(super) fn event(&self, pad: &Pad, severity: Severity, reason: &str, message: &str) {
        if let Some(pod) = &pad.pod {
            let recorder = &self.shared.recorder;
            recorder.record(pod_reference(pod), severity, reason, message);
        }
    }
}

/// The name of the container that a step stops.
fn stopped(pad: &Pad, step: &Step) -> Option<String> {
    let Step::Stop { id, .. } = step else {
        return None;
    };
    let container = pad.observed.containers.iter().find(|it| it.id == *id);
    container.map(|it| it.name.clone())
}

/// The containers that start next.
fn due(pad: &Pad) -> Vec<String> {
    let Some(pod) = pad.pod.as_deref() else {
        return Vec::new();
    };
    let now = Now {
        pod,
        observed: &pad.observed,
        memory: &pad.memory,
    };
    let due = now.due().into_iter().map(|it| &it.name);
    let runs = |name: &str| pad.observed.current(name).is_some_and(is_running);
    due.filter(|name| !runs(name)).cloned().collect()
}

/// Whether a step starts a container without the token that it did not ask for.
fn goes_without(pad: &Pad, step: &Step) -> bool {
    let Step::Start { container, .. } = step else {
        return false;
    };
    let memory = pad.memory.containers.get(container);
    memory.is_some_and(|it| it.without_token)
}

/// The pod's addresses.
fn ips(pad: &Pad) -> Vec<IpAddr> {
    let sandbox = pad.observed.sandbox.as_ref();
    sandbox.map(|it| it.ips.clone()).unwrap_or_default()
}

fn image_for(pad: &Pad, step: &Step) -> Option<Image> {
    match step {
        Step::Start { container, .. } => pad.memory.containers.get(container)?.image.clone(),
        _ => None,
    }
}

/// What a person must mend is tried at Kubernetes' pace, what heals by itself sooner.
pub(super) fn pace(error: &RuntimeError) -> Pace {
    match error.reason {
        "RuntimeUnavailable" | "NetworkNotReady" | FAILED_MOUNT => QUICK,
        _ => SLOW,
    }
}
