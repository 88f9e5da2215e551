//! The STATUS column of a pod: one word, chosen as kubectl chooses it.

use barge_client::v1::{Condition, ContainerState, Pod};

/// The STATUS column of a pod.
pub fn pod_status(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let mut word = match (status.reason.as_str(), status.phase.as_str()) {
        ("", "") => "Pending",
        ("", phase) => phase,
        (reason, _) => reason,
    }
    .to_owned();
    let mut running = false;
    let init = initializing(pod);
    // The first container speaks last, and so for the pod.
    let told = match init.is_some() {
        true => &[][..],
        false => &status.container_statuses,
    };
    for container in told.iter().rev() {
        let Some(state) = &container.state else {
            continue;
        };
        if let Some(reason) = state_word(state) {
            word = reason;
        } else if container.ready && state.running.is_some() {
            running = true;
        }
    }
    if word == "Completed" && running {
        word = "Running".to_owned();
    }
    let word = init.unwrap_or(word);
    let deleting = pod
        .metadata
        .as_ref()
        .is_some_and(|m| m.deletion_timestamp.is_some());
    match (deleting, status.reason.as_str()) {
        (true, "NodeLost") => "Unknown".to_owned(),
        (true, _) => "Terminating".to_owned(),
        // Whatever its containers' last status is: the leader does not hear the agent.
        (false, "NodeLost") => "NodeLost".to_owned(),
        (false, _) => word,
    }
}

/// What the init container says that the pod's containers wait for; `None` once the pod is initialised.
fn initializing(pod: &Pod) -> Option<String> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let initialized = |it: &Condition| it.r#type == "Initialized" && it.status == "True";
    if status.conditions.iter().any(initialized) {
        return None;
    }
    let sidecar = |name: &str| {
        let mut init = spec.init_containers.iter();
        init.any(|it| it.name == name && it.is_sidecar())
    };
    let statuses = status.init_container_statuses.iter().enumerate();
    for (index, status) in statuses {
        let state = status.state.clone().unwrap_or_default();
        let ended = state.terminated.as_ref();
        if ended.is_some_and(|it| it.exit_code == 0)
            || (sidecar(&status.name) && status.started == Some(true))
        {
            continue;
        }
        let word = state_word(&state).filter(|word| word != "PodInitializing");
        return Some(match word {
            Some(word) => format!("Init:{word}"),
            None => format!("Init:{index}/{}", spec.init_containers.len()),
        });
    }
    None
}

/// What a container that does not run says for itself.
fn state_word(state: &ContainerState) -> Option<String> {
    if let Some(waiting) = &state.waiting {
        return (!waiting.reason.is_empty()).then(|| waiting.reason.clone());
    }
    let ended = state.terminated.as_ref()?;
    Some(match (ended.reason.as_str(), ended.signal) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::*;

    fn pod(phase: &str, states: Vec<ContainerState>) -> Pod {
        let container_statuses = states
            .into_iter()
            .map(|state| ContainerStatus {
                ready: state.running.is_some(),
                state: Some(state),
                ..ContainerStatus::default()
            })
            .collect();
        Pod {
            metadata: Some(ObjectMeta::default()),
            status: Some(PodStatus {
                phase: phase.into(),
                container_statuses,
                ..PodStatus::default()
            }),
            ..Pod::default()
        }
    }

    fn waiting(reason: &str) -> ContainerState {
        ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: reason.into(),
                ..ContainerStateWaiting::default()
            }),
            ..ContainerState::default()
        }
    }

    fn terminated(reason: &str, exit_code: i32, signal: i32) -> ContainerState {
        ContainerState {
            terminated: Some(ContainerStateTerminated {
                reason: reason.into(),
                exit_code,
                signal,
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        }
    }

    fn running() -> ContainerState {
        ContainerState {
            running: Some(ContainerStateRunning::default()),
            ..ContainerState::default()
        }
    }

    #[test]
    fn words_that_people_know() {
        let word = |phase, states| pod_status(&pod(phase, states));
        assert_eq!(word("", vec![]), "Pending");
        assert_eq!(
            word("Pending", vec![waiting("ImagePullBackOff")]),
            "ImagePullBackOff"
        );
        assert_eq!(word("Running", vec![running()]), "Running");
        assert_eq!(
            word("Running", vec![waiting("CrashLoopBackOff"), running()]),
            "CrashLoopBackOff"
        );
        assert_eq!(
            word("Running", vec![terminated("Completed", 0, 0), running()]),
            "Running"
        );
        assert_eq!(word("Failed", vec![terminated("", 3, 0)]), "ExitCode:3");
        assert_eq!(word("Failed", vec![terminated("", 0, 9)]), "Signal:9");
        assert_eq!(
            word("Failed", vec![terminated("OOMKilled", 137, 9)]),
            "OOMKilled"
        );
        let mut starting = pod("Pending", vec![waiting("PodInitializing")]);
        for (state, word) in [
            (running(), "Init:1/2"),
            (waiting("PodInitializing"), "Init:1/2"),
            (waiting("CrashLoopBackOff"), "Init:CrashLoopBackOff"),
            (terminated("", 3, 0), "Init:ExitCode:3"),
            (terminated("Completed", 0, 0), "PodInitializing"),
        ] {
            let init = [("a", terminated("Completed", 0, 0)), ("b", state)];
            starting.spec = Some(PodSpec {
                init_containers: init
                    .clone()
                    .map(|(name, _)| Container {
                        name: name.into(),
                        ..Container::default()
                    })
                    .into(),
                ..PodSpec::default()
            });
            let statuses = init.map(|(name, state)| ContainerStatus {
                name: name.into(),
                state: Some(state),
                ..ContainerStatus::default()
            });
            if let Some(status) = &mut starting.status {
                status.init_container_statuses = statuses.into();
            }
            assert_eq!(pod_status(&starting), word);
        }
        let mut lost = pod("Running", vec![waiting("CrashLoopBackOff")]);
        if let Some(status) = &mut lost.status {
            status.reason = "NodeLost".into();
        }
        assert_eq!(pod_status(&lost), "NodeLost");
        let mut ending = pod("Running", vec![running()]);
        if let Some(metadata) = &mut ending.metadata {
            metadata.deletion_timestamp = Some(Time::default());
        }
        assert_eq!(pod_status(&ending), "Terminating");
    }
}
