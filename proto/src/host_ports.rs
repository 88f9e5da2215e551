//! The ports of its node that a pod claims.

use std::net::Ipv4Addr;

use crate::v1::PodSpec;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of a node, at one of its addresses or at all of them. Ordered by port, protocol and address, all addresses first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The address; `None`: all addresses.
    pub ip: Option<Ipv4Addr>,
}

impl HostPort {
    /// Whether no two pods of one node can have both.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let same_address = self.ip.is_none() || other.ip.is_none() || self.ip == other.ip;
        (self.port, self.protocol) == (other.port, other.protocol) && same_address
    }
}

/// A claimed port, and the port of the container behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The port of the node.
    pub host: HostPort,
    /// The container's port.
    pub container_port: u16,
}

/// What a pod claims, in order: each `hostPort`; in the node's network each port of its containers, too. What is no port is left out.
#[must_use]
pub fn claims(spec: &PodSpec) -> Vec<Claim> {
    let mut claims = Vec::new();
    // Init containers that end claim nothing, as in Kubernetes: they are never there together.
    let sidecars = spec.init_containers.iter().filter(|it| it.is_sidecar());
    let stay = spec.containers.iter().chain(sidecars);
    for port in stay.flat_map(|it| &it.ports) {
        let number = match (port.host_port, spec.host_network) {
            (0, true) => port.container_port,
            (number, _) => number,
        };
        let protocol = match port.protocol.as_str() {
            "" | "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => continue,
        };
        let (Ok(number @ 1..), Ok(container_port @ 1..)) =
            (u16::try_from(number), u16::try_from(port.container_port))
        else {
            continue;
        };
        let ip = port.host_ip.parse().ok();
        claims.push(Claim {
            host: HostPort {
                port: number,
                protocol,
                ip: ip.filter(|ip: &Ipv4Addr| !ip.is_unspecified()),
            },
            container_port,
        });
    }
    claims.sort_unstable();
    claims.dedup();
    claims
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::v1::{Container, ContainerPort};

    #[test]
    fn what_a_pod_claims() {
        let port = |container_port, host_port, host_ip: &str, protocol: &str| ContainerPort {
            container_port,
            host_port,
            host_ip: host_ip.into(),
            protocol: protocol.into(),
            ..ContainerPort::default()
        };
        let mut spec = PodSpec {
            containers: vec![Container {
                ports: vec![
                    port(80, 8080, "", "TCP"),
                    port(443, 0, "", "TCP"),
                    port(53, 53, "192.0.2.1", "UDP"),
                    port(80, 8081, "0.0.0.0", ""),
                ],
                ..Container::default()
            }],
            ..PodSpec::default()
        };
        let claim = |port, protocol, ip: Option<&str>, container_port| Claim {
            host: HostPort {
                port,
                protocol,
                ip: ip.map(|ip| ip.parse().unwrap()),
            },
            container_port,
        };
        let own = [
            claim(53, Protocol::Udp, Some("192.0.2.1"), 53),
            claim(8080, Protocol::Tcp, None, 80),
            claim(8081, Protocol::Tcp, None, 80),
        ];
        assert_eq!(claims(&spec), own);
        spec.host_network = true;
        assert!(claims(&spec).contains(&claim(443, Protocol::Tcp, None, 443)));
    }

    #[test]
    fn all_addresses_contain_each() {
        let at = |ip: Option<[u8; 4]>, protocol| HostPort {
            port: 80,
            protocol,
            ip: ip.map(Ipv4Addr::from),
        };
        let (one, two) = (Some([192, 0, 2, 1]), Some([192, 0, 2, 2]));
        let tcp = |ip| at(ip, Protocol::Tcp);
        assert!(tcp(None).conflicts(&tcp(None)) && tcp(one).conflicts(&tcp(one)));
        assert!(tcp(None).conflicts(&tcp(one)) && tcp(one).conflicts(&tcp(None)));
        assert!(!tcp(one).conflicts(&tcp(two)));
        assert!(!tcp(None).conflicts(&at(None, Protocol::Udp)));
    }
}
