//! What should lead to the pods of other nodes and to the Service range, and the steps from what is there to that: functions of values.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use barge_proto::v1::Peer;
use clap::ValueEnum;
use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::{desired::Desired, runtime::VXLAN_OVERHEAD};

/// The interface that leads to nodes which share no link with this one.
pub const DEVICE: &str = "barge-vx";
/// The number of its network, in each packet.
pub const VNI: u32 = 7102;
/// Where nodes take its packets (UDP): beside the managers' port. Docker Swarm and the standard have 4789, flannel and Cilium 8472; the kernel gives
/// a port to interfaces of one kind only.
pub const PORT: u16 = 7102;
/// No route is taken for narrower, in bytes: each host takes a packet of 576, and an answer that somebody forged makes nothing slower than that.
const NARROWEST: u32 = 576;
/// The largest packet of most links, when the node's is not known.
const USUAL_MTU: u32 = 1500;

/// A hardware address.
pub type Mac = [u8; 6];

/// How packets for other nodes' pods get there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By a direct route to nodes on a link of this one, by VXLAN to all others.
    #[default]
    Auto,
    /// By VXLAN.
    Vxlan,
    /// By direct routes.
    Direct,
}

/// What of a node does not come from its assignment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setting {
    /// The way to other nodes.
    pub mode: Mode,
    /// Where other nodes reach this one.
    pub address: Option<Ipv4Addr>,
}

impl Setting {
    /// The UDP port at which the node takes packets of VXLAN, if it does.
    pub fn vxlan_port(&self) -> Option<u16> {
        (self.mode != Mode::Direct).then_some(PORT)
    }
}

/// What the kernel says of the way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// It is on a link of this machine whose hosts find each other by ARP.
    pub is_on_link: bool,
    /// The largest packet, in bytes; `None` when the way is not known.
    pub mtu: Option<u32>,
    /// Larger ones would fit through the link.
    pub is_narrow: bool,
}

/// The machine, as far as routes go by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The largest packet of the link with the node's address, in bytes; `None` when there is none.
    pub mtu: Option<u32>,
    /// The ways to the other nodes.
    pub ways: BTreeMap<Ipv4Addr, Way>,
}

/// The next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// A node on the same link.
    Gateway(Ipv4Addr),
    /// The range's first address, at the other end of [`DEVICE`].
    Vxlan,
    /// The loopback link: only so that there is a route at all before the destination is translated.
    Loopback,
    /// Nobody: who asks is told that the host is unreachable. More exact routes, and those of a bridge, come before it.
    Nobody,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Through whom.
    pub via: Via,
    /// The largest packet, in bytes, where it is smaller than that of the interface.
    pub mtu: Option<u32>,
}

/// The VXLAN interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The number of its network.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// Whether it takes the way to others from what they send.
    pub learns: bool,
    /// Where its packets come from: the node's address.
    pub local: Option<Ipv4Addr>,
    /// See [`mac`].
    pub mac: Mac,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub is_up: bool,
    /// The first address of the node's range: the one that the node has for pods behind it.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// What leads to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// [`DEVICE`].
    pub device: Option<Device>,
    /// All routes.
    pub routes: BTreeMap<Ipv4Net, Route>,
    /// Neighbours on the device: the first addresses of other nodes' ranges.
    pub neighbours: BTreeMap<Ipv4Addr, Mac>,
    /// The node that has a neighbour's hardware address.
    pub forwards: BTreeMap<Mac, Ipv4Addr>,
}

/// The hardware address of [`DEVICE`] on the node whose range begins with this address. It follows from the range, so no node has to tell it.
pub fn mac(first: Ipv4Addr) -> Mac {
    let [a, b, c, d] = first.octets();
    // Locally administered, not multicast; the ends of pods have 02:ba.
    [0x02, 0xbb, a, b, c, d]
}

/// The other nodes with a range: range and address.
pub fn peers(desired: &Desired, own: Option<Ipv4Addr>) -> BTreeMap<Ipv4Net, Ipv4Addr> {
    let own_range = own_range(desired);
    let all = all_peers(desired).map(|(_, range, address)| (range, address));
    // There is no way to what has this node's address or range: see `twin`.
    all.filter(|(range, address)| Some(*address) != own && Some(*range) != own_range)
        .collect()
}

/// A node that has this one's address or range, and what to do. What this machine was by the same name, before it joined again, is none.
pub fn twin(desired: &Desired, own: Option<Ipv4Addr>) -> Option<String> {
    let own_range = own_range(desired);
    let meta = desired.node().and_then(|node| node.metadata.as_ref());
    let mut others = all_peers(desired)
        .filter(|(peer, ..)| meta.is_none_or(|it| it.uid != peer.node_uid && it.name != peer.name));
    others.find_map(|(peer, range, address)| {
        let (name, again) = (&peer.name, "If this machine was that node before, delete that one");
        if Some(address) == own {
            return Some(format!(
                "node {name} has this node's address {address}, so its pods are not reached: give each its own (--node-ip). {again}"
            ));
        }
        (Some(range) == own_range).then(|| {
            format!("node {name} has this node's range of pods {range}, so its pods are not reached. {again}; otherwise have it join again")
        })
    })
}

fn all_peers(desired: &Desired) -> impl Iterator<Item = (&Peer, Ipv4Net, Ipv4Addr)> {
    desired.peers.values().filter_map(|peer| {
        let range = peer.pod_cidr.parse::<Ipv4Net>().ok()?.trunc();
        Some((peer.as_ref(), range, peer.address.parse().ok()?))
    })
}

fn own_range(desired: &Desired) -> Option<Ipv4Net> {
    let range = desired.pod_cidr().parse::<Ipv4Net>().ok()?;
    Some(range.trunc())
}

/// What should be there.
pub fn wanted(desired: &Desired, setting: Setting, sight: &Sight) -> State {
    let mut state = State::default();
    let plain = |via| Route { via, mtu: None };
    if let Ok(services) = desired.service_cidr().parse::<Ipv4Net>() {
        state.routes.insert(services.trunc(), plain(Via::Loopback));
    }
    let own = own_range(desired);
    if let Some(own) = own {
        // What is for an address that no pod has would leave the machine.
        state.routes.insert(own, plain(Via::Nobody));
    }
    let through = |mtu: Option<u32>| {
        let mtu = mtu.or(sight.mtu).unwrap_or(USUAL_MTU);
        mtu.saturating_sub(VXLAN_OVERHEAD).max(NARROWEST)
    };
    state.device = own
        .filter(|_| setting.mode != Mode::Direct)
        .map(|own| Device {
            vni: VNI,
            port: PORT,
            learns: false,
            local: setting.address,
            mac: mac(own.network()),
            mtu: through(None),
            is_up: true,
            addresses: [own.network()].into(),
        });
    for (range, address) in peers(desired, setting.address) {
        let way = sight.ways.get(&address);
        let is_direct = match setting.mode {
            Mode::Auto => way.is_some_and(|way| way.is_on_link),
            Mode::Vxlan => false,
            Mode::Direct => true,
        };
        if is_direct {
            let narrow = way.filter(|way| way.is_narrow).and_then(|way| way.mtu);
            let route = Route {
                via: Via::Gateway(address),
                mtu: narrow.map(|mtu| mtu.max(NARROWEST)),
            };
            state.routes.insert(range, route);
            continue;
        }
        let Some(device) = &state.device else {
            continue;
        };
        let mtu = through(way.and_then(|way| way.mtu));
        let route = Route {
            via: Via::Vxlan,
            mtu: Some(mtu).filter(|mtu| *mtu < device.mtu),
        };
        state.routes.insert(range, route);
        let first = range.network();
        state.neighbours.insert(first, mac(first));
        state.forwards.insert(mac(first), address);
    }
    state
}

impl State {
    /// This without what needs [`DEVICE`].
    pub fn without_device(mut self) -> Self {
        self.device = None;
        self.routes.retain(|_, route| route.via != Via::Vxlan);
        self.neighbours.clear();
        self.forwards.clear();
        self
    }

    /// This without what leads to pods.
    pub fn without_nodes(self) -> Self {
        let mut state = self.without_device();
        state.routes.retain(|_, route| route.via == Via::Loopback);
        state
    }
}

/// What is there. There may be several routes to the same range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Routes of the agent's protocol.
    pub routes: Vec<(Ipv4Net, Route)>,
    /// Permanent neighbours on the device.
    pub neighbours: Vec<(Ipv4Addr, Mac)>,
    /// Forwarding entries of the device.
    pub forwards: Vec<(Mac, Ipv4Addr)>,
}

impl From<&State> for Found {
    fn from(state: &State) -> Self {
        Self {
            routes: state.routes.iter().map(|(to, it)| (*to, *it)).collect(),
            neighbours: state.neighbours.iter().map(|(to, it)| (*to, *it)).collect(),
            forwards: state.forwards.iter().map(|(to, it)| (*to, *it)).collect(),
        }
    }
}

/// Something to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Adds a neighbour, or changes it.
    PutNeighbour(Ipv4Addr, Mac),
    /// Removes it.
    DropNeighbour(Ipv4Addr, Mac),
    /// Adds a forwarding entry, or changes it.
    PutForward(Mac, Ipv4Addr),
    /// Removes it.
    DropForward(Mac, Ipv4Addr),
    /// Adds a route.
    AddRoute(Ipv4Net, Route),
    /// Changes one of the agent's.
    ChangeRoute(Ipv4Net, Route),
    /// Removes one of the agent's.
    DropRoute(Ipv4Net, Route),
}

/// What is to be done, in this order. Only what differs is named. A route comes after what it needs, and changes in one step, so that what goes
/// by it meets no gap.
pub fn steps(found: &Found, wanted: &State) -> Vec<Step> {
    let mut steps = Vec::new();
    let neighbours: BTreeMap<_, _> = found.neighbours.iter().copied().collect();
    for (at, mac) in &wanted.neighbours {
        if neighbours.get(at) != Some(mac) {
            steps.push(Step::PutNeighbour(*at, *mac));
        }
    }
    // The kernel has several nodes for one hardware address only when that is one of many hosts, and none of these is wanted.
    let forwards: BTreeMap<_, _> = found.forwards.iter().copied().collect();
    for (mac, to) in &wanted.forwards {
        if forwards.get(mac) != Some(to) {
            steps.push(Step::PutForward(*mac, *to));
        }
    }
    let mut routes: BTreeMap<Ipv4Net, Vec<Route>> = BTreeMap::new();
    for (to, route) in &found.routes {
        routes.entry(*to).or_default().push(*route);
    }
    let mut stale = Vec::new();
    for (to, route) in &wanted.routes {
        let mut there = routes.remove(to).unwrap_or_default();
        let same = there.iter().position(|it| it == route);
        let other = there.iter().position(|it| is_of(it) == is_of(route));
        if same.is_none() {
            steps.push(match other {
                Some(_) => Step::ChangeRoute(*to, *route),
                None => Step::AddRoute(*to, *route),
            });
        }
        if let Some(kept) = same.or(other) {
            there.swap_remove(kept);
        }
        stale.extend(there.into_iter().map(|it| (*to, it)));
    }
    let rest = routes.into_iter();
    stale.extend(rest.flat_map(|(to, all)| all.into_iter().map(move |it| (to, it))));
    steps.extend(stale.into_iter().map(|(to, it)| Step::DropRoute(to, it)));
    for (at, mac) in &found.neighbours {
        if !wanted.neighbours.contains_key(at) {
            steps.push(Step::DropNeighbour(*at, *mac));
        }
    }
    for (mac, to) in &found.forwards {
        if !wanted.forwards.contains_key(mac) {
            steps.push(Step::DropForward(*mac, *to));
        }
    }
    steps
}

/// Routes of one group have the same metric, so one takes another's place.
fn is_of(route: &Route) -> bool {
    route.via == Via::Nobody
}

#[cfg(test)]
mod tests;
