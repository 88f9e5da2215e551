//! Kubernetes' defaults.

use std::collections::BTreeMap;

use super::{image, kinds, lifecycle, probe, rbac::GROUP as RBAC};
use crate::{
    accounts,
    quantity::Amount,
    v1::{
        Container, DeploymentSpec, DeploymentStrategy, Endpoints, IntOrString, Object,
        ObjectFieldSelector, PodSpec, Quantity, ResourceFieldSelector, RoleRef,
        RollingUpdateDeployment, ServiceSpec, Subject,
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
    kinds::default(object);
}

/// Fills in what an absent field means for a new object. On a change it means that what is there stays: an
/// apply without replicas does not undo a scale.
pub fn default_on_create(object: &mut Object) {
    kinds::default_on_create(object);
}

pub(super) fn fill(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

pub(super) fn binding(subjects: &mut [Subject], role: &mut Option<RoleRef>) {
    for subject in subjects {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            fill(&mut subject.api_group, RBAC);
        }
    }
    if let Some(role) = role {
        fill(&mut role.api_group, RBAC);
    }
}

pub(super) fn deployment(spec: &mut DeploymentSpec) {
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
        self::pod(pod);
    }
}

pub(super) fn pod(spec: &mut PodSpec) {
    fill(&mut spec.restart_policy, "Always");
    spec.termination_grace_period_seconds.get_or_insert(30);
    // As templates of before these fields have it: they are the same.
    if spec.dns_policy == "ClusterFirst" {
        spec.dns_policy.clear();
    }
    if spec.enable_service_links == Some(true) {
        spec.enable_service_links = None;
    }
    if spec.service_account_name == accounts::DEFAULT {
        spec.service_account_name.clear();
    }
    let containers = spec.init_containers.iter_mut().chain(&mut spec.containers);
    containers.for_each(container);
    spec.volumes.iter_mut().for_each(super::volumes::default);
}

fn container(container: &mut Container) {
    // An image that is none is refused afterwards, whatever its policy.
    let latest = image::Reference::parse(&container.image).is_ok_and(|image| image.is_latest());
    let policy = if latest { "Always" } else { "IfNotPresent" };
    fill(&mut container.image_pull_policy, policy);
    for port in &mut container.ports {
        fill(&mut port.protocol, "TCP");
    }
    lifecycle::default(container);
    probe::default(container);
    let sources = container.env.iter_mut().flat_map(|it| &mut it.value_from);
    for source in sources {
        references(&mut source.field_ref, &mut source.resource_field_ref);
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

pub(super) fn references(
    field: &mut Option<ObjectFieldSelector>,
    resource: &mut Option<ResourceFieldSelector>,
) {
    if let Some(field) = field {
        fill(&mut field.api_version, "v1");
    }
    if let Some(field) = resource {
        field.divisor.get_or_insert_with(|| Quantity {
            value: "0".to_owned(),
        });
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

pub(super) fn endpoints(endpoints: &mut Endpoints) {
    let subsets = endpoints.subsets.iter_mut();
    subsets
        .flat_map(|subset| &mut subset.ports)
        .for_each(|port| fill(&mut port.protocol, "TCP"));
}

pub(super) fn service(spec: &mut ServiceSpec) {
    fill(&mut spec.r#type, "ClusterIP");
    // What Kubernetes does without being asked is kept as absent: managers below feature level 9 would drop it.
    for (field, usual) in [
        (&mut spec.session_affinity, "None"),
        (&mut spec.external_traffic_policy, "Cluster"),
        (&mut spec.internal_traffic_policy, "Cluster"),
    ] {
        if field == usual {
            field.clear();
        }
    }
    for port in &mut spec.ports {
        fill(&mut port.protocol, "TCP");
        let number = port.port;
        if number != 0 {
            port.target_port
                .get_or_insert_with(|| IntOrString::int(number));
        }
    }
}
