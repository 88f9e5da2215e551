//! Which of a pod's containers are probed, and what is known of them by that.

use barge_proto::v1::{ContainerStatus, Pod};

use super::Pad;
use crate::{
    pods::{memory::container_id, spec},
    probes::{Probed, has_probes, state::Verdict},
    runtime::ContainerState,
};

/// Has the containers that run probed, and learns what is known of them. A pod that ends is probed no more.
pub fn look(pad: &mut Pad, ending: bool) {
    let none = Pod::default();
    let pod = pad.pod.clone();
    let pod = pod.as_deref().unwrap_or(&none);
    let mut running = Vec::new();
    if !ending && pad.memory.finished.is_none() {
        for container in spec::all_containers(pod).filter(|it| has_probes(it)) {
            let remembered = pad.memory.containers.get(&container.name);
            if let Some(current) = pad.observed.current(&container.name)
                // Probes begin after the hook.
                && !remembered.is_some_and(|it| it.is_starting(&current.id))
                && let ContainerState::Running { started_at_ms, .. } = current.state
            {
                running.push(Probed {
                    id: &current.id,
                    started_ms: started_at_ms,
                    container,
                    ip: pad.memory.ips.first().copied(),
                    reported: reported(pad, &current.id),
                });
            }
        }
    }
    for (name, known) in pad.probes.sync(pod, &running) {
        pad.memory.container(&name).probed = Some(known);
    }
}

/// What the managers were told of a container.
fn reported(pad: &Pad, id: &str) -> Option<Verdict> {
    let statuses = pad.reported.iter().flat_map(|it| {
        let init = it.init_container_statuses.iter();
        init.chain(&it.container_statuses)
    });
    let is_it = |status: &&ContainerStatus| status.container_id == container_id(id);
    statuses.filter(is_it).map(verdict).next()
}

fn verdict(status: &ContainerStatus) -> Verdict {
    Verdict {
        started: status.started.unwrap_or(false),
        ready: status.ready,
        failed: None,
    }
}
