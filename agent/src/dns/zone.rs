//! The cluster's own domain: what there is at a name, of values.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::Ipv4Addr,
};

use hickory_proto::{
    ProtoError,
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, NS, PTR, SOA, SRV, TXT},
    },
};

use super::{DOMAIN, LINK_LOCAL, names::Names};

/// Seconds for which an answer, or that there is none, may be remembered: a change of endpoints is to be seen soon.
pub const TTL: u32 = 5;
/// The version of Kubernetes' specification of names that this follows.
const VERSION: &str = "1.1.0";

/// All names of the cluster.
#[derive(Debug, Default)]
pub struct Zone {
    serial: u32,
    address: Option<Ipv4Addr>,
    /// By namespace and name.
    services: HashMap<String, HashMap<String, Named>>,
    /// What addresses are called, below the domain.
    reverse: HashMap<Ipv4Addr, Vec<String>>,
}

/// A Service.
#[derive(Debug, Default)]
struct Named {
    /// Its cluster address; `None` for a headless one.
    address: Option<Ipv4Addr>,
    /// Port by name and protocol, and where it leads: to the Service itself, or to one of its hosts.
    ports: Vec<(Port, Option<String>)>,
    /// Addresses of the hosts of a headless one, by name.
    hosts: BTreeMap<String, Vec<Ipv4Addr>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Port {
    name: String,
    udp: bool,
    number: u16,
}

/// An answer for a name of the cluster.
#[derive(Debug)]
pub struct Found {
    /// No error, or that there is no such name.
    pub code: ResponseCode,
    /// What was asked for. With none, `authorities` says how long that may be remembered.
    pub answers: Vec<Record>,
    /// The start of the zone.
    pub authorities: Vec<Record>,
    /// Addresses of what the answers name.
    pub additionals: Vec<Record>,
}

/// What is at a name.
enum Node {
    /// Nothing, and nothing below it.
    Missing,
    /// Only something below it.
    Empty,
    Top,
    Version,
    Addresses(Vec<Ipv4Addr>),
    Service(Vec<Ipv4Addr>, Vec<Target>),
    Ports(Vec<Target>),
}

/// Where a port leads: its number, a name below the domain, and the addresses of that.
struct Target(u16, String, Vec<Ipv4Addr>);

impl Zone {
    /// Of what control wrote. A larger `serial` is of a later zone.
    pub fn new(names: &Names, serial: u32) -> Self {
        let mut zone = Self {
            serial,
            address: names.address.parse().ok(),
            ..Self::default()
        };
        for service in &names.services {
            let below = format!("{}.{}.svc", service.name, service.namespace);
            let port = |port: &super::names::Port| {
                Some(Port {
                    name: port.name.to_lowercase(),
                    udp: port.udp,
                    number: u16::try_from(port.number).ok()?,
                })
            };
            let mut named = Named::default();
            if service.address != 0 {
                let address = Ipv4Addr::from(service.address);
                named.address = Some(address);
                let ports = service.ports.iter().filter_map(port);
                named.ports = ports.map(|port| (port, None)).collect();
                zone.reverse.entry(address).or_default().push(below);
            } else {
                let mut known = HashSet::new();
                for group in &service.groups {
                    let ports: Vec<_> = group.ports.iter().filter_map(port).collect();
                    for host in &group.hosts {
                        let address = Ipv4Addr::from(host.address);
                        let name = match host.name.as_str() {
                            "" => dashed(address),
                            name => name.to_lowercase(),
                        };
                        for port in &ports {
                            if known.insert((port.clone(), name.clone())) {
                                named.ports.push((port.clone(), Some(name.clone())));
                            }
                        }
                        let addresses = named.hosts.entry(name.clone()).or_default();
                        if !addresses.contains(&address) {
                            addresses.push(address);
                            let called = format!("{name}.{below}");
                            zone.reverse.entry(address).or_default().push(called);
                        }
                    }
                }
            }
            let namespace = zone.services.entry(service.namespace.clone()).or_default();
            namespace.insert(service.name.clone(), named);
        }
        zone
    }

    /// Whether a name is in the cluster's domain.
    pub fn holds(name: &Name) -> bool {
        below(name).is_some()
    }

    /// What is at a name, `part` of it where there is much; `None` when others are to be asked.
    pub fn look(&self, name: &Name, kind: RecordType, part: Part) -> Option<Found> {
        let records = match below(name) {
            Some(labels) => {
                let labels: Vec<_> = labels.iter().map(String::as_str).collect();
                self.records(name, kind, part, self.at(&labels))
            }
            None => self.pointers(name, kind)?,
        };
        // Names that are too long have no place in an answer.
        Some(records.unwrap_or_else(|_| Found::new(ResponseCode::ServFail)))
    }

    /// By the labels below the domain, the outermost first.
    fn at(&self, labels: &[&str]) -> Node {
        let service = |namespace: &str, name: &str| {
            let found = self.services.get(namespace)?.get(name)?;
            let below = format!("{name}.{namespace}.svc");
            // By the rules of names in Kubernetes, a headless Service without ready pods has no name.
            (found.address.is_some() || !found.hosts.is_empty()).then_some((found, below))
        };
        match labels {
            [] => Node::Top,
            ["dns-version"] => Node::Version,
            ["svc" | "pod" | "dns"] => Node::Empty,
            ["dns", "ns"] => Node::Addresses(vec![self.address.unwrap_or(LINK_LOCAL)]),
            ["pod", _] => Node::Empty,
            ["pod", _, address] => match undashed(address) {
                Some(address) => Node::Addresses(vec![address]),
                None => Node::Missing,
            },
            ["svc", namespace] => match self.services.contains_key(*namespace) {
                true => Node::Empty,
                false => Node::Missing,
            },
            ["svc", namespace, name, rest @ ..] => match (service(namespace, name), rest) {
                (None, _) => Node::Missing,
                (Some((service, below)), []) => {
                    Node::Service(service.addresses(), service.targets(&below, |_| true))
                }
                (Some((service, below)), [protocol @ ("_tcp" | "_udp"), rest @ ..]) => {
                    let udp = *protocol == "_udp";
                    match rest {
                        [] if service.ports.iter().any(|(port, _)| port.udp == udp) => Node::Empty,
                        [port] => {
                            let name = port.strip_prefix('_').filter(|name| !name.is_empty());
                            let of = |port: &Port| port.udp == udp && Some(&*port.name) == name;
                            match service.targets(&below, of) {
                                none if none.is_empty() => Node::Missing,
                                targets => Node::Ports(targets),
                            }
                        }
                        _ => Node::Missing,
                    }
                }
                (Some((service, _)), [host]) => match service.hosts.get(*host) {
                    Some(addresses) => Node::Addresses(addresses.clone()),
                    None => Node::Missing,
                },
                _ => Node::Missing,
            },
            _ => Node::Missing,
        }
    }

    fn records(
        &self,
        name: &Name,
        kind: RecordType,
        part: Part,
        node: Node,
    ) -> Result<Found, ProtoError> {
        let mut found = Found::new(ResponseCode::NoError);
        let mut answer = |data| found.answers.push(record(name.clone(), data));
        let addresses = matches!(kind, RecordType::A | RecordType::ANY);
        match node {
            Node::Missing => found.code = ResponseCode::NXDomain,
            Node::Top if kind == RecordType::SOA => answer(RData::SOA(self.start()?)),
            Node::Top if kind == RecordType::NS => answer(RData::NS(NS(full("ns.dns")?))),
            Node::Version if kind == RecordType::TXT => {
                answer(RData::TXT(TXT::new(vec![VERSION.to_owned()])));
            }
            Node::Addresses(ips) | Node::Service(ips, _) if addresses => {
                for ip in part.of(ips) {
                    answer(RData::A(A(ip)));
                }
            }
            Node::Service(_, targets) | Node::Ports(targets) if kind == RecordType::SRV => {
                let weight = 100 / u16::try_from(targets.len().max(1)).unwrap_or(u16::MAX);
                let mut told = HashSet::new();
                for Target(port, target, ips) in part.of(targets) {
                    let called = full(&target)?;
                    if told.insert(target) {
                        let ips = ips.into_iter();
                        let records = ips.map(|ip| record(called.clone(), RData::A(A(ip))));
                        found.additionals.extend(records);
                    }
                    let data = RData::SRV(SRV::new(0, weight.max(1), port, called));
                    found.answers.push(record(name.clone(), data));
                }
            }
            _ => {}
        }
        if found.answers.is_empty() {
            let start = record(
                Name::from_ascii(format!("{DOMAIN}."))?,
                RData::SOA(self.start()?),
            );
            found.authorities.push(start);
        }
        Ok(found)
    }

    /// Names of an address of the cluster.
    fn pointers(&self, name: &Name, kind: RecordType) -> Option<Result<Found, ProtoError>> {
        let names = self.reverse.get(&reversed(name)?)?;
        let of = |called: &String| {
            full(called).map(|called| record(name.clone(), RData::PTR(PTR(called))))
        };
        let mut found = Found::new(ResponseCode::NoError);
        if matches!(kind, RecordType::PTR | RecordType::ANY) {
            match names.iter().map(of).collect() {
                Ok(answers) => found.answers = answers,
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(found))
    }

    fn start(&self) -> Result<SOA, ProtoError> {
        let (server, person) = (full("ns.dns")?, full("hostmaster")?);
        Ok(SOA::new(
            server,
            person,
            self.serial,
            7200,
            1800,
            86_400,
            TTL,
        ))
    }
}

impl Named {
    fn addresses(&self) -> Vec<Ipv4Addr> {
        let hosts = self.hosts.values().flatten().copied();
        self.address.into_iter().chain(hosts).collect()
    }

    fn targets(&self, below: &str, of: impl Fn(&Port) -> bool) -> Vec<Target> {
        let ports = self.ports.iter().filter(|(port, _)| of(port));
        let target = |(port, host): &(Port, Option<String>)| match host {
            None => Target(port.number, below.to_owned(), self.addresses()),
            Some(host) => {
                let addresses = self.hosts.get(host).cloned().unwrap_or_default();
                Target(port.number, format!("{host}.{below}"), addresses)
            }
        };
        ports.map(target).collect()
    }
}

/// Which of many addresses are answered: `most` of them, from another one with each question.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Counts questions.
    pub turn: usize,
    /// How many records are made.
    pub most: usize,
}

impl Part {
    fn of<T>(self, mut all: Vec<T>) -> Vec<T> {
        let first = self.turn.checked_rem(all.len()).unwrap_or_default();
        all.rotate_left(first);
        all.truncate(self.most);
        all
    }
}

impl Found {
    fn new(code: ResponseCode) -> Self {
        Self {
            code,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

/// The labels below the cluster's domain in lower case, the outermost first; `None` for a name that is not in it. Labels that are no text are
/// those of no name that there is.
fn below(name: &Name) -> Option<Vec<String>> {
    let text = |label: &[u8]| String::from_utf8_lossy(label).to_lowercase();
    let mut labels = name.iter().rev().map(text);
    let domain = DOMAIN.rsplit('.');
    for of_domain in domain {
        if labels.next()? != of_domain {
            return None;
        }
    }
    Some(labels.collect())
}

/// The address that a name below `in-addr.arpa` stands for.
fn reversed(name: &Name) -> Option<Ipv4Addr> {
    let text = |label: &[u8]| String::from_utf8_lossy(label).to_lowercase();
    let labels: Vec<_> = name.iter().map(text).collect();
    let [d, c, b, a, inverse, arpa] = &labels[..] else {
        return None;
    };
    if (inverse.as_str(), arpa.as_str()) != ("in-addr", "arpa") {
        return None;
    }
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

fn record(name: Name, data: RData) -> Record {
    Record::from_rdata(name, TTL, data)
}

/// A name below the domain.
fn full(below: &str) -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{below}.{DOMAIN}."))
}

/// As names of pods have an address: `10-244-1-7`.
fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

fn undashed(label: &str) -> Option<Ipv4Addr> {
    let address = label.replace('-', ".").parse().ok()?;
    (dashed(address) == label).then_some(address)
}

#[cfg(test)]
pub(super) mod tests;
