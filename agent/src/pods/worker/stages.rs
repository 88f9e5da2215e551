//! The turns of a pod's life that are remembered: initialised, over its time, ending; and the last words of its containers.

use barge_proto::v1::{Container as ApiContainer, Pod};
use tokio_util::sync::CancellationToken;

use super::{Pad, Worker};
use crate::{
    events::Severity,
    pods::{
        deadline,
        memory::LastWords as Words,
        plan::{Now, is_running},
        spec::{self, RestartPolicy},
    },
    runtime::{ContainerState, LastWords},
};

/// Bytes of last words that all containers of a pod may leave together, and one of them (Kubernetes' MaxPodTerminationMessageLogLength and
/// MaxContainerTerminationMessageLength).
const MOST: (usize, usize) = (12 * 1024, 4096);

impl Worker {
    /// Takes the turns that have come. Those that are kept are saved before anything is done because of them.
    pub(super) fn take_turns(&self, pad: &mut Pad, ending: bool, now_ms: i64) {
        self.give_up_hooks(pad);
        let Some(pod) = pad.pod.clone() else {
            return;
        };
        if pad.memory.finished.is_some() {
            pad.over.cancel();
            return;
        }
        if !ending {
            self.initialise(pad, &pod);
            if pad.memory.failed.is_none()
                && let Some(failure) = deadline::exceeded(&pod, &pad.memory, now_ms)
            {
                self.event(pad, Severity::Normal, &failure.reason, &failure.message);
                pad.memory.failed = Some(failure);
                pad.unsaved = true;
            }
        }
        let over = Now {
            pod: &pod,
            observed: &pad.observed,
            memory: &pad.memory,
        };
        let over = over.is_over();
        match over {
            true => pad.over.cancel(),
            false if pad.over.is_cancelled() => pad.over = CancellationToken::new(),
            false => {}
        }
        if !ending && !over {
            pad.memory.ending_ms = None;
        } else if pad.memory.ending_ms.is_none() {
            pad.memory.ending_ms = Some(now_ms);
        }
    }

    /// The hook of a container that has ended has nothing to do any more.
    fn give_up_hooks(&self, pad: &Pad) {
        let ended = pad.observed.containers.iter().filter(|it| {
            use ContainerState::{Exited, Lost};
            matches!(it.state, Exited { .. } | Lost)
        });
        for container in ended {
            if let Some(hook) = pad.hooks.get(&container.id) {
                hook.cancel();
            }
        }
    }

    /// Init containers run again in a new network, unless the pod's containers run once only.
    fn initialise(&self, pad: &mut Pad, pod: &Pod) {
        if spec::init_containers(pod).is_empty() {
            return;
        }
        let gone = !pad.observed.has_network() && !pad.observed.containers.iter().any(is_running);
        if gone && spec::restart_policy(pod) != RestartPolicy::Never {
            pad.unsaved |= pad.memory.begins_anew();
        }
        let now = Now {
            pod,
            observed: &pad.observed,
            memory: &pad.memory,
        };
        if !pad.memory.initialized && now.is_initialized() {
            pad.memory.initialized = true;
            pad.unsaved = true;
        }
    }

    /// The last words of containers whose end is not on record yet.
    pub(super) async fn last_words(&self, pad: &Pad) -> Words {
        let mut words = Words::new();
        let Some(pod) = &pad.pod else {
            return words;
        };
        let most = MOST
            .1
            .min(MOST.0 / spec::all_containers(pod).count().max(1));
        for container in &pad.observed.containers {
            let ContainerState::Exited { code, .. } = container.state else {
                continue;
            };
            let remembered = pad.memory.containers.get(&container.name);
            let known = remembered.is_some_and(|it| container.attempt < it.next_attempt);
            let Some(spec) = spec::container(pod, &container.name).filter(|_| !known) else {
                continue;
            };
            let wanted = LastWords {
                most,
                or_log: code != 0 && falls_back(spec),
            };
            match self.shared.runtime.last_words(container, wanted).await {
                Ok(said) if said.is_empty() => {}
                Ok(said) => {
                    words.insert(container.id.clone(), said);
                }
                Err(error) => tracing::warn!(container = container.id, %error, "no last words"),
            }
        }
        words
    }
}

fn falls_back(container: &ApiContainer) -> bool {
    container.termination_message_policy == "FallbackToLogsOnError"
}
