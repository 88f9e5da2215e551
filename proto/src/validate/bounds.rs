//! How long the lists of an object may be. Lists of items are merged, compared and checked item by item, and what a pod refers to is told to each node
//! that has the pod: without a bound, one object costs the managers the time and the memory of thousands.

use super::{Checker, Violation, kinds};
use crate::{
    configuration::{Source, used},
    v1::{Object, PodSpec, object},
};

/// Owners of an object.
const OWNERS: usize = 1000;
/// Containers of a pod, and its init containers.
const CONTAINERS: usize = 250;
/// Volumes of a pod.
const VOLUMES: usize = 500;
/// What else a pod has in lists: host aliases and tolerations.
const OF_POD: usize = 1000;
/// Secrets that a pod's images are pulled with: each may cost a question to a registry.
const PULL_SECRETS: usize = 100;
/// ConfigMaps and Secrets that a pod uses: each session of a node follows each of them.
const CONFIGURATION: usize = 250;
/// Variables, ports and mounts of a container, and sources of its environment.
const OF_CONTAINER: usize = 1000;
/// Ports of a Service, and names of a ServiceAccount.
const OTHERS: usize = 1000;
/// Ranges of a Service's clients.
const SOURCES: usize = 250;
/// Taints of a node.
const TAINTS: usize = 250;

/// Checks how long an object's lists are. It takes no longer than to count them.
///
/// # Errors
/// Each list that is too long, with how many items it has and may have.
pub fn bounds(object: &Object) -> Result<(), Vec<Violation>> {
    let mut checker = Checker::default();
    checker.bounds(object);
    checker.finish()
}

impl Checker {
    pub(super) fn bounds(&mut self, object: &Object) {
        self.at_most(
            "metadata.ownerReferences",
            object.metadata().owner_references.len(),
            OWNERS,
        );
        if let Some((path, spec)) = kinds::pod(object) {
            self.bounds_of_pod(path, spec);
        }
        match &object.kind {
            Some(object::Kind::Service(it)) => {
                let ports = it.spec.as_ref().map_or(0, |spec| spec.ports.len());
                self.at_most("spec.ports", ports, OTHERS);
                let ranges = it.spec.iter();
                let ranges = ranges
                    .map(|spec| spec.load_balancer_source_ranges.len())
                    .sum();
                self.at_most("spec.loadBalancerSourceRanges", ranges, SOURCES);
            }
            Some(object::Kind::Node(it)) => {
                let taints = it.spec.as_ref().map_or(0, |spec| spec.taints.len());
                self.at_most("spec.taints", taints, TAINTS);
            }
            Some(object::Kind::ServiceAccount(it)) => {
                self.at_most("secrets", it.secrets.len(), OTHERS);
                self.at_most("imagePullSecrets", it.image_pull_secrets.len(), OTHERS);
            }
            _ => {}
        }
    }

    fn bounds_of_pod(&mut self, path: &str, spec: &PodSpec) {
        let of_pod = [
            ("containers", spec.containers.len(), CONTAINERS),
            ("initContainers", spec.init_containers.len(), CONTAINERS),
            ("volumes", spec.volumes.len(), VOLUMES),
            ("hostAliases", spec.host_aliases.len(), OF_POD),
            ("tolerations", spec.tolerations.len(), OF_POD),
            (
                "imagePullSecrets",
                spec.image_pull_secrets.len(),
                PULL_SECRETS,
            ),
        ];
        for (list, count, limit) in of_pod {
            self.at_most(format_args!("{path}.{list}"), count, limit);
        }
        for (path, container) in super::pod::containers(path, spec) {
            let of_container = [
                ("env", container.env.len()),
                ("envFrom", container.env_from.len()),
                ("ports", container.ports.len()),
                ("volumeMounts", container.volume_mounts.len()),
            ];
            for (list, count) in of_container {
                self.at_most(format_args!("{path}.{list}"), count, OF_CONTAINER);
            }
        }
        let used = used(spec);
        let objects = used
            .iter()
            .filter(|(source, _)| *source != Source::ServiceAccount);
        let count = objects.count();
        if count > CONFIGURATION {
            let rule = format!(
                "ConfigMaps and Secrets are used by one pod: at most {CONFIGURATION} are allowed; put what belongs together into one of them"
            );
            self.violated(path, count, rule);
        }
    }

    fn at_most(&mut self, field: impl std::fmt::Display, count: usize, limit: usize) {
        if count > limit {
            let rule = format!("items are too many: at most {limit} are allowed");
            self.violated(field.to_string(), count, rule);
        }
    }
}
