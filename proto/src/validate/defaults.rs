//! Kubernetes' defaults.

use std::collections::BTreeMap;

use super::{image, rbac::GROUP as RBAC};
use crate::{
    quantity::Amount,
    v1::{
        Container, DeploymentSpec, DeploymentStrategy, IntOrString, Object, PodSpec, Quantity,
        RoleRef, RollingUpdateDeployment, ServiceSpec, Subject, object::Kind,
    },
};

/// Fills in what was left out, except what depends on the object that is already there ([`default_on_create`])
/// and what the server assigns (addresses, node ports). Safe to repeat.
pub fn default(object: &mut Object) {
    let namespaced = object.kind().info().is_some_and(|info| info.namespaced);
    if let Some(metadata) = object.metadata_mut()
        && namespaced
    {
        fill(&mut metadata.namespace, "default");
    }
    match &mut object.kind {
        Some(Kind::Deployment(deployment)) => {
            if let Some(spec) = &mut deployment.spec {
                default_deployment(spec);
            }
        }
        Some(Kind::Pod(pod)) => {
            if let Some(spec) = &mut pod.spec {
                default_pod(spec);
            }
        }
        Some(Kind::Service(service)) => {
            if let Some(spec) = &mut service.spec {
                default_service(spec);
            }
        }
        Some(Kind::Endpoints(endpoints)) => endpoints
            .subsets
            .iter_mut()
            .flat_map(|subset| &mut subset.ports)
            .for_each(|port| fill(&mut port.protocol, "TCP")),
        Some(Kind::Event(event)) => fill(&mut event.r#type, "Normal"),
        Some(Kind::Secret(secret)) => {
            fill(&mut secret.r#type, "Opaque");
            secret.fold_string_data();
        }
        Some(Kind::RoleBinding(it)) => default_binding(&mut it.subjects, &mut it.role_ref),
        Some(Kind::ClusterRoleBinding(it)) => default_binding(&mut it.subjects, &mut it.role_ref),
        Some(
            Kind::Namespace(_)
            | Kind::Node(_)
            | Kind::ConfigMap(_)
            | Kind::Role(_)
            | Kind::ClusterRole(_)
            | Kind::ServiceAccount(_),
        )
        | None => {}
    }
}

/// Fills in what an absent field means for a new object. On a change it means that what is there stays: an
/// apply without replicas does not undo a scale.
pub fn default_on_create(object: &mut Object) {
    if let Some(Kind::Deployment(deployment)) = &mut object.kind
        && let Some(spec) = &mut deployment.spec
    {
        spec.replicas.get_or_insert(1);
    }
}

fn fill(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

fn default_binding(subjects: &mut [Subject], role: &mut Option<RoleRef>) {
    for subject in subjects {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            fill(&mut subject.api_group, RBAC);
        }
    }
    if let Some(role) = role {
        fill(&mut role.api_group, RBAC);
    }
}

fn default_deployment(spec: &mut DeploymentSpec) {
    let strategy: &mut DeploymentStrategy = spec.strategy.get_or_insert_default();
    fill(&mut strategy.r#type, "RollingUpdate");
    if strategy.r#type == "RollingUpdate" {
        let rolling: &mut RollingUpdateDeployment = strategy.rolling_update.get_or_insert_default();
        for share in [&mut rolling.max_unavailable, &mut rolling.max_surge] {
            share.get_or_insert_with(|| IntOrString::string("25%"));
        }
    }
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    if let Some(pod) = spec
        .template
        .as_mut()
        .and_then(|template| template.spec.as_mut())
    {
        default_pod(pod);
    }
}

fn default_pod(spec: &mut PodSpec) {
    fill(&mut spec.restart_policy, "Always");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.containers.iter_mut().for_each(default_container);
}

fn default_container(container: &mut Container) {
    // An image that is none is refused afterwards, whatever its policy.
    let latest = image::Reference::parse(&container.image).is_ok_and(|image| image.is_latest());
    let policy = if latest { "Always" } else { "IfNotPresent" };
    fill(&mut container.image_pull_policy, policy);
    for port in &mut container.ports {
        fill(&mut port.protocol, "TCP");
    }
    if let Some(resources) = &mut container.resources {
        canonical(&mut resources.limits);
        canonical(&mut resources.requests);
        for (name, limit) in &resources.limits {
            // One violation is enough for a limit that is none.
            if Amount::try_from(limit).is_ok_and(|limit| !limit.is_negative()) {
                let requests = &mut resources.requests;
                requests
                    .entry(name.clone())
                    .or_insert_with(|| limit.clone());
            }
        }
    }
}

/// As they are after JSON; what is no quantity stays, to be refused.
fn canonical(quantities: &mut BTreeMap<String, Quantity>) {
    for quantity in quantities.values_mut() {
        if let Ok(amount) = Amount::try_from(&*quantity) {
            *quantity = amount.into();
        }
    }
}

fn default_service(spec: &mut ServiceSpec) {
    fill(&mut spec.r#type, "ClusterIP");
    for port in &mut spec.ports {
        fill(&mut port.protocol, "TCP");
        let number = port.port;
        if number != 0 {
            port.target_port
                .get_or_insert_with(|| IntOrString::int(number));
        }
    }
}
