//! The sections of `barge describe`, for each kind.

use std::collections::BTreeMap;

use barge_client::v1::{
    Condition, ConfigMap, Deployment, Endpoints, Event, IntOrString, Node, Object, Pod,
    PodDisruptionBudget, PodTemplateSpec, Quantity, ReplicaSet, Secret, Service, Taint, Toleration,
    int_or_string,
};

use super::{containers, text::Text};
use crate::{kinds, output};

/// An object in words, without its events.
pub fn describe(object: &Object, now: i64) -> String {
    let mut text = Text::default();
    let metadata = object.metadata();
    text.field("Name", &metadata.name);
    text.field("Namespace", &metadata.namespace);
    text.field("UID", &metadata.uid);
    if let Some(created) = &metadata.creation_timestamp {
        text.field(
            "Created",
            format!("{} ago", output::age(Some(created), now)),
        );
    }
    if metadata.deletion_timestamp.is_some() {
        text.field("Deleted", "yes, it is ending");
    }
    text.list("Labels", pairs(&metadata.labels));
    text.list("Annotations", pairs(&metadata.annotations));
    for owner in &metadata.owner_references {
        text.field("Owner", format!("{}/{}", owner.kind, owner.name));
    }
    kinds::describe(object, &mut text, now);
    text.finish()
}

fn pairs(pairs: &BTreeMap<String, String>) -> impl Iterator<Item = String> + '_ {
    pairs.iter().map(|(key, value)| format!("{key}={value}"))
}

fn conditions(text: &mut Text, all: &[Condition]) {
    if all.is_empty() {
        return;
    }
    text.section("Conditions", |text| {
        for condition in all {
            let parts = [&condition.status, &condition.reason, &condition.message];
            let parts: Vec<_> = parts
                .into_iter()
                .filter(|part| !part.is_empty())
                .cloned()
                .collect();
            text.field(&condition.r#type, parts.join(", "));
        }
    });
}

fn int_or_string(value: Option<&IntOrString>, default: &str) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(int_or_string::Value::Int(number)) => number.to_string(),
        Some(int_or_string::Value::String(text)) => text.clone(),
        None => default.to_owned(),
    }
}

pub fn deployment(text: &mut Text, it: &Deployment, now: i64) {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    text.field("Selector", output::selector(spec.selector.as_ref()));
    text.field(
        "Replicas",
        format!(
            "{} wanted, {} up to date, {} in all, {} available, {} unavailable",
            spec.replicas.unwrap_or(1),
            status.updated_replicas,
            status.replicas,
            status.available_replicas,
            status.unavailable_replicas
        ),
    );
    let strategy = spec.strategy.unwrap_or_default();
    if strategy.r#type == "Recreate" {
        text.field("Strategy", "Recreate");
    } else {
        let rolling = strategy.rolling_update.unwrap_or_default();
        text.field(
            "Strategy",
            format!(
                "RollingUpdate, at most {} missing, at most {} too many",
                int_or_string(rolling.max_unavailable.as_ref(), "25%"),
                int_or_string(rolling.max_surge.as_ref(), "25%")
            ),
        );
    }
    text.field("Paused", if spec.paused { "yes" } else { "" });
    template(text, spec.template, now);
    conditions(text, &status.conditions);
}

pub fn replica_set(text: &mut Text, it: &ReplicaSet, now: i64) {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    text.field("Selector", output::selector(spec.selector.as_ref()));
    text.field(
        "Replicas",
        format!(
            "{} wanted, {} in all, {} ready, {} available",
            spec.replicas.unwrap_or(1),
            status.replicas,
            status.ready_replicas,
            status.available_replicas
        ),
    );
    template(text, spec.template, now);
    conditions(text, &status.conditions);
}

/// The containers that pods are made with.
fn template(text: &mut Text, template: Option<PodTemplateSpec>, now: i64) {
    let template = template.unwrap_or_default().spec.unwrap_or_default();
    if !template.init_containers.is_empty() {
        text.section("Init Containers", |text| {
            containers::describe(text, &template.init_containers, &[], now);
        });
    }
    text.section("Containers", |text| {
        containers::describe(text, &template.containers, &[], now);
    });
}

pub fn disruption_budget(text: &mut Text, it: &PodDisruptionBudget) {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    text.field("Selector", output::selector(spec.selector.as_ref()));
    text.field(
        "Min available",
        int_or_string(spec.min_available.as_ref(), ""),
    );
    text.field(
        "Max unavailable",
        int_or_string(spec.max_unavailable.as_ref(), ""),
    );
    text.field(
        "Pods",
        format!(
            "{} wanted, {} healthy, {} must stay healthy, {} may be ended",
            status.expected_pods,
            status.current_healthy,
            status.desired_healthy,
            status.disruptions_allowed
        ),
    );
    conditions(text, &status.conditions);
}

pub fn pod(text: &mut Text, it: &Pod, now: i64) {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    text.field("Node", &spec.node_name);
    text.field("Status", output::pod_status(it));
    text.field("Message", &status.message);
    text.field("IP", &status.pod_ip);
    text.field("Host IP", &status.host_ip);
    text.list("Node Selector", pairs(&spec.node_selector));
    text.list("Tolerations", spec.tolerations.iter().map(toleration));
    if !spec.init_containers.is_empty() {
        text.section("Init Containers", |text| {
            let (init, statuses) = (&spec.init_containers, &status.init_container_statuses);
            containers::describe(text, init, statuses, now);
        });
    }
    text.section("Containers", |text| {
        containers::describe(text, &spec.containers, &status.container_statuses, now);
    });
    conditions(text, &status.conditions);
}

pub fn service(text: &mut Text, it: &Service) {
    let spec = it.spec.clone().unwrap_or_default();
    text.field("Type", &spec.r#type);
    text.list("Selector", pairs(&spec.selector));
    text.field("Cluster IP", &spec.cluster_ip);
    let balancer = it
        .status
        .clone()
        .and_then(|status| status.load_balancer)
        .unwrap_or_default();
    text.list(
        "External IP",
        balancer.ingress.into_iter().map(|ingress| ingress.ip),
    );
    for port in &spec.ports {
        let node = match port.node_port {
            0 => String::new(),
            number => format!(", node port {number}"),
        };
        let protocol = if port.protocol.is_empty() {
            "TCP"
        } else {
            &port.protocol
        };
        let target = int_or_string(port.target_port.as_ref(), &port.port.to_string());
        let name = if port.name.is_empty() {
            String::new()
        } else {
            format!("{} ", port.name)
        };
        text.field(
            "Port",
            format!("{name}{}/{protocol} to {target}{node}", port.port),
        );
    }
}

pub fn node(text: &mut Text, it: &Node) {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    text.field("Schedulable", if spec.unschedulable { "no" } else { "yes" });
    text.list("Taints", spec.taints.iter().map(taint));
    text.field("Pod Range", &spec.pod_cidr);
    text.list(
        "Addresses",
        status
            .addresses
            .iter()
            .map(|address| format!("{} {}", address.r#type, address.address)),
    );
    let quantities = |map: &BTreeMap<String, Quantity>| {
        let all = map
            .iter()
            .map(|(name, quantity)| format!("{name} {}", quantity.value));
        all.collect::<Vec<_>>()
    };
    text.list("Capacity", quantities(&status.capacity));
    text.list("Allocatable", quantities(&status.allocatable));
    let info = status.node_info.unwrap_or_default();
    text.field("Version", info.kubelet_version);
    text.field("Runtime", info.container_runtime_version);
    text.field("OS", info.os_image);
    text.field("Kernel", info.kernel_version);
    text.field("Architecture", info.architecture);
    conditions(text, &status.conditions);
}

/// As kubectl writes it: key=value:effect.
fn taint(taint: &Taint) -> String {
    match taint.value.as_str() {
        "" => format!("{}:{}", taint.key, taint.effect),
        value => format!("{}={value}:{}", taint.key, taint.effect),
    }
}

/// As kubectl writes it.
fn toleration(it: &Toleration) -> String {
    let key = match (it.key.as_str(), it.value.as_str()) {
        ("", _) => "all taints".to_owned(),
        (key, "") => key.to_owned(),
        (key, value) => format!("{key}={value}"),
    };
    let effect = match it.effect.as_str() {
        "" => String::new(),
        effect => format!(":{effect}"),
    };
    let seconds = it.toleration_seconds;
    let until = seconds.map_or_else(String::new, |seconds| format!(" for {seconds}s"));
    format!("{key}{effect}{until}")
}

pub fn endpoints(text: &mut Text, it: &Endpoints) {
    for subset in &it.subsets {
        let ports = subset
            .ports
            .iter()
            .map(|port| format!("{}/{}", port.port, port.protocol));
        text.list("Ports", ports);
        text.list(
            "Ready",
            subset.addresses.iter().map(|address| address.ip.clone()),
        );
        let waiting = subset.not_ready_addresses.iter();
        text.list("Not Ready", waiting.map(|address| address.ip.clone()));
    }
}

pub fn event(text: &mut Text, it: &Event) {
    let about = it.involved_object.clone().unwrap_or_default();
    text.field("About", format!("{}/{}", about.kind, about.name));
    text.field("Type", &it.r#type);
    text.field("Reason", &it.reason);
    text.field("Message", &it.message);
    text.field("Count", it.count.to_string());
}

/// Sizes, no values: `get -o yaml` shows those.
pub fn secret(text: &mut Text, it: &Secret) {
    text.field("Type", &it.r#type);
    text.field("Immutable", immutable(it.immutable));
    sizes(text, "Data", &it.data);
}

pub fn config_map(text: &mut Text, it: &ConfigMap) {
    text.field("Immutable", immutable(it.immutable));
    if !it.data.is_empty() {
        text.section("Data", |text| {
            for (key, value) in &it.data {
                text.value(key, value);
            }
        });
    }
    sizes(text, "Binary Data", &it.binary_data);
}

fn immutable(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "yes",
        _ => "",
    }
}

fn sizes(text: &mut Text, title: &str, data: &BTreeMap<String, Vec<u8>>) {
    if data.is_empty() {
        return;
    }
    text.section(title, |text| {
        for (key, value) in data {
            text.field(key, format!("{} bytes", value.len()));
        }
    });
}
