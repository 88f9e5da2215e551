//! The columns of every kind, as kubectl has them.

use barge_client::v1::{
    ConfigMap, Container, Deployment, Endpoints, Event, IntOrString, LabelSelector, Namespace,
    Node, Pod, PodDisruptionBudget, PodTemplateSpec, ReplicaSet, Secret, Service,
};

use super::{
    cells::{NONE, age, age_of, condition, or_none, pairs, selector},
    pod_status,
};
pub mod rbac;

/// The cells of the usual columns, and of those of `-o wide`.
pub type Cells = (Vec<String>, Vec<String>);

pub fn disruption_budget(it: &PodDisruptionBudget, name: String, now: i64) -> Cells {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    let share = |share: Option<IntOrString>| share.map_or("N/A".to_owned(), |it| it.to_string());
    let cells = vec![
        name,
        share(spec.min_available),
        share(spec.max_unavailable),
        status.disruptions_allowed.to_string(),
        age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now),
    ];
    (cells, Vec::new())
}

pub fn deployment(it: &Deployment, name: String, now: i64) -> Cells {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    let wanted = spec.replicas.unwrap_or(1);
    (
        vec![
            name,
            format!("{}/{wanted}", status.ready_replicas),
            status.updated_replicas.to_string(),
            status.available_replicas.to_string(),
            age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now),
        ],
        template(spec.template.as_ref(), spec.selector.as_ref()),
    )
}

pub fn replica_set(it: &ReplicaSet, name: String, now: i64) -> Cells {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    (
        vec![
            name,
            spec.replicas.unwrap_or(1).to_string(),
            status.replicas.to_string(),
            status.ready_replicas.to_string(),
            age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now),
        ],
        template(spec.template.as_ref(), spec.selector.as_ref()),
    )
}

/// The containers of a template, their images, and which pods are meant.
fn template(template: Option<&PodTemplateSpec>, selects: Option<&LabelSelector>) -> Vec<String> {
    let pod = template.and_then(|template| template.spec.as_ref());
    let containers = pod.map_or(&[][..], |pod| &pod.containers);
    let each = |field: fn(&Container) -> &str| {
        let all: Vec<_> = containers.iter().map(field).collect();
        all.join(",")
    };
    vec![
        each(|container| &container.name),
        each(|container| &container.image),
        selector(selects),
    ]
}

pub fn pod(it: &Pod, name: String, now: i64) -> Cells {
    let spec = it.spec.clone().unwrap_or_default();
    let status = it.status.clone().unwrap_or_default();
    // Sidecars count: they are there to stay.
    let sidecars = spec.init_containers.iter().filter(|it| it.is_sidecar());
    let sidecars: Vec<_> = sidecars.map(|it| it.name.as_str()).collect();
    let init = status.init_container_statuses.iter();
    let init = init.filter(|it| sidecars.contains(&it.name.as_str()));
    let stay = init.chain(&status.container_statuses);
    let ready = stay.filter(|it| it.ready).count();
    (
        vec![
            name,
            format!("{ready}/{}", spec.containers.len() + sidecars.len()),
            pod_status(it),
            restarts(it, now),
            age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now),
        ],
        vec![or_none(&status.pod_ip), or_none(&spec.node_name)],
    )
}

/// "2 (5m ago)"
fn restarts(it: &Pod, now: i64) -> String {
    let status = it.status.clone().unwrap_or_default();
    let init = status.init_container_statuses.iter();
    let statuses = init.chain(&status.container_statuses);
    let count: i32 = statuses.clone().map(|c| c.restart_count).sum();
    let last = statuses
        .filter_map(|c| {
            c.last_state
                .as_ref()?
                .terminated
                .as_ref()?
                .finished_at
                .as_ref()
        })
        .max_by_key(|time| time.seconds);
    match last {
        Some(last) if count > 0 => format!("{count} ({} ago)", age(Some(last), now)),
        _ => count.to_string(),
    }
}

pub fn service(it: &Service, name: String, now: i64) -> Cells {
    let spec = it.spec.clone().unwrap_or_default();
    let ingress = it
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .map_or(&[][..], |balancer| &balancer.ingress);
    let external: Vec<_> = ingress.iter().map(|ingress| ingress.ip.as_str()).collect();
    let balanced = spec.r#type == "LoadBalancer";
    let ports: Vec<_> = spec
        .ports
        .iter()
        .map(|port| {
            let node = match port.node_port {
                0 => String::new(),
                number => format!(":{number}"),
            };
            let protocol = if port.protocol.is_empty() {
                "TCP"
            } else {
                &port.protocol
            };
            format!("{}{node}/{protocol}", port.port)
        })
        .collect();
    (
        vec![
            name,
            if spec.r#type.is_empty() {
                "ClusterIP".to_owned()
            } else {
                spec.r#type.clone()
            },
            or_none(&spec.cluster_ip),
            match external.is_empty() {
                true if balanced => "<pending>".to_owned(),
                true => NONE.to_owned(),
                false => external.join(","),
            },
            or_none(&ports.join(",")),
            age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now),
        ],
        vec![pairs(&spec.selector)],
    )
}

/// The taint of a node that the leader has given up.
const UNREACHABLE: &str = "node.barge.dev/unreachable";

/// Whether the managers hear from a node.
pub fn is_ready(it: &Node) -> bool {
    let status = it.status.as_ref();
    let ready = status.and_then(|status| condition(&status.conditions, "Ready"));
    ready.is_some_and(|condition| condition.status == "True")
}

pub fn node(it: &Node, name: String, now: i64) -> Cells {
    let status = it.status.clone().unwrap_or_default();
    let info = status.node_info.unwrap_or_default();
    let spec = it.spec.clone().unwrap_or_default();
    // Not True: False as the node says, or Unknown because it is not heard.
    let words = [
        (true, if is_ready(it) { "Ready" } else { "NotReady" }),
        (spec.taints.iter().any(|it| it.key == UNREACHABLE), "Lost"),
        (spec.unschedulable, "SchedulingDisabled"),
    ];
    let words = words.into_iter().filter(|(holds, _)| *holds);
    let words: Vec<_> = words.map(|(_, word)| word).collect();
    let address = status
        .addresses
        .iter()
        .find(|address| address.r#type == "InternalIP")
        .map_or("", |address| &address.address);
    (
        vec![
            name,
            words.join(","),
            age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now),
            or_none(&info.kubelet_version),
        ],
        vec![
            or_none(address),
            or_none(&info.os_image),
            or_none(&info.kernel_version),
            or_none(&info.container_runtime_version),
        ],
    )
}

/// How many addresses are printed before "+ N more".
const ADDRESSES: usize = 3;

pub fn endpoints(it: &Endpoints, name: String, now: i64) -> Cells {
    let all: Vec<_> = it
        .subsets
        .iter()
        .flat_map(|subset| {
            subset.addresses.iter().flat_map(|address| {
                subset
                    .ports
                    .iter()
                    .map(|port| format!("{}:{}", address.ip, port.port))
            })
        })
        .collect();
    let mut text = all[..all.len().min(ADDRESSES)].join(",");
    if all.len() > ADDRESSES {
        text.push_str(&format!(" + {} more...", all.len() - ADDRESSES));
    }
    (
        vec![
            name,
            or_none(&text),
            age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now),
        ],
        vec![],
    )
}

pub fn event(it: &Event, name: String, now: i64) -> Cells {
    let about = it.involved_object.clone().unwrap_or_default();
    let source = it.source.clone().unwrap_or_default();
    (
        vec![
            age(it.last_timestamp.as_ref(), now),
            it.r#type.clone(),
            it.reason.clone(),
            format!("{}/{}", about.kind.to_lowercase(), about.name),
            it.message.trim().replace('\n', " "),
        ],
        vec![
            or_none(&source.component),
            age(it.first_timestamp.as_ref(), now),
            it.count.max(1).to_string(),
            name,
        ],
    )
}

pub fn secret(it: &Secret, name: String, now: i64) -> Cells {
    let age = age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now);
    let count = it.data.len().to_string();
    (vec![name, it.r#type.clone(), count, age], vec![])
}

pub fn config_map(it: &ConfigMap, name: String, now: i64) -> Cells {
    let age = age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now);
    let count = (it.data.len() + it.binary_data.len()).to_string();
    (vec![name, count, age], vec![])
}

pub fn namespace(it: &Namespace, name: String, now: i64) -> Cells {
    let phase = it.status.as_ref().map_or("", |status| &status.phase);
    (
        vec![
            name,
            if phase.is_empty() { "Active" } else { phase }.to_owned(),
            age_of(it.metadata.as_ref().unwrap_or(&Default::default()), now),
        ],
        vec![],
    )
}

#[cfg(test)]
mod tests;
