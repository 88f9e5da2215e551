//! Brings what leads to other nodes in line with an assignment. Blocks: the kernel may hold up whoever changes its network.

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use nix::errno::Errno;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        AddressFamily, RouteNetlinkMessage as Message,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
            RouteType,
        },
    },
};

use super::{
    PROTOCOL,
    device::{self, DeviceError},
    plan::{
        DEVICE, Found, Mac, Mode, Route, Setting, Sight, State, Step, Via, peers, steps, twin,
        wanted,
    },
    ways::Links,
};
use crate::{
    desired::Desired,
    netlink::{Kernel, Verb},
};

/// The loopback link has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// Of routes to nobody: all others are preferred.
const LAST: u32 = u32::MAX;

/// What leads to other nodes, in the network namespace of the thread that brings it first.
#[derive(Debug)]
pub struct Wires {
    setting: Setting,
    kernel: Option<Kernel>,
    /// The machine when it was looked at last.
    links: Links,
    sight: Sight,
    /// What the kernel has had since then; `None` when that is not known.
    known: Option<State>,
    index: Option<u32>,
    /// Plugins of the user's own wire new pods, and lead to other nodes' pods.
    yields: bool,
    /// Nothing guards [`DEVICE`] yet.
    waits: bool,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first route that could not be set; empty when all went well.
    pub failure: String,
    /// The same of [`DEVICE`] and its neighbours.
    pub device_failure: String,
    /// What was there before and had to be set again.
    pub restored: Vec<String>,
}

impl Wires {
    /// Nothing happens until it is brought.
    pub fn new(setting: Setting) -> Self {
        Self {
            setting,
            kernel: None,
            links: Links::default(),
            sight: Sight::default(),
            known: None,
            index: None,
            yields: false,
            waits: false,
        }
    }

    /// Whether plugins of the user's own wire new pods. Then what leads to other nodes' pods goes with the last pod that the agent wired: two
    /// programs that set the same routes would fight.
    pub fn yields(&mut self, yields: bool) {
        self.yields = yields;
    }

    /// Whether the rules that guard [`DEVICE`] are still to be written. Until then it is not opened; one that is open stays, and direct routes wait
    /// for nothing.
    pub fn waits(&mut self, waits: bool) {
        self.waits = waits;
    }

    /// Where notices of what this does say they come from.
    pub fn port(&self) -> Option<u32> {
        self.kernel.as_ref().map(Kernel::port)
    }

    /// The index of [`DEVICE`].
    pub fn index(&self) -> Option<u32> {
        self.index
    }

    /// Sets what is missing, and removes what is the agent's and not wanted. One thing that fails does not keep the others. Unless it `looks`, what was
    /// there after the last time is taken to be there, and only what the assignment changed costs anything.
    pub fn bring(&mut self, desired: &Desired, looks: bool) -> Outcome {
        match self.try_to_bring(desired, looks || self.known.is_none()) {
            Ok(outcome) => outcome,
            Err(error) => {
                (self.kernel, self.known) = (None, None);
                let failure = format!("the kernel does not say what leads to other nodes: {error}");
                Outcome {
                    failure,
                    ..Outcome::default()
                }
            }
        }
    }

    fn try_to_bring(&mut self, desired: &Desired, looks: bool) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open()?,
        };
        if looks {
            self.links = Links::read(&mut kernel, self.setting.address)?;
            self.sight = Sight {
                mtu: self.links.mtu,
                ..Sight::default()
            };
        }
        self.look_at_ways(&mut kernel, desired)?;
        let mut wanted = wanted(desired, self.setting, &self.sight);
        if self.yields && !self.links.has_pods {
            wanted = wanted.without_nodes();
        }
        let before = self.known.take();
        let had_device = before.as_ref().and_then(|known| known.device.clone());
        let mut is_new = false;
        if looks || had_device != wanted.device {
            if !looks {
                self.links = Links::read(&mut kernel, self.setting.address)?;
            }
            if self.waits && wanted.device.is_some() && !device::is_open(&self.links) {
                wanted = wanted.without_device();
                self.index = None;
            } else {
                match device::bring(&mut kernel, &self.links, wanted.device.as_ref()) {
                    Ok(None) => self.index = None,
                    Ok(Some(brought)) => {
                        self.index = Some(brought.index);
                        is_new = brought.is_new;
                        if brought.is_mended && had_device == wanted.device {
                            outcome.restored.push(format!("the interface {DEVICE}"));
                        }
                        outcome.device_failure = brought.failure.unwrap_or_default();
                    }
                    Err(DeviceError::Connection(error)) => return Err(error),
                    Err(DeviceError::Refused(why)) => {
                        self.index = None;
                        outcome.device_failure = why;
                        wanted = wanted.without_device();
                    }
                }
            }
        }
        let (found, unread) = match &before {
            Some(known) if !looks && !is_new => (Found::from(known), Vec::new()),
            _ => self.read(&mut kernel)?,
        };
        let steps = steps(&found, &wanted);
        let mut orders: Vec<_> = unread
            .into_iter()
            .map(|route| (Verb::Do, Message::DelRoute(route)))
            .collect();
        let first = orders.len();
        orders.extend(steps.iter().map(|step| self.message(step)));
        let answers = kernel.order(orders)?;
        for (step, answer) in steps.iter().zip(answers.into_iter().skip(first)) {
            let failed = answer.err().filter(|errno| !is_done(step, *errno));
            if let Some(errno) = failed {
                forget(&mut wanted, step);
                let (text, failure) = match step {
                    Step::AddRoute(to, route) | Step::ChangeRoute(to, route) => {
                        (refused(to, route, errno), &mut outcome.failure)
                    }
                    _ => {
                        let why = errno.desc();
                        let text = format!("cannot do {step:?} on the interface {DEVICE}: {why}");
                        (text, &mut outcome.device_failure)
                    }
                };
                if failure.is_empty() {
                    *failure = text;
                }
            } else if let Some(what) = before.as_ref().and_then(|known| had(known, step)) {
                outcome.restored.push(what);
            }
        }
        if outcome.failure.is_empty() && !self.yields {
            outcome.failure = twin(desired, self.setting.address).unwrap_or_default();
        }
        if !outcome.device_failure.is_empty() {
            // What could not be mended is tried, and told, each time.
            wanted.device = None;
        }
        self.known = Some(wanted);
        self.kernel = Some(kernel);
        Ok(outcome)
    }

    /// Learns the ways to nodes that are new.
    fn look_at_ways(&mut self, kernel: &mut Kernel, desired: &Desired) -> io::Result<()> {
        if self.setting.mode == Mode::Direct {
            return Ok(());
        }
        let peers = peers(desired, self.setting.address);
        let peers: BTreeSet<Ipv4Addr> = peers.into_values().collect();
        let ways = &mut self.sight.ways;
        ways.retain(|address, _| peers.contains(address));
        let new = peers.into_iter().filter(|it| !ways.contains_key(it));
        let found = self.links.ways(kernel, new.collect())?;
        ways.extend(found);
        Ok(())
    }

    /// What the kernel has, and routes of the agent that this program does not know how to read.
    fn read(&self, kernel: &mut Kernel) -> io::Result<(Found, Vec<RouteMessage>)> {
        let (mut found, mut unread) = (Found::default(), Vec::new());
        let mut ours = RouteMessage::default();
        ours.header.address_family = AddressFamily::Inet;
        ours.header.protocol = RouteProtocol::Other(PROTOCOL);
        for message in kernel.list(&Message::GetRoute(ours))? {
            let Message::NewRoute(route) = message else {
                continue;
            };
            let header = &route.header;
            if header.protocol != RouteProtocol::Other(PROTOCOL)
                || header.address_family != AddressFamily::Inet
            {
                continue;
            }
            match self.parse(&route) {
                Some(route) => found.routes.push(route),
                None => unread.push(route),
            }
        }
        let Some(index) = self.index else {
            return Ok((found, unread));
        };
        for family in [AddressFamily::Inet, AddressFamily::Bridge] {
            let mut all = NeighbourMessage::default();
            all.header.family = family;
            match family {
                // A list of forwarding entries has the interface in its header.
                AddressFamily::Bridge => all.header.ifindex = index,
                _ => all.attributes.push(NeighbourAttribute::IfIndex(index)),
            }
            for message in kernel.list(&Message::GetNeighbour(all))? {
                if let Message::NewNeighbour(neighbour) = message
                    && neighbour.header.ifindex == index
                    && neighbour.header.family == family
                {
                    take(&mut found, &neighbour);
                }
            }
        }
        Ok((found, unread))
    }

    fn parse(&self, message: &RouteMessage) -> Option<(Ipv4Net, Route)> {
        let (mut to, mut gateway, mut interface, mut mtu, mut metric) =
            (None, None, None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                    to = Ipv4Net::new(*address, message.header.destination_prefix_length).ok();
                }
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Priority(priority) => metric = Some(*priority),
                RouteAttribute::Metrics(metrics) => {
                    let mut metrics = metrics.iter();
                    mtu = metrics.find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let to = to?;
        let via = match (message.header.kind, gateway) {
            (RouteType::Unreachable, _) => Via::Nobody,
            (_, Some(gateway)) if interface == self.index && gateway == to.network() => Via::Vxlan,
            (_, Some(gateway)) => Via::Gateway(gateway),
            _ if interface == Some(LOOPBACK) => Via::Loopback,
            _ => return None,
        };
        let is_usual = match via {
            Via::Nobody => metric == Some(LAST),
            _ => metric.is_none(),
        };
        is_usual.then_some((to, Route { via, mtu }))
    }

    fn message(&self, step: &Step) -> (Verb, Message) {
        let index = self.index.unwrap_or_default();
        match step {
            Step::AddRoute(to, route) => (Verb::Add, Message::NewRoute(message(*to, route, index))),
            Step::ChangeRoute(to, route) => {
                (Verb::Put, Message::NewRoute(message(*to, route, index)))
            }
            Step::DropRoute(to, route) => {
                let route = Route {
                    mtu: None,
                    ..*route
                };
                (Verb::Do, Message::DelRoute(message(*to, &route, index)))
            }
            Step::PutNeighbour(at, mac) => (
                Verb::Put,
                Message::NewNeighbour(neighbour(index, *at, *mac)),
            ),
            Step::DropNeighbour(at, mac) => {
                (Verb::Do, Message::DelNeighbour(neighbour(index, *at, *mac)))
            }
            Step::PutForward(mac, to) => {
                (Verb::Put, Message::NewNeighbour(forward(index, *mac, *to)))
            }
            Step::DropForward(mac, to) => {
                (Verb::Do, Message::DelNeighbour(forward(index, *mac, *to)))
            }
        }
    }
}

/// Whether what the kernel refuses is done already.
fn is_done(step: &Step, errno: Errno) -> bool {
    match step {
        Step::DropRoute(..) => matches!(errno, Errno::ESRCH | Errno::ENODEV),
        Step::DropNeighbour(..) | Step::DropForward(..) => {
            matches!(
                errno,
                Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::ENXIO
            )
        }
        _ => false,
    }
}

/// What a step made again, when it was there before.
fn had(before: &State, step: &Step) -> Option<String> {
    match step {
        Step::AddRoute(to, route) | Step::ChangeRoute(to, route) => {
            let is_same = before.routes.get(to) == Some(route);
            is_same.then(|| format!("the route to {to}"))
        }
        Step::PutNeighbour(at, mac) => {
            let is_same = before.neighbours.get(at) == Some(mac);
            is_same.then(|| format!("the neighbour {at} on {DEVICE}"))
        }
        Step::PutForward(mac, to) => {
            let is_same = before.forwards.get(mac) == Some(to);
            is_same.then(|| format!("the forwarding entry to {to} on {DEVICE}"))
        }
        _ => None,
    }
}

/// A step failed: what it was to make is not there.
fn forget(state: &mut State, step: &Step) {
    match step {
        Step::AddRoute(to, _) | Step::ChangeRoute(to, _) => {
            state.routes.remove(to);
        }
        Step::PutNeighbour(at, _) => {
            state.neighbours.remove(at);
        }
        Step::PutForward(mac, _) => {
            state.forwards.remove(mac);
        }
        _ => {}
    }
}

fn refused(to: &Ipv4Net, route: &Route, errno: Errno) -> String {
    let through = match route.via {
        Via::Gateway(address) => format!(" through {address}"),
        Via::Vxlan => format!(" through {DEVICE}"),
        Via::Loopback | Via::Nobody => String::new(),
    };
    let way_out = match (errno, route.via) {
        (Errno::EEXIST, _) => {
            format!(": another program has a route there (ip route show {to}): remove that one")
        }
        (Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL, Via::Gateway(_)) => {
            " (is that node on the same link as this one? --pod-network auto takes VXLAN where it is not)".to_owned()
        }
        _ => String::new(),
    };
    let why = errno.desc();
    format!("cannot set the route to {to}{through}: {why}{way_out}")
}

fn message(to: Ipv4Net, route: &Route, device: u32) -> RouteMessage {
    let builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .protocol(RouteProtocol::Other(PROTOCOL))
        .destination_prefix(to.network(), to.prefix_len());
    let mut message = match route.via {
        Via::Gateway(address) => builder.gateway(address).build(),
        Via::Vxlan => builder
            .gateway(to.network())
            .output_interface(device)
            .onlink()
            .build(),
        Via::Loopback => builder
            .output_interface(LOOPBACK)
            .scope(RouteScope::Link)
            .build(),
        Via::Nobody => builder.kind(RouteType::Unreachable).priority(LAST).build(),
    };
    let metrics = route.mtu.map(|mtu| vec![RouteMetric::Mtu(mtu)]);
    message
        .attributes
        .extend(metrics.map(RouteAttribute::Metrics));
    message
}

fn neighbour(device: u32, at: Ipv4Addr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(at)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

fn forward(device: u32, mac: Mac, to: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = rtnetlink::packet_route::neighbour::NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet(to)),
    ];
    message
}

fn take(found: &mut Found, neighbour: &NeighbourMessage) {
    let (mut address, mut mac) = (None, None);
    for attribute in &neighbour.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => address = Some(*it),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                let bytes: Option<[u8; 4]> = bytes.as_slice().try_into().ok();
                address = bytes.map(Ipv4Addr::from);
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let (Some(address), Some(mac)) = (address, mac) else {
        return;
    };
    match neighbour.header.family {
        AddressFamily::Bridge => found.forwards.push((mac, address)),
        _ if neighbour.header.state == NeighbourState::Permanent => {
            found.neighbours.push((address, mac));
        }
        _ => {}
    }
}
