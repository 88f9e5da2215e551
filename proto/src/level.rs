//! The feature levels of fields: which of them an older manager would drop.

use std::collections::BTreeMap;

use crate::{
    kinds::custom,
    v1::{
        Container, ContainerPort, EnvVar, Kind, Object, PodSpec, Quantity, ResourceRequirements,
        Service, ServiceAccount, ServiceSpec, Toleration, object,
    },
    validate,
};

/// The level that brought all fields of pods that are not named in this module. A field that comes now is named in [`of_pod`].
pub const PODS: u32 = 8;

/// The newest level whose kinds and fields of objects this version knows. Raised with the first of them that comes with another level:
/// managers refuse an update of an object that needs a higher level than the program says it knows.
pub const NEWEST: u32 = 9;

/// The level that brought `enableServiceLinks: false`.
const SERVICE_LINKS: u32 = 9;

/// The level that brought policies of Services: who is sent where.
const SERVICES: u32 = 9;

/// The level that brought taints and tolerations.
const TAINTS: u32 = 4;

/// The feature level that an object needs, by its kind and its fields: managers and programs below it would drop some of them.
pub fn of_object(object: &Object) -> u32 {
    let kind = match object.kind() {
        Kind::Custom => custom::LEVEL,
        kind => kind.info().map_or(0, |info| info.level),
    };
    let pod = validate::pod(object).map_or(0, |(_, spec)| {
        let tolerations = if spec.tolerations.is_empty() {
            0
        } else {
            TAINTS
        };
        of_pod(spec).max(tolerations)
    });
    let fields = match &object.kind {
        Some(object::Kind::Node(node)) => {
            let taints = node.spec.iter().flat_map(|spec| &spec.taints).count();
            if taints == 0 { 0 } else { TAINTS }
        }
        Some(object::Kind::ServiceAccount(account)) => of_account(account),
        Some(object::Kind::Service(service)) => of_service(service),
        _ => pod,
    };
    kind.max(fields)
}

/// The feature level of a ServiceAccount's fields.
pub fn of_account(account: &ServiceAccount) -> u32 {
    let known = ServiceAccount {
        api_version: account.api_version.clone(),
        kind: account.kind.clone(),
        metadata: account.metadata.clone(),
        ..ServiceAccount::default()
    };
    if known == *account { 0 } else { PODS }
}

/// The feature level of a Service's fields.
pub fn of_service(service: &Service) -> u32 {
    let Some(spec) = &service.spec else { return 0 };
    let known = ServiceSpec {
        ports: spec.ports.clone(),
        selector: spec.selector.clone(),
        cluster_ip: spec.cluster_ip.clone(),
        cluster_ips: spec.cluster_ips.clone(),
        r#type: spec.r#type.clone(),
        ..ServiceSpec::default()
    };
    if known == *spec { 0 } else { SERVICES }
}

/// The feature level that a pod needs: that of the newest field that it uses, or 0 when managers below [`PODS`] know all of them.
///
/// Fields that came after [`PODS`] are named here. Without them the pod is reduced to the fields of level 7 and compared with itself. A new
/// field must not be given a default in messages that existed before: templates that do not use it would need the
/// level too, and would change when they are applied again.
pub fn of_pod(spec: &PodSpec) -> u32 {
    if spec.enable_service_links.is_some() {
        return SERVICE_LINKS;
    }
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
            ..old.clone()
        };
        assert_eq!(of_pod(&newer), PODS);
        let newest = PodSpec {
            enable_service_links: Some(false),
            ..old
        };
        assert_eq!(of_pod(&newest), 9);
    }

    #[test]
    fn objects_need_the_level_of_their_kind_and_of_their_fields() {
        use crate::v1::{Deployment, DeploymentSpec, LocalObjectReference, Pod, PodTemplateSpec};
        let spec = |host_network| PodSpec {
            host_network,
            ..PodSpec::default()
        };
        let deployment = |spec| Deployment {
            spec: Some(DeploymentSpec {
                template: Some(PodTemplateSpec {
                    spec: Some(spec),
                    ..PodTemplateSpec::default()
                }),
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        };
        let account = |image_pull_secrets| ServiceAccount {
            image_pull_secrets,
            ..ServiceAccount::default()
        };
        let pod = Pod {
            spec: Some(spec(true)),
            ..Pod::default()
        };
        let plain = account(Vec::new());
        let base = of_object(&plain.into());
        assert!(base < PODS);
        for (object, level) in [
            (Object::from(pod), PODS),
            (deployment(spec(true)).into(), PODS),
            (account(vec![LocalObjectReference::default()]).into(), PODS),
        ] {
            assert_eq!(of_object(&object), level, "{object}");
        }
        assert!(of_object(&deployment(spec(false)).into()) < TAINTS);
        const { assert!(NEWEST >= PODS) };
    }

    #[test]
    fn a_program_may_change_objects_of_every_kind_that_it_knows() {
        for info in crate::kinds::KINDS {
            assert!(
                info.level <= NEWEST,
                "{} has level {1}, NEWEST is {NEWEST}: raise NEWEST to {1}, or managers refuse every update of one",
                info.name,
                info.level
            );
        }
    }
}
