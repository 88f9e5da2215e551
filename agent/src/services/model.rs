//! What the rules should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use barge_proto::v1::{Endpoints, ObjectMeta, Service, ServicePort};
use ipnet::Ipv4Net;

use super::ports::{HostPorts, Protocol};
use crate::{
    clock::to_ms,
    runtime::{self, HostPort},
};

/// What rules are made of.
#[derive(Debug, Clone, Default)]
pub struct Inputs<'a> {
    /// All Services.
    pub services: Vec<&'a Service>,
    /// Named like their Service.
    pub endpoints: Vec<&'a Endpoints>,
    /// This node's pods.
    pub own_range: Option<Ipv4Net>,
    /// The other nodes' pods.
    pub peer_ranges: Vec<Ipv4Net>,
    /// The other nodes.
    pub peers: BTreeSet<Ipv4Addr>,
    /// Where they reach this one.
    pub own_address: Option<Ipv4Addr>,
    /// Where packets of VXLAN are taken from them (UDP).
    pub vxlan: Option<u16>,
    /// Where cluster addresses come from.
    pub service_range: Option<Ipv4Net>,
    /// Ports that stay the node's own.
    pub host_ports: HostPorts,
    /// On loopback addresses something listens on these.
    pub loopback: BTreeSet<(Protocol, u16)>,
    /// Ports of the node that its pods have.
    pub pods: Option<&'a runtime::HostPorts>,
}

/// The content of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Cluster addresses, and the chain that balances each.
    pub cluster: BTreeMap<(Ipv4Addr, Protocol, u16), String>,
    /// Ports on the node's own addresses.
    pub node: BTreeMap<(Protocol, u16), String>,
    /// Ports on one of the node's own addresses, loopback among them.
    pub address: BTreeMap<(Ipv4Addr, Protocol, u16), String>,
    /// Chains that choose an endpoint.
    pub chains: BTreeMap<String, Chain>,
    /// Endpoints that may be reached by themselves.
    pub endpoints: BTreeSet<Ipv4Addr>,
    /// This node's pods.
    pub own_range: Option<Ipv4Net>,
    /// All nodes' pods.
    pub pod_ranges: BTreeSet<Ipv4Net>,
    /// The other nodes.
    pub peers: BTreeSet<Ipv4Addr>,
    /// Where they reach this one.
    pub own_address: Option<Ipv4Addr>,
    /// Where packets of VXLAN are taken from them (UDP).
    pub vxlan: Option<u16>,
    /// Where cluster addresses come from.
    pub service_range: Option<Ipv4Net>,
}

/// A chain that chooses an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Of the connections.
    pub protocol: Protocol,
    /// At least one.
    pub endpoints: BTreeSet<SocketAddrV4>,
}

/// Who has a port on the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// An older Service: namespace and name.
    Service(String),
    /// The node itself: what for.
    Node(&'static str),
}

/// Who wants a port on the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanting {
    /// The Service with this uid.
    Service(String),
    /// The pod with this uid.
    Pod(String),
}

/// A port on the node that a Service or a pod wants and somebody else has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Who does not get it.
    pub who: Wanting,
    /// The port.
    pub port: u16,
    /// Of the port.
    pub protocol: Protocol,
    /// Who has it.
    pub holder: Holder,
}

/// The rules that these inputs want, and the ports that could not be given.
///
/// A Service without endpoints is not in them: what is still addressed to a cluster address after translation is
/// refused at once, and so does the kernel on a node port where nobody listens.
pub fn rules(inputs: &Inputs<'_>) -> (Rules, BTreeSet<Conflict>) {
    let mut rules = Rules {
        own_range: inputs.own_range,
        pod_ranges: inputs
            .peer_ranges
            .iter()
            .copied()
            .chain(inputs.own_range)
            .collect(),
        peers: inputs.peers.clone(),
        own_address: inputs.own_address,
        vxlan: inputs.vxlan,
        service_range: inputs.service_range,
        ..Rules::default()
    };
    let by_name: BTreeMap<_, _> = inputs
        .endpoints
        .iter()
        .map(|endpoints| (full_name(endpoints.metadata.as_ref()), *endpoints))
        .collect();
    let mut services = inputs.services.clone();
    services.sort_by_key(|service| age(service));
    let mut conflicts = BTreeSet::new();
    let mut holders = BTreeMap::new();
    for service in services {
        let name = full_name(service.metadata.as_ref());
        let endpoints = by_name.get(&name).copied();
        let ports = service.spec.as_ref().map_or(&[][..], |spec| &spec.ports);
        for port in ports {
            add_port(&mut rules, service, port, endpoints);
            for (protocol, number) in node_ports(service, port) {
                let older = || {
                    let holder = holders.entry((protocol, number)).or_insert(name.clone());
                    (*holder != name).then(|| Holder::Service(format!("{}/{}", holder.0, holder.1)))
                };
                let node = inputs.host_ports.get(&(protocol, number));
                if let Some(holder) = node.map(|what| Holder::Node(what)).or_else(older) {
                    conflicts.insert(Conflict {
                        who: Wanting::Service(uid(service.metadata.as_ref())),
                        port: number,
                        protocol,
                        holder,
                    });
                    continue;
                }
                let chain = chain_name(&name, protocol, port);
                if rules.chains.contains_key(&chain) {
                    rules.node.insert((protocol, number), chain);
                }
            }
        }
    }
    for (uid, held) in inputs.pods.into_iter().flatten() {
        for port in &held.ports {
            let key = (port.protocol, port.port);
            let service = holders
                .get(&key)
                .map(|(namespace, name)| Holder::Service(format!("{namespace}/{name}")));
            let node = inputs.host_ports.get(&key).map(|what| Holder::Node(what));
            match (node.or(service), held.to) {
                // It listens itself, or has no address yet.
                (_, None) => {}
                (Some(holder), _) => {
                    conflicts.insert(Conflict {
                        who: Wanting::Pod(uid.clone()),
                        port: port.port,
                        protocol: port.protocol,
                        holder,
                    });
                }
                (None, Some(to)) => add_host_port(&mut rules, inputs, uid, port, to),
            }
        }
    }
    rules.endpoints = rules
        .chains
        .values()
        .flat_map(|chain| chain.endpoints.iter().map(|endpoint| *endpoint.ip()))
        .collect();
    (rules, conflicts)
}

type FullName = (String, String);

/// A pod's port: at one address, or at all of them. Loopback is left to what listens there.
fn add_host_port(rules: &mut Rules, inputs: &Inputs<'_>, uid: &str, port: &HostPort, to: Ipv4Addr) {
    let (protocol, number) = (port.protocol, port.port);
    let at = port.ip.map(|ip| format!("/{ip}")).unwrap_or_default();
    let name = format!("pod/{uid}/{protocol}/{number}{at}");
    let chain = Chain {
        protocol,
        endpoints: [SocketAddrV4::new(to, port.container_port)].into(),
    };
    if port.ip.is_none() {
        rules.node.insert((protocol, number), name.clone());
    }
    let ip = port.ip.unwrap_or(Ipv4Addr::LOCALHOST);
    if !(ip.is_loopback() && inputs.loopback.contains(&(protocol, number))) {
        let key = (ip, protocol, number);
        rules.address.insert(key, name.clone());
    }
    rules.chains.insert(name, chain);
}

fn add_port(
    rules: &mut Rules,
    service: &Service,
    port: &ServicePort,
    endpoints: Option<&Endpoints>,
) {
    let Some(protocol) = Protocol::parse(&port.protocol) else {
        return;
    };
    let targets = endpoints.map(|e| targets(e, port, protocol));
    let Some(targets) = targets.filter(|targets| !targets.is_empty()) else {
        return;
    };
    let name = chain_name(&full_name(service.metadata.as_ref()), protocol, port);
    if let Some((address, number)) = cluster_address(service).zip(number(port.port)) {
        rules
            .cluster
            .insert((address, protocol, number), name.clone());
    }
    let chain = Chain {
        protocol,
        endpoints: targets,
    };
    rules.chains.insert(name, chain);
}

/// The endpoints of one port of a Service: of subsets that have a port of its name.
fn targets(
    endpoints: &Endpoints,
    port: &ServicePort,
    protocol: Protocol,
) -> BTreeSet<SocketAddrV4> {
    let mut targets = BTreeSet::new();
    for subset in &endpoints.subsets {
        let ports = subset
            .ports
            .iter()
            .filter(|p| p.name == port.name && Protocol::parse(&p.protocol) == Some(protocol));
        for number in ports.filter_map(|p| number(p.port)) {
            let addresses = subset.addresses.iter().filter_map(|a| a.ip.parse().ok());
            targets.extend(addresses.map(|ip| SocketAddrV4::new(ip, number)));
        }
    }
    targets
}

/// Ports on the node's own addresses: the node port, and the Service's own for a load balancer.
fn node_ports(service: &Service, port: &ServicePort) -> BTreeSet<(Protocol, u16)> {
    let kind = service.spec.as_ref().map_or("", |spec| &spec.r#type);
    let wanted = match kind {
        "NodePort" => vec![port.node_port],
        "LoadBalancer" => vec![port.node_port, port.port],
        _ => Vec::new(),
    };
    let protocol = Protocol::parse(&port.protocol);
    let numbers = wanted.into_iter().filter_map(number);
    protocol
        .into_iter()
        .flat_map(|protocol| numbers.clone().map(move |number| (protocol, number)))
        .collect()
}

fn cluster_address(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.parse().ok()
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn chain_name(service: &FullName, protocol: Protocol, port: &ServicePort) -> String {
    // Namespace and name have at most 63 characters each, nft's limit is 127.
    let readable = format!("svc/{}/{}/{protocol}/{}", service.0, service.1, port.port);
    if readable.len() <= 120 {
        return readable;
    }
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(readable.as_bytes());
    let hex: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
    format!("svc/{hex}/{protocol}/{}", port.port)
}

fn age(service: &Service) -> (i64, FullName) {
    let meta = service.metadata.as_ref();
    let created = meta.and_then(|meta| meta.creation_timestamp.as_ref());
    (created.map_or(i64::MAX, to_ms), full_name(meta))
}

fn full_name(meta: Option<&ObjectMeta>) -> FullName {
    meta.map(|meta| (meta.namespace.clone(), meta.name.clone()))
        .unwrap_or_default()
}

fn uid(meta: Option<&ObjectMeta>) -> String {
    meta.map(|meta| meta.uid.clone()).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
