//! What a pod may take of its node's disk: `sizeLimit` of emptyDirs, and `ephemeral-storage` of containers. A pod that takes more is evicted, as in
//! Kubernetes.

use std::collections::BTreeMap;

use barge_proto::v1::{Container, Pod};

use super::{resources::storage_limit, spec::all_containers, volumes::on_disk};

/// The limits of a pod, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Its emptyDirs on disk; those without a limit count only where the whole pod has one.
    pub volumes: Vec<Disk>,
    /// By the container's name: its own file system and its log.
    pub containers: BTreeMap<String, u64>,
    /// Of all together, with the files that the agent made for them: the sum of the containers' limits, at a time. `None` when no container has one.
    pub pod: Option<u64>,
}

/// An emptyDir on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The volume's name.
    pub name: String,
    /// In bytes.
    pub limit: Option<u64>,
}

impl Disk {
    /// Why the pod is evicted.
    pub fn too_large(&self) -> String {
        let (name, limit) = (&self.name, self.limit.unwrap_or(0));
        format!("Usage of emptyDir volume {name:?} exceeds its sizeLimit of {limit} bytes")
    }
}

/// Why the pod is evicted whose container takes more than its limit.
pub fn container_too_large(name: &str, limit: u64) -> String {
    format!("Container {name} exceeded its local ephemeral storage limit of {limit} bytes")
}

/// Why the pod is evicted that takes more than all of its containers may.
pub fn pod_too_large(limit: u64) -> String {
    format!(
        "Pod ephemeral local storage usage exceeds the total limit of containers, {limit} bytes"
    )
}

/// Whether there is something to count.
pub fn is_limited(pod: &Pod) -> bool {
    let has_limit = |it| storage_limit(it).is_ok_and(|limit| limit.is_some());
    on_disk(pod).iter().any(|(_, limit)| limit.is_some()) || all_containers(pod).any(has_limit)
}

/// The limits of a pod. The error is a sentence.
pub fn limits(pod: &Pod) -> Result<Limits, String> {
    let mut containers = BTreeMap::new();
    for container in all_containers(pod) {
        if let Some(limit) = storage_limit(container)? {
            containers.insert(container.name.clone(), limit);
        }
    }
    let of = |it: &Container| containers.get(&it.name).copied().unwrap_or(0);
    let spec = pod.spec.as_ref();
    let sum = spec.map_or(0, |spec| spec.at_a_time(of, u64::saturating_add, u64::max));
    let pod_limit = (!containers.is_empty()).then_some(sum);
    let volumes = on_disk(pod).into_iter();
    let volumes = volumes.map(|(name, limit)| Disk { name, limit });
    Ok(Limits {
        volumes: volumes
            .filter(|it| it.limit.is_some() || pod_limit.is_some())
            .collect(),
        containers,
        pod: pod_limit,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{EmptyDirVolumeSource, PodSpec, Quantity, ResourceRequirements, Volume};

    use super::*;

    fn quantity(value: &str) -> Quantity {
        Quantity {
            value: value.to_owned(),
        }
    }

    fn container(name: &str, limit: &str) -> Container {
        let limits = [("ephemeral-storage".to_owned(), quantity(limit))];
        Container {
            name: name.to_owned(),
            resources: (!limit.is_empty()).then(|| ResourceRequirements {
                limits: limits.into(),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        }
    }

    fn pod(limits: [&str; 2], size: &str) -> Pod {
        let empty_dir = EmptyDirVolumeSource {
            size_limit: (!size.is_empty()).then(|| quantity(size)),
            ..EmptyDirVolumeSource::default()
        };
        let volume = Volume {
            name: "cache".to_owned(),
            empty_dir: Some(empty_dir),
            ..Volume::default()
        };
        Pod {
            spec: Some(PodSpec {
                containers: vec![container("a", limits[0]), container("b", limits[1])],
                volumes: vec![volume],
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn what_is_limited_is_counted_and_nothing_else() {
        assert!(!is_limited(&pod(["", ""], "")));
        assert_eq!(limits(&pod(["", ""], "")).unwrap(), Limits::default());
        let by_size = limits(&pod(["", ""], "1Ki")).unwrap();
        assert_eq!(by_size.volumes[0].limit, Some(1024));
        assert_eq!(by_size.pod, None);
        let of_pod = limits(&pod(["1Mi", "2Mi"], "")).unwrap();
        assert_eq!(of_pod.containers["b"], 2 << 20);
        assert_eq!(of_pod.pod, Some(3 << 20));
        assert_eq!(of_pod.volumes.len(), 1, "it counts for the pod");
        assert!(is_limited(&pod(["1Mi", ""], "")));
    }
}
