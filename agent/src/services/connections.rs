//! Connections of UDP that lead to endpoints that went.
//!
//! The kernel asks the rules for the first packet of a connection, and remembers the answer for as long as packets come. Of TCP that is right: a connection ends with its endpoint. A client of UDP that
//! keeps its port is one connection for ever, and would go on sending to a pod that has ended. So what the kernel remembers of such clients is dropped, and their next packet is a first one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{model::Rules, ports::Protocol};

mod kernel;
mod worker;

pub use worker::Forgetter;

type Endpoints = BTreeSet<SocketAddrV4>;

/// Ports of Services and pods for UDP that lead elsewhere than before, and where they lead now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// At one address.
    at: BTreeMap<SocketAddrV4, Endpoints>,
    /// At all addresses of the machine.
    node: BTreeMap<u16, Endpoints>,
}

/// A connection, as the kernel remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Where the client sends to.
    pub to: SocketAddrV4,
    /// Who answers.
    pub by: SocketAddrV4,
}

impl Moved {
    /// What is different in new rules. Without old ones nothing is known of the rules that connections were made by.
    pub fn between(old: Option<&Rules>, new: &Rules) -> Self {
        let none = Rules::default();
        let (before, is_known) = (old.unwrap_or(&none), old.is_some());
        let mut moved = Self::default();
        let moves = |was: Option<&String>, is: Option<&String>| {
            let was = was.map(|chain| before.behind(chain));
            let is = is.map(|chain| new.behind(chain));
            (!is_known || was != is).then(|| is.unwrap_or_default())
        };
        for (was, is) in [
            (&before.cluster, &new.cluster),
            (&before.address, &new.address),
        ] {
            let udp = |key: &&(Ipv4Addr, Protocol, u16)| key.1 == Protocol::Udp;
            for key in was.keys().chain(is.keys()).filter(udp) {
                if let Some(now) = moves(was.get(key), is.get(key)) {
                    moved.at.insert(SocketAddrV4::new(key.0, key.2), now);
                }
            }
        }
        let (was, is) = (&before.node, &new.node);
        let udp = |key: &&(Protocol, u16)| key.0 == Protocol::Udp;
        for key in was.keys().chain(is.keys()).filter(udp) {
            if let Some(now) = moves(was.get(key), is.get(key)) {
                moved.node.insert(key.1, now);
            }
        }
        moved
    }

    /// Whether nothing has moved.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty() && self.node.is_empty()
    }

    /// Adds what moved later.
    pub fn add(&mut self, later: Self) {
        self.at.extend(later.at);
        self.node.extend(later.node);
    }

    /// Whether the rules would have a connection's next packet go elsewhere. `is_local`: whether an address is the machine's own.
    pub fn is_stale(&self, connection: Connection, is_local: impl Fn(Ipv4Addr) -> bool) -> bool {
        let Connection { to, by } = connection;
        let node = || self.node.get(&to.port()).filter(|_| is_local(*to.ip()));
        let Some(now) = self.at.get(&to).or_else(node) else {
            return false;
        };
        // Without endpoints it is for whoever listens there.
        let listens = now.is_empty() && by == to;
        !(listens || now.contains(&by))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::model::Chain, *};

    fn rules(endpoints: &[&str]) -> Rules {
        let chain = |protocol| Chain {
            protocol,
            endpoints: endpoints.iter().map(|it| it.parse().unwrap()).collect(),
            stays: None,
        };
        if endpoints.is_empty() {
            return Rules::default();
        }
        let cluster = Ipv4Addr::new(10, 96, 0, 10);
        Rules {
            cluster: [
                ((cluster, Protocol::Udp, 53), "udp".into()),
                ((cluster, Protocol::Tcp, 54), "tcp".into()),
            ]
            .into(),
            node: [
                ((Protocol::Udp, 30053), "udp".into()),
                ((Protocol::Tcp, 30054), "tcp".into()),
            ]
            .into(),
            chains: [
                ("udp".into(), chain(Protocol::Udp)),
                ("tcp".into(), chain(Protocol::Tcp)),
            ]
            .into(),
            ..Rules::default()
        }
    }

    fn is_stale(moved: &Moved, to: &str, by: &str) -> bool {
        let connection = Connection {
            to: to.parse().unwrap(),
            by: by.parse().unwrap(),
        };
        moved.is_stale(connection, |ip| ip == Ipv4Addr::new(192, 0, 2, 1))
    }

    const A: &str = "10.244.1.2:5353";
    const B: &str = "10.244.1.3:5353";

    #[test]
    fn connections_to_an_endpoint_that_went_are_stale() {
        let moved = Moved::between(Some(&rules(&[A, B])), &rules(&[B]));
        assert!(is_stale(&moved, "10.96.0.10:53", A));
        assert!(is_stale(&moved, "192.0.2.1:30053", A));
        assert!(!is_stale(&moved, "10.96.0.10:53", B), "it stays");
        assert!(!is_stale(&moved, A, A), "to the pod itself");
        assert!(
            !is_stale(&moved, "192.0.2.9:30053", "192.0.2.9:30053"),
            "of another machine"
        );
        // Their ports have other numbers, so these would be connections of UDP to ports of TCP.
        assert!(!is_stale(&moved, "10.96.0.10:54", A));
        assert!(!is_stale(&moved, "192.0.2.1:30054", A));
    }

    #[test]
    fn the_first_endpoint_takes_what_nobody_answered() {
        let moved = Moved::between(Some(&rules(&[])), &rules(&[A]));
        assert!(is_stale(&moved, "192.0.2.1:30053", "192.0.2.1:30053"));
        let moved = Moved::between(Some(&rules(&[A])), &rules(&[]));
        assert!(is_stale(&moved, "192.0.2.1:30053", A));
        let listens = "192.0.2.1:30053";
        assert!(
            !is_stale(&moved, listens, listens),
            "a process listens there now"
        );
    }

    #[test]
    fn what_did_not_change_is_not_looked_at() {
        assert!(Moved::between(Some(&rules(&[A])), &rules(&[A])).is_empty());
        // An agent that starts does not know what went before.
        let mut moved = Moved::between(None, &rules(&[B]));
        assert!(is_stale(&moved, "10.96.0.10:53", A));
        assert!(!is_stale(&moved, "10.96.0.10:53", B));
        moved.add(Moved::between(Some(&rules(&[B])), &rules(&[A])));
        assert!(is_stale(&moved, "10.96.0.10:53", B));
    }
}
