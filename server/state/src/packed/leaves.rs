//! The leaves of a pod's record: the fields in which pods differ, and how they are packed.
//!
//! Packing and unpacking use the same walk over a record's leaves, so each value returns to its own field. The shape says
//! whether a time is present; its value is packed as the difference to the time before it, because most of a
//! pod's times are within a few seconds.

mod bytes;

use std::mem;

use barge_proto::v1::{Condition, ContainerState, PodRecord, Time};

use bytes::{Packer, Unpacker};

/// What is done with each leaf, in order.
trait Leaves {
    fn text(&mut self, text: &mut String);
    fn time(&mut self, time: &mut Time);
    fn number(&mut self, number: &mut u64);
}

/// What is asked of pods all the time comes first: see [`first`].
fn walk(record: &mut PodRecord, leaves: &mut impl Leaves) {
    let mut ready = None;
    if let Some(meta) = &mut record.metadata {
        times(
            [&mut meta.creation_timestamp, &mut meta.deletion_timestamp],
            leaves,
        );
    }
    if let Some(status) = &mut record.status {
        leaves.text(&mut status.pod_ip);
        ready = status.conditions.iter().position(is_ready);
        if let Some(condition) = ready.and_then(|at| status.conditions.get_mut(at)) {
            times([&mut condition.last_transition_time], leaves);
        }
    }
    times([&mut record.bound, &mut record.lost], leaves);
    if let Some(version) = &mut record.reported {
        leaves.number(&mut version.incarnation);
        leaves.number(&mut version.counter);
    }
    let Some(status) = &mut record.status else {
        return;
    };
    times([&mut status.start_time], leaves);
    for (at, condition) in status.conditions.iter_mut().enumerate() {
        if ready != Some(at) {
            times([&mut condition.last_transition_time], leaves);
        }
        times(
            [
                &mut condition.last_update_time,
                &mut condition.last_heartbeat_time,
            ],
            leaves,
        );
    }
    let init = status.init_container_statuses.iter_mut();
    for container in init.chain(&mut status.container_statuses) {
        leaves.text(&mut container.container_id);
        state(&mut container.state, leaves);
        state(&mut container.last_state, leaves);
    }
}

fn is_ready(condition: &Condition) -> bool {
    condition.r#type == "Ready"
}

fn state(state: &mut Option<ContainerState>, leaves: &mut impl Leaves) {
    let Some(state) = state else {
        return;
    };
    if let Some(waiting) = &mut state.waiting {
        leaves.text(&mut waiting.message);
    }
    if let Some(running) = &mut state.running {
        times([&mut running.started_at], leaves);
    }
    if let Some(ended) = &mut state.terminated {
        times([&mut ended.started_at, &mut ended.finished_at], leaves);
        leaves.text(&mut ended.message);
        leaves.text(&mut ended.container_id);
    }
}

fn times<const N: usize>(times: [&mut Option<Time>; N], leaves: &mut impl Leaves) {
    for time in times.into_iter().flatten() {
        leaves.time(time);
    }
}

/// What stays in the shape of an identifier like `containerd://…`.
fn scheme(text: &str) -> usize {
    const END: &str = "://";
    match text.split_once(END) {
        Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            scheme.len() + END.len()
        }
        _ => 0,
    }
}

struct Take<'a>(Packer<'a>);

impl Leaves for Take<'_> {
    fn text(&mut self, text: &mut String) {
        let leaf = text.split_off(scheme(text));
        text.shrink_to_fit();
        self.0.text(&leaf);
    }

    fn time(&mut self, time: &mut Time) {
        self.0.time(mem::take(time));
    }

    fn number(&mut self, number: &mut u64) {
        self.0.number(mem::take(number));
    }
}

struct Give<'a>(Unpacker<'a>);

impl Leaves for Give<'_> {
    fn text(&mut self, text: &mut String) {
        self.0.text(text);
    }

    fn time(&mut self, time: &mut Time) {
        *time = self.0.time();
    }

    fn number(&mut self, number: &mut u64) {
        *number = self.0.number();
    }
}

/// Takes the leaves out of the record of the pod with this uid, which becomes a shape.
pub fn take(record: &mut PodRecord, uid: &str) -> Box<[u8]> {
    let mut leaves = Take(Packer::new(uid));
    walk(record, &mut leaves);
    leaves.0.finish()
}

/// Gives a shape its leaves.
pub fn give(shape: &mut PodRecord, uid: &str, leaves: &[u8]) {
    walk(shape, &mut Give(Unpacker::new(uid, leaves)));
}

/// The leaves that a walk meets first.
pub struct First {
    pub created: Option<Time>,
    pub deletion: Option<Time>,
    pub ready: Option<Time>,
    pub pod_ip: String,
}

/// The next time, if the shape says that there is one.
fn next(blank: Option<Time>, leaves: &mut Unpacker<'_>) -> Option<Time> {
    blank.map(|_| leaves.time())
}

/// Reads the first leaves without making a record. Follows [`walk`].
pub fn first(shape: &PodRecord, uid: &str, leaves: &[u8]) -> First {
    let mut leaves = Unpacker::new(uid, leaves);
    let meta = shape.metadata.as_ref();
    let created = next(meta.and_then(|meta| meta.creation_timestamp), &mut leaves);
    let deletion = next(meta.and_then(|meta| meta.deletion_timestamp), &mut leaves);
    let mut pod_ip = String::new();
    let mut ready = None;
    if let Some(status) = &shape.status {
        pod_ip.clone_from(&status.pod_ip);
        leaves.text(&mut pod_ip);
        let condition = status
            .conditions
            .iter()
            .find(|condition| is_ready(condition));
        let blank = condition.and_then(|condition| condition.last_transition_time);
        ready = next(blank, &mut leaves);
    }
    First {
        created,
        deletion,
        ready,
        pod_ip,
    }
}
