//! What the kernel says of the machine's interfaces, and of the ways to other nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
};

use super::plan::{DEVICE, Way};
use crate::{
    netlink::{Kernel, Verb},
    runtime::POD_LINKS,
};

/// The machine's interfaces.
#[derive(Debug, Default)]
pub struct Links {
    /// As the kernel lists it.
    pub device: Option<LinkMessage>,
    /// IPv4 addresses on it: they and the lengths of their prefixes.
    pub of_device: BTreeSet<(Ipv4Addr, u8)>,
    /// Of the link with the node's address, in bytes.
    pub mtu: Option<u32>,
    /// The agent has wired pods.
    pub has_pods: bool,
    /// By index: the largest packet in bytes, and whether other nodes can be on it.
    others: BTreeMap<u32, (u32, bool)>,
}

impl Links {
    /// Reads them. The node's `address` says which link leads to the other nodes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(kernel: &mut Kernel, address: Option<Ipv4Addr>) -> io::Result<Self> {
        let mut links = Self::default();
        for message in kernel.list(&Message::GetLink(LinkMessage::default()))? {
            let Message::NewLink(link) = message else {
                continue;
            };
            match name(&link) {
                Some(DEVICE) => links.device = Some(link),
                Some(name) if !name.starts_with(POD_LINKS) => {
                    let other = (mtu(&link).unwrap_or(u32::MAX), has_neighbours(&link));
                    links.others.insert(link.header.index, other);
                }
                Some(_) => links.has_pods = true,
                None => {}
            }
        }
        let mut all = AddressMessage::default();
        all.header.family = AddressFamily::Inet;
        let device = links.device.as_ref().map(|link| link.header.index);
        for message in kernel.list(&Message::GetAddress(all))? {
            let Message::NewAddress(found) = message else {
                continue;
            };
            let mut attributes = found.attributes.iter();
            let local = attributes.find_map(|it| match it {
                AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
                _ => None,
            });
            let Some(local) = local else { continue };
            if Some(found.header.index) == device {
                links.of_device.insert((local, found.header.prefix_len));
            } else if Some(local) == address {
                let link = links.others.get(&found.header.index);
                links.mtu = link.map(|(mtu, _)| *mtu);
            }
        }
        Ok(links)
    }

    /// Asks the kernel for the ways to these addresses.
    ///
    /// # Errors
    /// What the kernel says of the connection.
    pub fn ways(
        &self,
        kernel: &mut Kernel,
        to: Vec<Ipv4Addr>,
    ) -> io::Result<BTreeMap<Ipv4Addr, Way>> {
        let questions = to.iter().map(|to| (Verb::Do, question(*to))).collect();
        let answers = kernel.order(questions)?;
        let ways = to.into_iter().zip(answers).map(|(to, answer)| {
            let way = match answer {
                Ok(Some(Message::NewRoute(route))) => self.way(&route),
                // Without a route now: there may be one when packets go.
                _ => Way {
                    is_on_link: false,
                    mtu: None,
                    is_narrow: false,
                },
            };
            (to, way)
        });
        Ok(ways.collect())
    }

    fn way(&self, route: &RouteMessage) -> Way {
        let (mut interface, mut limit, mut has_gateway) = (None, None, false);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = self.others.get(index),
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => has_gateway = true,
                RouteAttribute::Metrics(metrics) => {
                    let mut metrics = metrics.iter();
                    limit = metrics.find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let of_link = interface.map(|(mtu, _)| *mtu);
        let has_neighbours = interface.is_some_and(|(_, has_neighbours)| *has_neighbours);
        let limit = limit.filter(|limit| of_link.is_none_or(|mtu| *limit < mtu));
        Way {
            is_on_link: route.header.kind == RouteType::Unicast && !has_gateway && has_neighbours,
            mtu: limit.or(of_link),
            is_narrow: limit.is_some(),
        }
    }
}

fn question(to: Ipv4Addr) -> Message {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    question.header.destination_prefix_length = 32;
    let to = RouteAttribute::Destination(RouteAddress::Inet(to));
    question.attributes.push(to);
    Message::GetRoute(question)
}

/// Whether hosts on it are found by ARP. A tunnel to single hosts, such as WireGuard's, takes no pods' addresses.
fn has_neighbours(link: &LinkMessage) -> bool {
    let flags = link.header.flags;
    link.header.link_layer_type == LinkLayerType::Ether
        && !flags.intersects(LinkFlags::Noarp | LinkFlags::Pointopoint)
}

/// The name of an interface.
pub fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|it| match it {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The largest packet of an interface, in bytes.
pub fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|it| match it {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}
