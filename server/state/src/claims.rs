//! Values that only one record of the cluster may have: addresses, ports, pod ranges, Raft ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::kind::Stored;

/// A value that is given to one record at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A Service's cluster address.
    ClusterIp(String),
    /// A port on every node, with its protocol.
    NodePort(i32, String),
    /// A node's range of pod addresses.
    PodCidr(String),
    /// A manager's id in Raft.
    RaftId(u64),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::ClusterIp(address) => write!(f, "the cluster address {address}"),
            Claim::NodePort(port, protocol) => write!(f, "the node port {port}/{protocol}"),
            Claim::PodCidr(range) => write!(f, "the pod range {range}"),
            Claim::RaftId(id) => write!(f, "the Raft id {id}"),
        }
    }
}

/// The record that has each value.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<Claim, String>);

impl Claims {
    /// Moves the claims of a record to what it is now. They have to be free: see [`Claims::holder`].
    pub fn swap(&mut self, before: Option<&Stored>, after: Option<&Stored>) {
        for claim in before.into_iter().flat_map(claims) {
            self.0.remove(&claim);
        }
        if let Some(record) = after {
            for claim in claims(record) {
                self.0.insert(claim, record.uid().to_owned());
            }
        }
    }

    /// The uid of the record that has this value.
    pub fn holder(&self, claim: &Claim) -> Option<&str> {
        self.0.get(claim).map(String::as_str)
    }

    /// All values that are given away, and the uids of the records that have them.
    pub fn iter(&self) -> impl Iterator<Item = (&Claim, &str)> {
        self.0.iter().map(|(claim, uid)| (claim, uid.as_str()))
    }
}

/// The values that a record claims.
pub fn claims(record: &Stored) -> BTreeSet<Claim> {
    match record {
        Stored::Service(service) => {
            let Some(spec) = &service.spec else {
                return BTreeSet::new();
            };
            let addresses = std::iter::once(&spec.cluster_ip).chain(&spec.cluster_ips);
            let addresses = addresses
                .filter(|address| !address.is_empty() && *address != "None")
                .map(|address| Claim::ClusterIp(address.clone()));
            let ports = spec
                .ports
                .iter()
                .filter(|port| port.node_port != 0)
                .map(|port| {
                    let protocol = if port.protocol.is_empty() {
                        "TCP"
                    } else {
                        &port.protocol
                    };
                    Claim::NodePort(port.node_port, protocol.to_owned())
                });
            addresses.chain(ports).collect()
        }
        Stored::Node(node) => {
            let Some(spec) = &node.spec else {
                return BTreeSet::new();
            };
            let ranges = std::iter::once(&spec.pod_cidr).chain(&spec.pod_cidrs);
            ranges
                .filter(|range| !range.is_empty())
                .map(|range| Claim::PodCidr(range.clone()))
                .collect()
        }
        Stored::Manager(manager) if manager.raft_id != 0 => {
            BTreeSet::from([Claim::RaftId(manager.raft_id)])
        }
        _ => BTreeSet::new(),
    }
}
