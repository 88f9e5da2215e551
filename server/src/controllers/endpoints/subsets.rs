//! Grouping addresses and ports into subsets as Kubernetes does.

use barge_proto::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, ObjectReference, Revision, ServicePort,
    int_or_string::Value,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A pod behind a Service.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The pod's address.
    pub ip: String,
    /// The node it runs on.
    pub node_name: String,
    /// The pod.
    pub pod: ObjectReference,
    /// Its name in the Service; empty: none.
    pub hostname: String,
    /// Whether it gets connections.
    pub ready: bool,
    /// What it was made from.
    pub template: Arc<Revision>,
}

/// A port of a subset: name, number, protocol. A Service without ports has the one that is None.
type Port = Option<(String, i32, String)>;

/// The subsets of a Service: each port number lists the pods that serve it, and ports with the same
/// pods share a subset. A named target port can be another number in each revision, which is why
/// there may be several. Everything is in a fixed order, so equal Endpoints are equal messages.
pub fn subsets(backends: &[Backend], ports: &[ServicePort]) -> Vec<EndpointSubset> {
    let mut serving = BTreeMap::<Port, BTreeSet<usize>>::new();
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_by_key(|index| (&backends[*index].ip, &backends[*index].pod.uid));
    for (position, index) in order.iter().enumerate() {
        let backend = &backends[*index];
        if ports.is_empty() {
            serving.entry(None).or_default().insert(position);
        }
        for port in ports {
            // A pod that has no port of that name doesn't serve it.
            let Some(number) = target(port, &backend.template) else {
                continue;
            };
            let key = (
                port.name.clone(),
                number,
                protocol(&port.protocol).to_owned(),
            );
            serving.entry(Some(key)).or_default().insert(position);
        }
    }
    let mut grouped = BTreeMap::<BTreeSet<usize>, Vec<Port>>::new();
    for (port, positions) in serving {
        grouped.entry(positions).or_default().push(port);
    }
    let mut subsets: Vec<_> = grouped
        .into_iter()
        .map(|(positions, ports)| {
            let pods = || positions.iter().map(|position| &backends[order[*position]]);
            EndpointSubset {
                addresses: pods().filter(|pod| pod.ready).map(address).collect(),
                not_ready_addresses: pods().filter(|pod| !pod.ready).map(address).collect(),
                ports: ports
                    .into_iter()
                    .flatten()
                    .map(|(name, port, protocol)| EndpointPort {
                        name,
                        port,
                        protocol,
                    })
                    .collect(),
            }
        })
        .collect();
    // By ports rather than by pods, so that a pod that comes or goes doesn't reorder them.
    subsets.sort_by_cached_key(|subset| {
        let ports = subset.ports.iter();
        let key = |port: &EndpointPort| (port.name.clone(), port.port, port.protocol.clone());
        ports.map(key).collect::<Vec<_>>()
    });
    subsets
}

fn address(backend: &Backend) -> EndpointAddress {
    EndpointAddress {
        ip: backend.ip.clone(),
        node_name: backend.node_name.clone(),
        target_ref: Some(backend.pod.clone()),
        hostname: backend.hostname.clone(),
    }
}

/// The port of the pod that a Service's port leads to.
fn target(port: &ServicePort, template: &Revision) -> Option<i32> {
    match port
        .target_port
        .as_ref()
        .and_then(|target| target.value.as_ref())
    {
        None | Some(Value::Int(0)) => Some(port.port),
        Some(Value::Int(number)) => Some(*number),
        Some(Value::String(name)) => {
            let spec = template.template.as_ref()?.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().filter(|it| it.is_sidecar());
            let containers = spec.containers.iter().chain(sidecars);
            containers
                .flat_map(|container| &container.ports)
                .find(|candidate| {
                    candidate.name == *name
                        && protocol(&candidate.protocol) == protocol(&port.protocol)
                })
                .map(|found| found.container_port)
        }
    }
}

fn protocol(protocol: &str) -> &str {
    if protocol.is_empty() { "TCP" } else { protocol }
}
