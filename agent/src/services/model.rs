//! What the rules should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use barge_proto::v1::{EndpointAddress, Endpoints, ObjectMeta, Service, ServicePort, ServiceSpec};
use ipnet::Ipv4Net;

use super::ports::{HostPorts, Protocol};
use crate::{
    clock::to_ms,
    runtime::{self, HostPort},
};

/// Kubernetes' default of the time for which a client stays with an endpoint, in seconds.
const STAYS: i32 = 10_800;

/// What rules are made of.
#[derive(Debug, Clone, Default)]
pub struct Inputs<'a> {
    /// All Services.
    pub services: Vec<&'a Service>,
    /// Named like their Service.
    pub endpoints: Vec<&'a Endpoints>,
    /// This node's name; empty while it is not known.
    pub node: &'a str,
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
    /// Chains that lead clients to other chains, by who they are.
    pub gates: BTreeMap<String, Gate>,
    /// Chains of one endpoint, each with the set of the clients that stay with it.
    pub seats: BTreeMap<String, Seat>,
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
    /// For how many seconds a client stays with an endpoint after its last connection; `None`: endpoints take turns.
    pub stays: Option<u32>,
}

/// A chain that leads clients to other chains. Who is led nowhere is not translated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// Clients outside of the machine have to be of one of these ranges, unless there are none.
    pub sources: BTreeSet<Ipv4Net>,
    /// Where pods and the machine itself go.
    pub inside: Option<String>,
    /// Where everybody else goes.
    pub outside: Option<String>,
}

/// A chain of one endpoint, with the clients that stay with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Of the connections.
    pub protocol: Protocol,
    /// The endpoint.
    pub endpoint: SocketAddrV4,
    /// For how many seconds a client stays after its last connection.
    pub stays: u32,
}

/// The name of a seat. Another time is another set: the kernel does not change it.
pub fn seat_name(chain: &str, endpoint: &SocketAddrV4, stays: u32) -> String {
    format!("{chain}/{}/{}/{stays}", endpoint.ip(), endpoint.port())
}

impl Rules {
    /// All endpoints that a chain leads to.
    pub fn behind(&self, chain: &str) -> BTreeSet<SocketAddrV4> {
        let gate = self.gates.get(chain);
        let led = gate
            .into_iter()
            .flat_map(|gate| [&gate.inside, &gate.outside]);
        let chains = led.flatten().map(String::as_str).chain([chain]);
        let chains = chains.filter_map(|name| self.chains.get(name));
        chains
            .flat_map(|chain| chain.endpoints.iter().copied())
            .collect()
    }
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
            let doors = add_port(&mut rules, inputs, service, port, endpoints);
            for (protocol, number, door) in node_ports(service, port, doors) {
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
                if let Some(chain) = door {
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
    rules.seats = seats(&rules.chains);
    (rules, conflicts)
}

/// A seat for each endpoint of chains where clients stay.
pub fn seats(chains: &BTreeMap<String, Chain>) -> BTreeMap<String, Seat> {
    let stay = chains.iter().filter_map(|it| Some((it, it.1.stays?)));
    let seats = stay.flat_map(|((name, chain), stays)| {
        chain.endpoints.iter().map(move |endpoint| {
            let seat = Seat {
                protocol: chain.protocol,
                endpoint: *endpoint,
                stays,
            };
            (seat_name(name, endpoint, stays), seat)
        })
    });
    seats.collect()
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
        stays: None,
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

/// Where the ports of a Service on the node's own addresses lead to, as far as there are endpoints.
#[derive(Default)]
struct Doors {
    /// The node port.
    node: Option<String>,
    /// The Service's own port of a load balancer.
    balancer: Option<String>,
}

fn add_port(
    rules: &mut Rules,
    inputs: &Inputs<'_>,
    service: &Service,
    port: &ServicePort,
    endpoints: Option<&Endpoints>,
) -> Doors {
    let protocol = Protocol::parse(&port.protocol);
    let Some(((spec, protocol), endpoints)) = service.spec.as_ref().zip(protocol).zip(endpoints)
    else {
        return Doors::default();
    };
    let is_here =
        |address: &EndpointAddress| !inputs.node.is_empty() && address.node_name == inputs.node;
    let name = chain_name(&full_name(service.metadata.as_ref()), protocol, port);
    let stays = stays(spec);
    let mut add = |name: String, endpoints: BTreeSet<SocketAddrV4>| {
        let chain = Chain {
            protocol,
            endpoints,
            stays,
        };
        let is_some = !chain.endpoints.is_empty();
        is_some.then(|| {
            rules.chains.insert(name.clone(), chain);
            name
        })
    };
    let all = add(name.clone(), targets(endpoints, port, protocol, |_| true));
    let is_local = |policy: &str| policy == "Local";
    let outside_is_local = is_local(&spec.external_traffic_policy);
    let here = match outside_is_local || is_local(&spec.internal_traffic_policy) {
        true => add(
            format!("{name}/here"),
            targets(endpoints, port, protocol, is_here),
        ),
        false => None,
    };
    let cluster = match is_local(&spec.internal_traffic_policy) {
        true => &here,
        false => &all,
    };
    if let Some(((address, number), chain)) = cluster_address(service)
        .zip(number(port.port))
        .zip(cluster.as_ref())
    {
        rules
            .cluster
            .insert((address, protocol, number), chain.clone());
    }
    let sources = source_ranges(spec);
    let mut gate = |suffix: &str, sources: BTreeSet<Ipv4Net>| {
        if sources.is_empty() && !outside_is_local {
            return all.clone();
        }
        let outside = match outside_is_local {
            true => &here,
            false => &all,
        };
        let name = format!("{name}/{suffix}");
        let gate = Gate {
            sources,
            inside: all.clone(),
            outside: outside.clone(),
        };
        // Nobody is led anywhere without endpoints.
        all.is_some().then(|| {
            rules.gates.insert(name.clone(), gate);
            name
        })
    };
    let (has_node_port, is_balancer) = (has_node_ports(spec), spec.r#type == "LoadBalancer");
    Doors {
        node: has_node_port
            .then(|| gate("node", BTreeSet::new()))
            .flatten(),
        balancer: is_balancer.then(|| gate("balancer", sources)).flatten(),
    }
}

/// For how many seconds clients stay with an endpoint, if they do.
fn stays(spec: &ServiceSpec) -> Option<u32> {
    let config = spec.session_affinity_config.as_ref();
    let config = config.and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    let seconds = u32::try_from(seconds.unwrap_or(STAYS)).unwrap_or(1).max(1);
    (spec.session_affinity == "ClientIP").then_some(seconds)
}

/// What a client of a load balancer has to be of. Ranges that cannot be read let nobody in.
fn source_ranges(spec: &ServiceSpec) -> BTreeSet<Ipv4Net> {
    let wanted = &spec.load_balancer_source_ranges;
    let ranges = wanted
        .iter()
        .filter_map(|range| range.trim().parse::<Ipv4Net>().ok());
    let ranges: Vec<_> = ranges.map(|range| range.trunc()).collect();
    if ranges.iter().any(|range| range.prefix_len() == 0) {
        return BTreeSet::new();
    }
    let mut ranges: BTreeSet<_> = Ipv4Net::aggregate(&ranges).into_iter().collect();
    // Two halves are everything, too.
    if ranges.iter().any(|range| range.prefix_len() == 0) {
        return BTreeSet::new();
    }
    if ranges.is_empty() && !wanted.is_empty() {
        ranges.insert(Ipv4Net::from(Ipv4Addr::UNSPECIFIED));
    }
    ranges
}

/// The endpoints of one port of a Service: of subsets that have a port of its name.
fn targets(
    endpoints: &Endpoints,
    port: &ServicePort,
    protocol: Protocol,
    is_wanted: impl Fn(&EndpointAddress) -> bool,
) -> BTreeSet<SocketAddrV4> {
    let mut targets = BTreeSet::new();
    for subset in &endpoints.subsets {
        let ports = subset
            .ports
            .iter()
            .filter(|p| p.name == port.name && Protocol::parse(&p.protocol) == Some(protocol));
        for number in ports.filter_map(|p| number(p.port)) {
            let addresses = subset.addresses.iter().filter(|a| is_wanted(a));
            let addresses = addresses.filter_map(|a| a.ip.parse().ok());
            targets.extend(addresses.map(|ip| SocketAddrV4::new(ip, number)));
        }
    }
    targets
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer")
}

/// Ports on the node's own addresses, and where they lead to: the node port, and the Service's own for a load balancer.
fn node_ports(
    service: &Service,
    port: &ServicePort,
    doors: Doors,
) -> Vec<(Protocol, u16, Option<String>)> {
    let kind = service.spec.as_ref().map_or("", |spec| &spec.r#type);
    let wanted = match kind {
        "NodePort" => vec![(port.node_port, doors.node)],
        "LoadBalancer" => vec![(port.node_port, doors.node), (port.port, doors.balancer)],
        _ => Vec::new(),
    };
    let Some(protocol) = Protocol::parse(&port.protocol) else {
        return Vec::new();
    };
    let wanted = wanted.into_iter();
    wanted
        .filter_map(|(wanted, door)| Some((protocol, number(wanted)?, door)))
        .collect()
}

fn cluster_address(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.parse().ok()
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn chain_name(service: &FullName, protocol: Protocol, port: &ServicePort) -> String {
    // Namespace and name have at most 63 characters each, nft's limit is 127, and 28 are for what seats add.
    let readable = format!("svc/{}/{}/{protocol}/{}", service.0, service.1, port.port);
    if readable.len() <= 90 {
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
