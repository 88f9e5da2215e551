//! One plan's steps: done at once, their results remembered, what matters told as events.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use barge_proto::v1::Pod;
use futures::{StreamExt, stream::FuturesUnordered};

use super::{Pad, Worker, pulling::Got};
use crate::{
    events::{Severity, pod_reference},
    pods::{
        backoff::{Pace, QUICK, SLOW},
        plan::{Step, crash_wait},
        spec,
    },
    runtime::{self, Container, Image, RuntimeError, Sandbox},
};

/// What became of a step.
pub(super) enum Outcome {
    Sandbox(Result<Sandbox, RuntimeError>),
    Pulled(String, Result<Got, RuntimeError>),
    Started(String, Result<Container, RuntimeError>),
    Stopped(String, Result<(), RuntimeError>),
    Removed(String, Result<(), RuntimeError>),
    SandboxRemoved(Result<(), RuntimeError>),
    /// Given up because the managers changed their mind.
    Dropped,
}

impl Worker {
    /// Does the steps. True when the runtime must be asked what there is now.
    pub(super) async fn perform(&self, pad: &mut Pad, steps: Vec<Step>) -> bool {
        let stopping: BTreeSet<_> = steps.iter().filter_map(stopped).collect();
        for id in stopping {
            self.event_of(pad, id, Severity::Normal, "Killing", "Stopping container");
        }
        let mut running: FuturesUnordered<_> = steps
            .into_iter()
            .map(|step| self.perform_one(pad.pod.clone(), self.image_for(pad, &step), step))
            .collect();
        let mut outcomes = Vec::new();
        while let Some(outcome) = running.next().await {
            outcomes.push(outcome);
        }
        drop(running);
        let mut relist = false;
        for outcome in outcomes {
            relist |= self.learn(pad, outcome);
        }
        relist
    }

    fn image_for(&self, pad: &Pad, step: &Step) -> Option<Image> {
        match step {
            Step::Start { container, .. } => pad.memory.containers.get(container)?.image.clone(),
            _ => None,
        }
    }

    async fn perform_one(
        &self,
        pod: Option<Arc<Pod>>,
        image: Option<Image>,
        step: Step,
    ) -> Outcome {
        let runtime = &self.shared.runtime;
        match (step, pod) {
            (Step::Stop { id, grace }, _) => {
                // The agent's own end does not wait for somebody else's grace; stopping goes on when it is back.
                let stop = self.stop_container(&id, grace);
                match self.stop.run_until_cancelled(stop).await {
                    Some(result) => Outcome::Stopped(id, result),
                    None => Outcome::Dropped,
                }
            }
            (Step::Remove { id }, _) => {
                let _permit = self.shared.creations.acquire().await;
                let result = runtime.remove_container(&id).await;
                Outcome::Removed(id, result)
            }
            (Step::RemoveSandbox, _) => {
                let _permit = self.shared.creations.acquire().await;
                Outcome::SandboxRemoved(runtime.remove_sandbox(&self.uid).await)
            }
            (Step::CreateSandbox, Some(pod)) => {
                let mut ready = self.shared.network_ready.clone();
                let ready = ready.wait_for(|ready| *ready);
                if self.while_wanted(ready).await.is_none() {
                    return Outcome::Dropped;
                }
                let _permit = self.shared.creations.acquire().await;
                Outcome::Sandbox(runtime.create_sandbox(&spec::sandbox_spec(&pod)).await)
            }
            (Step::Pull { container }, Some(pod)) => self.pull(&pod, container).await,
            (Step::Start { container, attempt }, Some(pod)) => {
                let result = self.start(&pod, &container, attempt, image).await;
                Outcome::Started(container, result)
            }
            (_, None) => Outcome::Dropped,
        }
    }

    /// Gives up, with `None`, once the pod is to end or the agent is.
    pub(super) async fn while_wanted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut wanted = self.wanted.clone();
        let unwanted = wanted.wait_for(|w| w.pod.as_deref().is_none_or(spec::is_ending));
        tokio::select! {
            result = work => Some(result),
            _ = unwanted => None,
            () = self.stop.cancelled() => None,
        }
    }

    async fn start(
        &self,
        pod: &Pod,
        name: &str,
        attempt: u32,
        image: Option<Image>,
    ) -> Result<Container, RuntimeError> {
        let config_error = |message: String| RuntimeError {
            reason: "CreateContainerConfigError",
            message,
            retryable: false,
        };
        let container = spec::containers(pod)
            .iter()
            .find(|c| c.name == name)
            .ok_or_else(|| config_error("the pod has no such container".to_owned()))?;
        let image = image.ok_or_else(|| config_error("the image was not pulled".to_owned()))?;
        let spec = spec::container_spec(pod, container, attempt, image).map_err(config_error)?;
        let _permit = self.shared.creations.acquire().await;
        self.shared.runtime.start_container(&spec).await
    }

    /// Stops a container; a shorter grace that is asked for meanwhile takes effect at once.
    async fn stop_container(&self, id: &str, mut grace: Duration) -> Result<(), RuntimeError> {
        let mut wanted = self.wanted.clone();
        loop {
            let shorter = wanted.wait_for(|wanted| {
                let pod = wanted.pod.as_deref();
                pod.is_some_and(|pod| spec::is_ending(pod) && spec::grace(Some(pod)) < grace)
            });
            let shorter = tokio::select! {
                result = self.shared.runtime.stop_container(id, grace) => return result,
                Ok(wanted) = shorter => spec::grace(wanted.pod.as_deref()),
            };
            grace = shorter;
        }
    }

    /// Remembers an outcome. True when the runtime must be asked what there is now.
    fn learn(&self, pad: &mut Pad, outcome: Outcome) -> bool {
        let now = self.shared.clock.now_ms();
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
            Outcome::Pulled(name, result) => self.pulled(pad, &name, result, now),
            Outcome::Started(name, Ok(container)) => self.started(pad, &name, container, now),
            Outcome::Started(name, Err(error)) => {
                self.event(pad, Severity::Warning, "Failed", &error.message);
                let gone = error.reason == "ErrImagePull";
                let pace = if gone { QUICK } else { pace(&error) };
                let memory = pad.memory.container(&name);
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
            Outcome::Stopped(_, Err(error))
            | Outcome::Removed(_, Err(error))
            | Outcome::SandboxRemoved(Err(error)) => {
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

    fn started(&self, pad: &mut Pad, name: &str, container: Container, now: i64) {
        for word in ["Created", "Started"] {
            let message = format!("{word} container {name}");
            self.event(pad, Severity::Normal, word, &message);
        }
        let memory = pad.memory.container(name);
        memory.start.worked();
        // The next start asks for the image anew: its tag may have moved, or it was removed.
        memory.image = None;
        if let Some(exit) = memory.last_exit() {
            memory.crash = memory.crash.restarted(exit.finished_ms(), now);
            pad.unsaved = true;
        }
        pad.observed.put(container);
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

    fn event_of(&self, pad: &Pad, id: &str, severity: Severity, reason: &str, message: &str) {
        let name = pad.observed.containers.iter().find(|c| c.id == id);
        let name = name.map_or(id, |container| &container.name);
        self.event(pad, severity, reason, &format!("{message} {name}"));
    }

    pub(super) fn event(&self, pad: &Pad, severity: Severity, reason: &str, message: &str) {
        if let Some(pod) = &pad.pod {
            let recorder = &self.shared.recorder;
            recorder.record(pod_reference(pod), severity, reason, message);
        }
    }
}

fn stopped(step: &Step) -> Option<&str> {
    match step {
        Step::Stop { id, .. } => Some(id),
        _ => None,
    }
}

/// What a person must mend is tried at Kubernetes' pace, what heals by itself sooner.
pub(super) fn pace(error: &RuntimeError) -> Pace {
    match error.reason {
        "RuntimeUnavailable" | "NetworkNotReady" => QUICK,
        _ => SLOW,
    }
}
