//! Scripts for `nft -f -`: each is one transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Display, Write},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::{
    model::{Chain, Gate, Rules, Seat, seat_name},
    ports::Protocol,
};

/// The table's name.
pub const NAME: &str = "barge";
/// The table, with its family; nothing outside it is touched.
pub const TABLE: &str = "inet barge";

/// Of the hash by which new clients go: the same on all nodes.
const SEED: &str = "0x62617267";

/// Replaces the table by these rules, whatever was in it. Connections go on: what was decided for them is kept by
/// connection tracking, not by the table.
pub fn replace(rules: &Rules) -> String {
    let mut out = String::new();
    // Adding first makes deleting succeed when there is none; all three happen at once.
    line(&mut out, format_args!("add table {TABLE}"));
    line(&mut out, format_args!("delete table {TABLE}"));
    line(&mut out, format_args!("table {TABLE} {{"));
    out.push_str(FRAME);
    line(&mut out, format_args!("}}"));
    out.push_str(&change(&Rules::default(), rules));
    out
}

/// Removes the table, if it is there.
pub fn remove() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// What never changes. Order of things for a packet: drop what a pod sends with an address that is not its own (-300), translate the destination
/// (-100), refuse what is still addressed to a cluster address (0), translate the source (100).
///
/// - A pod's own address is the one whose route leads to the interface that the packet came from (`sources`): see [`PREFIX`].
/// - Packets of VXLAN are taken from nodes only, for the node's own address only (not for all hosts of a link, which their senders need no address
///   for), and none of them is forwarded for others, also not by a Service: the node would lend them its address. What was inside is IPv4 from pods
///   or nodes, and not from this node's. Connection tracking leaves them alone, so no Service and no port of a pod gets them.
/// - What comes from elsewhere for a loopback address is dropped: for the sake of host ports the kernel lets such packets in on interfaces of
///   pods ([`super::loopback`]).
/// - Addresses that the machine has itself, the name server's ([`crate::dns`]), are no Service's: they are neither refused nor given to node ports.
/// - A TCP connection of a pod has segments that fit through the routes of both ways, so it needs no ICMP to find out.
/// - Two pods on the bridge of an older agent answer each other past the rules, so a connection between them through a Service seems to come from
///   the node. All other pods see who their client is, except themselves.
///
/// [`PREFIX`]: crate::runtime::POD_LINKS
const FRAME: &str = "\
	map cluster_ports { type ipv4_addr . inet_proto . inet_service : verdict; }
	map node_ports { type inet_proto . inet_service : verdict; }
	map address_ports { type ipv4_addr . inet_proto . inet_service : verdict; }
	set own_range { type ipv4_addr; flags interval; }
	set pod_ranges { type ipv4_addr; flags interval; }
	set service_range { type ipv4_addr; flags interval; }
	set endpoints { type ipv4_addr . ipv4_addr; }
	set peers { type ipv4_addr; }
	set own_address { type ipv4_addr; }
	set vxlan_ports { type inet_service; }
	chain services {
		ip daddr . meta l4proto . th dport vmap @cluster_ports
		fib daddr type local ip daddr . meta l4proto . th dport vmap @address_ports
		ip daddr != { 127.0.0.0/8, 169.254.20.10 } ip daddr != @pod_ranges ip daddr != @service_range fib daddr type local meta l4proto . th dport vmap @node_ports
	}
	chain refuse {
		meta l4proto tcp reject with tcp reset
		reject with icmpx port-unreachable
	}
	chain sources {
		type filter hook prerouting priority raw; policy accept;
		iifname \"bp-*\" fib saddr . iif oif missing drop
		iifname \"barge-vx\" meta nfproto ipv6 drop
		iifname \"barge-vx\" ip saddr @own_range drop
		iifname \"barge-vx\" ip saddr != @pod_ranges ip saddr != @peers drop
		udp dport @vxlan_ports ip saddr @peers ip daddr @own_address notrack
		udp dport @vxlan_ports ip saddr != @peers ip daddr @peers drop
	}
	chain vxlan {
		ip saddr @peers ip daddr @own_address accept
		drop
	}
	chain untracked {
		type filter hook output priority raw; policy accept;
		udp dport @vxlan_ports ip daddr @peers notrack
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		goto services
	}
	chain output {
		type nat hook output priority -100; policy accept;
		goto services
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		udp dport @vxlan_ports ip saddr != @peers ip daddr @peers drop
		udp dport @vxlan_ports iifname \"bp-*\" ip daddr != @pod_ranges drop
		udp dport @vxlan_ports iifname barge0 ip daddr != @pod_ranges drop
		udp dport @vxlan_ports iifname \"bp-*\" meta nfproto ipv6 drop
		ip daddr @service_range fib daddr type != local goto refuse
		ip saddr @pod_ranges tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		ip saddr != @pod_ranges ip daddr @pod_ranges tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
	}
	chain filter_output {
		type filter hook output priority filter; policy accept;
		ip daddr @service_range fib daddr type != local goto refuse
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname != lo ip daddr 127.0.0.0/8 ct direction original drop
		udp dport @vxlan_ports jump vxlan
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat ip saddr . ip daddr @endpoints masquerade
		ct status dnat iifname barge0 oifname barge0 masquerade
		ct status dnat ip saddr != @pod_ranges ip daddr != @own_range oifname != lo masquerade
		ct status dnat ip saddr 127.0.0.0/8 oifname != lo masquerade
		ip saddr @own_range ip daddr != @pod_ranges ip daddr != 224.0.0.0/4 masquerade
	}
";

/// From one content to another. Only what differs is named; connections of everything else are not touched.
pub fn change(old: &Rules, new: &Rules) -> String {
    let mut out = String::new();
    // What is pointed at comes first, and goes last: seats, chains, gates, elements.
    for (name, seat) in new.seats.iter().filter(|it| !old.seats.contains_key(it.0)) {
        // Without a size: the kernel takes memory as clients come, and notes 65,535 of them at most.
        let set = format!(
            "type ipv4_addr; flags dynamic,timeout; timeout {}s;",
            seat.stays
        );
        line(&mut out, format_args!("add set {TABLE} {name} {{ {set} }}"));
        line(&mut out, format_args!("add chain {TABLE} {name}"));
        for rule in sit(name, seat) {
            line(&mut out, format_args!("add rule {TABLE} {name} {rule}"));
        }
    }
    chain_changes(&mut out, &old.chains, &new.chains, choose);
    chain_changes(&mut out, &old.gates, &new.gates, lead);
    map_changes(&mut out, "cluster_ports", &old.cluster, &new.cluster, |k| {
        format!("{} . {} . {}", k.0, k.1, k.2)
    });
    map_changes(&mut out, "address_ports", &old.address, &new.address, |k| {
        format!("{} . {} . {}", k.0, k.1, k.2)
    });
    map_changes(&mut out, "node_ports", &old.node, &new.node, |k| {
        format!("{} . {}", k.0, k.1)
    });
    let pair = |ip: &Ipv4Addr| format!("{ip} . {ip}");
    set_changes(&mut out, "endpoints", &old.endpoints, &new.endpoints, pair);
    let range = |net: &Ipv4Net| net.trunc().to_string();
    let one = |net: Option<Ipv4Net>| net.into_iter().collect::<BTreeSet<_>>();
    for (set, before, after) in [
        ("own_range", one(old.own_range), one(new.own_range)),
        ("pod_ranges", old.pod_ranges.clone(), new.pod_ranges.clone()),
        (
            "service_range",
            one(old.service_range),
            one(new.service_range),
        ),
    ] {
        set_changes(&mut out, set, &before, &after, range);
    }
    let address = |address: &Ipv4Addr| address.to_string();
    set_changes(&mut out, "peers", &old.peers, &new.peers, address);
    let alone = |address: Option<Ipv4Addr>| address.into_iter().collect::<BTreeSet<_>>();
    let (before, after) = (alone(old.own_address), alone(new.own_address));
    set_changes(&mut out, "own_address", &before, &after, address);
    let port = |port: Option<u16>| port.into_iter().collect::<BTreeSet<_>>();
    let (before, after) = (port(old.vxlan), port(new.vxlan));
    set_changes(&mut out, "vxlan_ports", &before, &after, u16::to_string);
    let gone = gone(&old.gates, &new.gates);
    let gone = gone.chain(self::gone(&old.chains, &new.chains));
    for name in gone {
        line(&mut out, format_args!("flush chain {TABLE} {name}"));
        line(&mut out, format_args!("delete chain {TABLE} {name}"));
    }
    for name in self::gone(&old.seats, &new.seats) {
        line(&mut out, format_args!("flush chain {TABLE} {name}"));
        line(&mut out, format_args!("delete chain {TABLE} {name}"));
        line(&mut out, format_args!("delete set {TABLE} {name}"));
    }
    out
}

fn gone<'a, T>(
    old: &'a BTreeMap<String, T>,
    new: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = &'a String> {
    old.keys().filter(|name| !new.contains_key(*name))
}

/// Chains whose rules differ.
fn chain_changes<T: PartialEq>(
    out: &mut String,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    rules: impl Fn(&str, &T) -> Vec<String>,
) {
    for (name, chain) in new {
        match old.get(name) {
            Some(same) if same == chain => continue,
            Some(_) => line(out, format_args!("flush chain {TABLE} {name}")),
            None => line(out, format_args!("add chain {TABLE} {name}")),
        }
        for rule in rules(name, chain) {
            line(out, format_args!("add rule {TABLE} {name} {rule}"));
        }
    }
}

/// Notes the client, and translates. Two rules: the kernel leaves a rule in which the client cannot be noted, because there are too many.
fn sit(name: &str, seat: &Seat) -> [String; 2] {
    let Seat {
        protocol, endpoint, ..
    } = seat;
    let (ip, port) = (endpoint.ip(), endpoint.port());
    [
        format!("update @{name} {{ ip saddr }}"),
        format!("meta l4proto {protocol} dnat ip to {ip}:{port}"),
    ]
}

/// Who stays somewhere goes there again. Who is new, or was forgotten with the table, goes by the hash of its address: with the same endpoints that is the same on all nodes.
fn choose(name: &str, chain: &Chain) -> Vec<String> {
    let Some(stays) = chain.stays else {
        return vec![balance(chain)];
    };
    let seat = |endpoint| seat_name(name, endpoint, stays);
    let seats: Vec<_> = chain.endpoints.iter().map(seat).collect();
    let mut rules: Vec<_> = seats
        .iter()
        .map(|seat| format!("ip saddr @{seat} goto {seat}"))
        .collect();
    let numbered = seats.iter().enumerate();
    let numbered: Vec<_> = numbered
        .map(|(number, seat)| format!("{number} : goto {seat}"))
        .collect();
    rules.push(format!(
        "jhash ip saddr mod {} seed {SEED} vmap {{ {} }}",
        seats.len(),
        numbered.join(", ")
    ));
    rules
}

/// The machine's own clients come first: whom a range keeps out is somebody else.
fn lead(_: &str, gate: &Gate) -> Vec<String> {
    let mut rules = Vec::new();
    let inside = gate.inside.as_ref();
    rules.extend(inside.map(|chain| format!("fib saddr type local goto {chain}")));
    if !gate.sources.is_empty() {
        let ranges: Vec<_> = gate.sources.iter().map(ToString::to_string).collect();
        rules.push(format!("ip saddr != {{ {} }} accept", ranges.join(", ")));
    }
    rules.extend(inside.map(|chain| format!("ip saddr @pod_ranges goto {chain}")));
    // Pods of other nodes have their node's address.
    rules.extend(inside.map(|chain| format!("ip saddr @peers goto {chain}")));
    rules.extend(gate.outside.as_ref().map(|chain| format!("goto {chain}")));
    rules
}

/// Endpoints take turns.
fn balance(chain: &Chain) -> String {
    let protocol: Protocol = chain.protocol;
    let count = chain.endpoints.len();
    let targets: Vec<_> = chain
        .endpoints
        .iter()
        .enumerate()
        .map(|(turn, to)| format!("{turn} : {} . {}", to.ip(), to.port()))
        .collect();
    format!(
        "meta l4proto {protocol} dnat ip to numgen inc mod {count} map {{ {} }}",
        targets.join(", ")
    )
}

fn map_changes<K: Ord>(
    out: &mut String,
    map: &str,
    old: &BTreeMap<K, String>,
    new: &BTreeMap<K, String>,
    key: impl Fn(&K) -> String,
) {
    let gone = old.iter().filter(|(k, chain)| new.get(k) != Some(chain));
    elements(out, "delete", map, gone.map(|(k, _)| key(k)).collect());
    let come = new.iter().filter(|(k, chain)| old.get(k) != Some(chain));
    let come = come.map(|(k, chain)| format!("{} : goto {chain}", key(k)));
    elements(out, "add", map, come.collect());
}

fn set_changes<K: Ord>(
    out: &mut String,
    set: &str,
    old: &BTreeSet<K>,
    new: &BTreeSet<K>,
    key: impl Fn(&K) -> String,
) {
    elements(out, "delete", set, old.difference(new).map(&key).collect());
    elements(out, "add", set, new.difference(old).map(&key).collect());
}

fn elements(out: &mut String, verb: &str, set: &str, elements: Vec<String>) {
    if !elements.is_empty() {
        let elements = elements.join(", ");
        line(
            out,
            format_args!("{verb} element {TABLE} {set} {{ {elements} }}"),
        );
    }
}

fn line(out: &mut String, text: impl Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests;
