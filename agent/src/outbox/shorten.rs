//! Texts for people are as long as people read, as on Kubernetes' nodes.

use std::iter::once;

use barge_proto::v1::{ContainerState, EventReport, PodStatus};

/// Bytes of a container's message.
const CONTAINER: usize = 4096;
/// Bytes of a pod's message, and of an event's.
const SENTENCE: usize = 1024;

/// Shortens the texts of a status.
pub fn status(status: &mut PodStatus) {
    texts(status).for_each(|(text, most)| cut(text, most));
}

/// Takes all texts out of a status. Tells whether there were any.
pub fn empty(status: &mut PodStatus) -> bool {
    let texts = texts(status).map(|(text, _)| std::mem::take(text));
    texts.fold(false, |any, text| any | !text.is_empty())
}

/// Shortens the texts of an event.
pub fn event(event: &mut EventReport) {
    cut(&mut event.message, SENTENCE);
}

/// The texts for people in a status, and how many bytes each may have.
fn texts(status: &mut PodStatus) -> impl Iterator<Item = (&mut String, usize)> {
    let conditions = status.conditions.iter_mut().map(|c| &mut c.message);
    let sentences = once(&mut status.message).chain(conditions);
    let init = status.init_container_statuses.iter_mut();
    let containers = init.chain(&mut status.container_statuses);
    let states = containers.flat_map(|c| [&mut c.state, &mut c.last_state]);
    let states = states.flatten().flat_map(state);
    let sentences = sentences.map(|text| (text, SENTENCE));
    sentences.chain(states.map(|text| (text, CONTAINER)))
}

fn state(state: &mut ContainerState) -> impl Iterator<Item = &mut String> {
    let waiting = state.waiting.iter_mut().map(|w| &mut w.message);
    waiting.chain(state.terminated.iter_mut().map(|t| &mut t.message))
}

fn cut(text: &mut String, bytes: usize) {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
