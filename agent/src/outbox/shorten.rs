//! Texts for people are as long as people read, as on Kubernetes' nodes.

use barge_proto::v1::{ContainerState, EventReport, PodStatus};

/// Bytes of a container's message.
const CONTAINER: usize = 4096;
/// Bytes of a pod's message, and of an event's.
const SENTENCE: usize = 1024;

/// Shortens the texts of a status.
pub fn status(status: &mut PodStatus) {
    cut(&mut status.message, SENTENCE);
    for condition in &mut status.conditions {
        cut(&mut condition.message, SENTENCE);
    }
    for container in &mut status.container_statuses {
        state(&mut container.state);
        state(&mut container.last_state);
    }
}

/// Shortens the texts of an event.
pub fn event(event: &mut EventReport) {
    cut(&mut event.message, SENTENCE);
}

fn state(state: &mut Option<ContainerState>) {
    let Some(state) = state else { return };
    if let Some(waiting) = &mut state.waiting {
        cut(&mut waiting.message, CONTAINER);
    }
    if let Some(ended) = &mut state.terminated {
        cut(&mut ended.message, CONTAINER);
    }
}

fn cut(text: &mut String, bytes: usize) {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
