//! How far a pod's life has come, and which of its containers should run at that point.
//!
//! Init containers come one after the other: each ends with 0, or has started when it is a sidecar, before the next one begins. Then come the
//! containers, beside the sidecars. Once no container starts again, the sidecars are ended, the last one first.

use barge_proto::v1::{self, Pod};

use super::is_running;
use crate::pods::{
    memory::{ContainerMemory, Exit, Memory, Observed},
    spec::{RestartPolicy, Role, containers, init_containers},
};

/// What a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What there is of it.
    pub observed: &'a Observed,
    /// What is remembered of it.
    pub memory: &'a Memory,
}

impl<'a> Now<'a> {
    /// The containers that should run, or be run to their end.
    pub fn due(self) -> Vec<&'a v1::Container> {
        if self.is_over() {
            return Vec::new();
        }
        let init = init_containers(self.pod);
        if self.memory.initialized {
            let sidecars = init.iter().filter(|it| it.is_sidecar());
            return sidecars.chain(containers(self.pod)).collect();
        }
        let mut due = Vec::new();
        for container in init {
            match container.is_sidecar() {
                true => {
                    due.push(container);
                    if !self.has_started(container) {
                        return due;
                    }
                }
                false if self.is_done(container) => {}
                false => {
                    due.push(container);
                    return due;
                }
            }
        }
        due.extend(containers(self.pod));
        due
    }

    /// Whether the init containers have done their part.
    pub fn is_initialized(self) -> bool {
        let mut init = init_containers(self.pod).iter();
        self.memory.initialized
            || init.all(|it| match it.is_sidecar() {
                true => self.has_started(it),
                false => self.is_done(it),
            })
    }

    /// Whether no container of the pod will start again: what still runs is to be ended.
    pub fn is_over(self) -> bool {
        self.memory.failed.is_some() || self.init_failed() || self.containers_ended()
    }

    /// Whether an init container failed, and is not run again.
    pub fn init_failed(self) -> bool {
        let mut init = init_containers(self.pod).iter();
        !self.memory.initialized
            && init.any(|it| {
                let exit = self.exit_here(it);
                let failed = exit.is_some_and(|exit| exit.terminated.exit_code != 0);
                !it.is_sidecar() && failed && !self.runs(it) && !self.starts_again(it)
            })
    }

    fn containers_ended(self) -> bool {
        let all = containers(self.pod);
        let ended = |it| self.counted(it).is_some() && !self.runs(it) && !self.starts_again(it);
        !all.is_empty() && all.iter().all(ended)
    }

    /// Whether a sidecar has started, by its hook and its startup probe.
    fn has_started(self, container: &v1::Container) -> bool {
        let current = self.observed.current(&container.name);
        current.filter(|it| is_running(it)).is_some_and(|current| {
            let remembered = self.remembered(container);
            remembered.is_none_or(|it| it.is_started(&current.id))
        })
    }

    /// Whether an init container has ended well, in the pod's present network.
    fn is_done(self, container: &v1::Container) -> bool {
        let exit = self.exit_here(container);
        exit.is_some_and(|exit| exit.terminated.exit_code == 0) && !self.runs(container)
    }

    /// The end of a container that counts when it is asked whether the container starts again: an init container's only in the pod's present
    /// network, because what it prepared may be gone with the old one.
    pub fn counted(self, container: &v1::Container) -> Option<&'a Exit> {
        match Role::of(self.pod, &container.name) {
            Some(Role::Init) => self.exit_here(container),
            _ => self
                .remembered(container)
                .and_then(ContainerMemory::last_exit),
        }
    }

    /// Whether a container of the pod that does not run should be started, by its policy and its last end.
    pub fn starts_again(self, container: &v1::Container) -> bool {
        let policy = Role::of(self.pod, &container.name).map(|role| role.policy(self.pod));
        policy.is_some_and(|policy| starts_again(policy, self.counted(container)))
    }

    fn exit_here(self, container: &v1::Container) -> Option<&'a Exit> {
        self.remembered(container)
            .and_then(ContainerMemory::exit_here)
    }

    fn runs(self, container: &v1::Container) -> bool {
        let mut there = self.observed.containers.iter();
        there.any(|it| it.name == container.name && is_running(it))
    }

    fn remembered(self, container: &v1::Container) -> Option<&'a ContainerMemory> {
        self.memory.containers.get(&container.name)
    }
}

/// Whether a container that does not run should, after this end of it.
fn starts_again(policy: RestartPolicy, exit: Option<&Exit>) -> bool {
    match (exit, policy) {
        (None, _) | (Some(_), RestartPolicy::Always) => true,
        (Some(_), RestartPolicy::Never) => false,
        (Some(exit), RestartPolicy::OnFailure) => exit.terminated.exit_code != 0,
    }
}
