//! Applying Services: addresses and ports are given once and kept.

use std::{collections::BTreeSet, net::Ipv4Addr};

use barge_proto::v1::{ManagerRecord, Service, ServicePort, ServiceSpec};
use barge_state::Kind;
use ipnet::Ipv4Net;

use super::{
    Merge, Planning,
    addresses::{free_address, free_port},
    merged_meta,
};
use crate::{error::ApiError, net::split_address};

/// What a headless Service has for an address.
const NONE: &str = "None";

impl Merge for Service {
    fn merged(
        planning: &mut Planning<'_>,
        new: Self,
        old: Option<&Self>,
    ) -> Result<Self, ApiError> {
        let meta = merged_meta(new.metadata, old.map(Kind::meta));
        let name = meta
            .as_ref()
            .map(|meta| meta.name.as_str())
            .unwrap_or_default();
        let mut spec = new.spec.unwrap_or_default();
        let before = old.and_then(|old| old.spec.as_ref());
        let uid = old.map(Kind::uid).unwrap_or_default();
        spec.cluster_ip = cluster_ip(planning, name, uid, &spec, before)?;
        spec.cluster_ips = vec![spec.cluster_ip.clone()];
        node_ports(planning, name, uid, &mut spec, before)?;
        check_reserved(planning, name, &spec)?;
        give_away(planning, &spec, before);
        Ok(Self {
            api_version: String::new(),
            kind: String::new(),
            metadata: meta,
            spec: Some(spec),
            status: old.and_then(|old| old.status.clone()),
        })
    }
}

fn cluster_ip(
    planning: &mut Planning<'_>,
    name: &str,
    uid: &str,
    spec: &ServiceSpec,
    before: Option<&ServiceSpec>,
) -> Result<String, ApiError> {
    let wrong = |what: String| {
        Err(ApiError::invalid(
            format!("service/{name}: spec.clusterIP"),
            what,
        ))
    };
    let wanted = spec.cluster_ip.as_str();
    let kept = before
        .map(|before| before.cluster_ip.as_str())
        .unwrap_or_default();
    match (wanted, kept) {
        ("", "") => {}
        // That it does not change was checked before.
        (_, kept) if !kept.is_empty() => return Ok(kept.to_owned()),
        (NONE, _) => return Ok(NONE.to_owned()),
        (wanted, _) => {
            let range = range(planning)?;
            let Some(address) = wanted
                .parse::<Ipv4Addr>()
                .ok()
                .filter(|a| range.contains(a) && *a != range.network() && *a != range.broadcast())
            else {
                return wrong(format!("{wanted}: not an address of the range {range}"));
            };
            if !planning.address_is_free(&address.to_string(), uid) {
                return wrong(format!("{wanted}: another Service has it"));
            }
            planning.taken.insert(address.to_string());
            return Ok(address.to_string());
        }
    }
    let range = range(planning)?;
    let from = planning.draw();
    let address = free_address(range, from, |address| {
        planning.address_is_free(&address.to_string(), uid)
    })
    .ok_or_else(|| {
        ApiError::Exhausted(format!(
            "all addresses of the range {range} are given to Services"
        ))
    })?;
    planning.taken.insert(address.to_string());
    Ok(address.to_string())
}

fn range(planning: &Planning<'_>) -> Result<Ipv4Net, ApiError> {
    planning
        .state
        .cluster()
        .and_then(|cluster| cluster.service_cidr.parse().ok())
        .ok_or_else(|| ApiError::Internal("the range of the Services is unknown".to_owned()))
}

/// Whether Services of this type answer on every node.
fn on_nodes(spec: &ServiceSpec) -> bool {
    matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer")
}

/// Refuses ports of the nodes that the nodes need themselves. Also what a Service had before: a change is when somebody
/// looks.
fn check_reserved(planning: &Planning<'_>, name: &str, spec: &ServiceSpec) -> Result<(), ApiError> {
    for (at, port) in spec.ports.iter().enumerate() {
        let own = match spec.r#type.as_str() {
            "LoadBalancer" => Some(("port", port.port)),
            _ => None,
        };
        let node = on_nodes(spec).then_some(("nodePort", port.node_port));
        for (field, number) in own.into_iter().chain(node) {
            if let Some(holder) = planning.holder_of_reserved(number) {
                return Err(ApiError::invalid(
                    format!("service/{name}: spec.ports[{at}].{field}"),
                    format!(
                        "{number}: the nodes keep this port ({holder}); choose another one, or a type that does not open it on the nodes, or see --reserved-ports of barge-server"
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn node_ports(
    planning: &mut Planning<'_>,
    name: &str,
    uid: &str,
    spec: &mut ServiceSpec,
    before: Option<&ServiceSpec>,
) -> Result<(), ApiError> {
    if !on_nodes(spec) {
        return Ok(());
    }
    let before = before.filter(|before| on_nodes(before));
    // Those that are asked for go first, so that none of them is drawn for another.
    let mut missing = Vec::new();
    for (at, port) in spec.ports.iter_mut().enumerate() {
        if port.node_port == 0 {
            port.node_port = before.and_then(|b| kept(b, port)).unwrap_or_default();
        }
        if port.node_port == 0 {
            missing.push(at);
            continue;
        }
        let field = format!("service/{name}: spec.ports[{at}].nodePort");
        if !planning.port_is_free(port.node_port, &port.protocol, uid) {
            return Err(ApiError::invalid(
                field,
                format!("{}: another Service has it", port.node_port),
            ));
        }
        planning.taken.insert(key(port.node_port, &port.protocol));
    }
    for at in missing {
        let from = planning.draw();
        let Some(port) = spec.ports.get_mut(at) else {
            continue;
        };
        let protocol = port.protocol.clone();
        port.node_port = free_port(from, |candidate| {
            planning.port_is_free(candidate, &protocol, uid)
                && planning.holder_of_reserved(candidate).is_none()
        })
        .ok_or_else(|| ApiError::Exhausted("all node ports are given to Services".to_owned()))?;
        planning.taken.insert(key(port.node_port, &protocol));
    }
    Ok(())
}

/// What a Service had and has no more is free for those that come after it in the request.
fn give_away(planning: &mut Planning<'_>, spec: &ServiceSpec, before: Option<&ServiceSpec>) {
    let keys = |spec: &ServiceSpec| -> BTreeSet<String> {
        let ports = spec.ports.iter().filter(|port| port.node_port != 0);
        ports
            .map(|port| key(port.node_port, &port.protocol))
            .collect()
    };
    let kept = keys(spec);
    let had = before.map(keys).unwrap_or_default();
    planning.given.extend(had.difference(&kept).cloned());
}

/// The node port that the same port had before: of the same name, or else of the same number.
fn kept(before: &ServiceSpec, port: &ServicePort) -> Option<i32> {
    let same = |old: &&ServicePort| {
        old.protocol == port.protocol
            && (old.port == port.port || (!port.name.is_empty() && old.name == port.name))
    };
    before.ports.iter().find(same).map(|old| old.node_port)
}

fn key(port: i32, protocol: &str) -> String {
    format!("{port}/{protocol}")
}

impl Planning<'_> {
    fn address_is_free(&self, address: &str, uid: &str) -> bool {
        let holder = self.state.service_with_cluster_ip(address);
        holder.is_none_or(|service| service.uid() == uid) && !self.taken.contains(address)
    }

    fn port_is_free(&self, port: i32, protocol: &str, uid: &str) -> bool {
        let holder = self.state.service_with_node_port(port, protocol);
        let key = key(port, protocol);
        let is_free =
            holder.is_none_or(|service| service.uid() == uid) || self.given.contains(&key);
        is_free && !self.taken.contains(&key)
    }

    /// What uses a port of the nodes that no Service may take: a manager, or what this manager was told.
    fn holder_of_reserved(&self, port: i32) -> Option<String> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        let mut managers = self.state.list::<ManagerRecord>(None);
        let manager = managers.find(|manager| {
            split_address(&manager.address).is_some_and(|(_, number)| number == port)
        });
        match manager {
            Some(manager) => Some(format!("the manager {}", manager.address)),
            None => self.reserved.holder(port).map(str::to_owned),
        }
    }
}
