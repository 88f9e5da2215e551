//! The ports of nodes that pods claim.

use std::{collections::BTreeMap, net::Ipv4Addr};

use barge_proto::{
    host_ports::{self, HostPort},
    v1::PodSpec,
};

/// Why a node cannot take a pod whose ports others have, as a sentence for people.
pub const NO_FREE_PORTS: &str = "node(s) didn't have free ports for the requested pod ports";

/// What one pod of this spec claims of its node, each port once.
pub fn claimed(spec: &PodSpec) -> Vec<HostPort> {
    let mut ports: Vec<_> = host_ports::claims(spec)
        .into_iter()
        .map(|claim| claim.host)
        .collect();
    ports.dedup();
    ports
}

/// The claimed ports of one node, with the number of pods that claim each: a pod that names its node is not refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortsInUse(BTreeMap<HostPort, u32>);

impl PortsInUse {
    /// Another pod claims these.
    pub fn add(&mut self, ports: &[HostPort]) {
        for port in ports {
            *self.0.entry(*port).or_default() += 1;
        }
    }

    /// A pod that claimed these is gone.
    pub fn remove(&mut self, ports: &[HostPort]) {
        for port in ports {
            if let Some(pods) = self.0.get_mut(port) {
                *pods = pods.saturating_sub(1);
                if *pods == 0 {
                    self.0.remove(port);
                }
            }
        }
    }

    /// Whether no port is claimed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a further pod can have these.
    pub fn has_room(&self, ports: &[HostPort]) -> bool {
        ports.iter().all(|wanted| {
            let at = |ip| HostPort { ip, ..*wanted };
            let mut same = self.0.range(at(None)..=at(Some(Ipv4Addr::BROADCAST)));
            !same.any(|(taken, _)| taken.conflicts(wanted))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::host_ports::Protocol;
    use proptest::prelude::*;

    use super::*;

    fn port() -> impl Strategy<Value = HostPort> {
        let address = prop_oneof![
            Just(None),
            (0..2u8).prop_map(|last| Some(Ipv4Addr::new(255, 255, 255, 254 + last))),
            Just(Some(Ipv4Addr::UNSPECIFIED)),
        ];
        (0..2u16, any::<bool>(), address).prop_map(|(port, tcp, ip)| HostPort {
            port: 65534 + port,
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            ip,
        })
    }

    proptest! {
        #[test]
        fn room_is_as_each_pair_says(
            pods in prop::collection::vec((prop::collection::vec(port(), 0..3), any::<bool>()), 0..6),
            wanted in prop::collection::vec(port(), 0..3),
        ) {
            let mut ports = PortsInUse::default();
            pods.iter().for_each(|(pod, _)| ports.add(pod));
            pods.iter().filter(|(_, goes)| *goes).for_each(|(pod, _)| ports.remove(pod));
            let left: Vec<_> = pods.iter().filter(|(_, goes)| !goes).flat_map(|(pod, _)| pod).collect();
            let free = wanted.iter().all(|port| !left.iter().any(|taken| taken.conflicts(port)));
            prop_assert_eq!(ports.has_room(&wanted), free);
            prop_assert_eq!(ports.is_empty(), left.is_empty());
        }
    }
}
