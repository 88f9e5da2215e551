//! The feature levels of fields: which of them an older manager would drop.

use std::collections::BTreeMap;

use crate::v1::{
    Container, ContainerPort, EnvVar, PodSpec, Quantity, ResourceRequirements, Toleration,
};

/// The level that brought all fields of pods that are not named in this module.
pub const PODS: u32 = 8;

/// The feature level that a pod needs: [`PODS`] when it uses a field that managers below that level do not know, else 0.
///
/// The pod is reduced to the fields of level 7 and compared with itself, so a new field is covered without being named here. A new
/// field must therefore not be given a default in messages that existed before: templates that do not use it would need the
/// level too, and would change when they are applied again.
pub fn of_pod(spec: &PodSpec) -> u32 {
    match reduced(spec) == *spec {
        true => 0,
        false => PODS,
    }
}

/// What a manager below [`PODS`] would keep.
#[allow(
    clippy::needless_update,
    reason = "what has no newer fields yet will have some"
)]
fn reduced(spec: &PodSpec) -> PodSpec {
    PodSpec {
        containers: spec.containers.iter().map(container).collect(),
        restart_policy: spec.restart_policy.clone(),
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        node_selector: spec.node_selector.clone(),
        node_name: spec.node_name.clone(),
        tolerations: spec.tolerations.iter().map(toleration).collect(),
        ..PodSpec::default()
    }
}

#[allow(clippy::needless_update, reason = "as above")]
fn toleration(it: &Toleration) -> Toleration {
    Toleration {
        key: it.key.clone(),
        operator: it.operator.clone(),
        value: it.value.clone(),
        effect: it.effect.clone(),
        toleration_seconds: it.toleration_seconds,
        ..Toleration::default()
    }
}

fn container(it: &Container) -> Container {
    Container {
        name: it.name.clone(),
        image: it.image.clone(),
        command: it.command.clone(),
        args: it.args.clone(),
        working_dir: it.working_dir.clone(),
        ports: it.ports.iter().map(port).collect(),
        env: it.env.iter().map(variable).collect(),
        resources: it.resources.as_ref().map(resources),
        image_pull_policy: it.image_pull_policy.clone(),
        ..Container::default()
    }
}

#[allow(clippy::needless_update, reason = "as above")]
fn port(it: &ContainerPort) -> ContainerPort {
    ContainerPort {
        name: it.name.clone(),
        container_port: it.container_port,
        protocol: it.protocol.clone(),
        ..ContainerPort::default()
    }
}

fn variable(it: &EnvVar) -> EnvVar {
    EnvVar {
        name: it.name.clone(),
        value: it.value.clone(),
        ..EnvVar::default()
    }
}

#[allow(clippy::needless_update, reason = "as above")]
fn resources(it: &ResourceRequirements) -> ResourceRequirements {
    let known = |amounts: &BTreeMap<String, Quantity>| {
        let known = amounts
            .iter()
            .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
        known
            .map(|(name, amount)| (name.clone(), amount.clone()))
            .collect()
    };
    ResourceRequirements {
        limits: known(&it.limits),
        requests: known(&it.requests),
        ..ResourceRequirements::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::needless_update, reason = "as above")]
    #[test]
    fn what_older_managers_know_needs_no_level() {
        let container = Container {
            name: "web".into(),
            image: "nginx".into(),
            command: vec!["a".into()],
            args: vec!["b".into()],
            working_dir: "/".into(),
            ports: vec![ContainerPort {
                name: "http".into(),
                container_port: 80,
                protocol: "TCP".into(),
                ..ContainerPort::default()
            }],
            env: vec![EnvVar {
                name: "A".into(),
                value: "b".into(),
                ..EnvVar::default()
            }],
            resources: Some(ResourceRequirements::default()),
            image_pull_policy: "Always".into(),
            ..Container::default()
        };
        let old = PodSpec {
            containers: vec![container.clone()],
            restart_policy: "Always".into(),
            termination_grace_period_seconds: Some(3),
            node_selector: [("a".to_owned(), "b".to_owned())].into(),
            node_name: "n".into(),
            tolerations: vec![Toleration {
                key: "a".into(),
                operator: "Exists".into(),
                value: "v".into(),
                effect: "NoExecute".into(),
                toleration_seconds: Some(3),
            }],
            ..PodSpec::default()
        };
        assert_eq!(of_pod(&old), 0);
        let newer = PodSpec {
            security_context: Some(crate::v1::PodSecurityContext::default()),
            ..old.clone()
        };
        assert_eq!(of_pod(&newer), PODS);
        let newer = PodSpec {
            containers: vec![Container {
                env_from: vec![Default::default()],
                ..container
            }],
            ..old
        };
        assert_eq!(of_pod(&newer), PODS);
    }
}
