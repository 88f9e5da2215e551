//! The interface [`DEVICE`]: read, made, mended, removed. Blocks.

use std::{collections::BTreeSet, fs, io, net::Ipv4Addr};

use nix::errno::Errno;
use rtnetlink::{
    AddressMessageBuilder, LinkUnspec, LinkVxlan,
    packet_route::{
        RouteNetlinkMessage as Message,
        link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    },
};

use super::{
    plan::{DEVICE, Device, PORT, VNI},
    ways::{self, Links},
};
use crate::netlink::{Kernel, Verb};

/// Its switch for the check of sources. 2: a packet is taken when there is any route to its source. The kernel takes the larger of this and that of
/// all interfaces, and 1 would refuse what comes this way from a node to which this one has a direct route.
const SOURCES: &str = "/proc/sys/net/ipv4/conf/barge-vx/rp_filter";
/// Its switch for IPv6, of which pods have no addresses: an advertisement that comes over it would change the machine's routes.
const NO_IPV6: &str = "/proc/sys/net/ipv6/conf/barge-vx/disable_ipv6";

/// Why it is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel refuses it.
    #[error("{0}")]
    Refused(String),
    /// The connection to the kernel is of no use any more.
    #[error("{0}")]
    Connection(#[from] io::Error),
}

/// What was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// Its index.
    pub index: u32,
    /// It was made, or made again: nothing leads over it.
    pub is_new: bool,
    /// It was not as it should be.
    pub is_mended: bool,
    /// What of it could not be mended, though it carries packets.
    pub failure: Option<String>,
}

/// Makes the interface as it should be. Without one that is wanted an interface of the agent goes. One that is open stays in use, whatever of it
/// cannot be mended.
///
/// # Errors
/// Says what to do.
pub fn bring(
    kernel: &mut Kernel,
    links: &Links,
    wanted: Option<&Device>,
) -> Result<Option<Brought>, DeviceError> {
    let found = links.device.as_ref().map(|link| (link, read(link)));
    let Some(wanted) = wanted else {
        if let Some((link, Some(found))) = &found
            && is_same_network(found)
        {
            let gone = Message::DelLink(by_index(link.header.index));
            gone_or(kernel.one(Verb::Do, gone)?, "remove it")?;
        }
        return Ok(None);
    };
    match found {
        Some((_, None)) => {
            let kind = links.device.as_ref().map_or(String::new(), kind);
            Err(DeviceError::Refused(format!(
                "there is an interface {DEVICE} that is no VXLAN interface{kind}, so pods of nodes that share no link with this one are not reached: \
                 give it another name, or remove it (ip link del {DEVICE})"
            )))
        }
        Some((link, Some(found))) if is_same_network(&found) => {
            let found = Device {
                addresses: links.of_device.iter().map(|(it, _)| *it).collect(),
                ..found
            };
            let index = link.header.index;
            match mend(kernel, index, &found, wanted, &links.of_device) {
                Err(DeviceError::Refused(why)) if found.is_up => Ok(Some(Brought {
                    index,
                    is_new: false,
                    is_mended: false,
                    failure: Some(why),
                })),
                mended => mended.map(Some),
            }
        }
        Some((link, Some(_))) => {
            let gone = Message::DelLink(by_index(link.header.index));
            gone_or(kernel.one(Verb::Do, gone)?, "remove one of another network")?;
            make(kernel, wanted).map(Some)
        }
        None => make(kernel, wanted).map(Some),
    }
}

/// Whether the agents' packets are taken already.
pub fn is_open(links: &Links) -> bool {
    let found = links.device.as_ref().and_then(read);
    found.is_some_and(|found| found.is_up && is_same_network(&found))
}

/// Whether its packets are the agents'.
fn is_same_network(found: &Device) -> bool {
    (found.vni, found.port) == (VNI, PORT)
}

fn make(kernel: &mut Kernel, wanted: &Device) -> Result<Brought, DeviceError> {
    let mut new = LinkVxlan::new(DEVICE, wanted.vni)
        .port(wanted.port)
        .learning(wanted.learns)
        // What is inside has checksums of its own.
        .udp_csum(false);
    if let Some(local) = wanted.local {
        new = new.local(local);
    }
    let new = new.address(wanted.mac.to_vec()).mtu(wanted.mtu);
    allowed(
        kernel.one(Verb::Add, Message::NewLink(new.build()))?,
        "make it",
    )?;
    let named = LinkUnspec::new_with_name(DEVICE).build();
    let Ok(Some(Message::NewLink(link))) = kernel.one(Verb::Do, Message::GetLink(named))? else {
        return Err(DeviceError::Refused(format!(
            "the interface {DEVICE} was removed as soon as it was made"
        )));
    };
    let index = link.header.index;
    set(NO_IPV6, "1");
    set(SOURCES, "2");
    let up = LinkUnspec::new_with_index(index).up().build();
    allowed(kernel.one(Verb::Do, Message::NewLink(up))?, "set it up")?;
    address(kernel, index, &BTreeSet::new(), wanted)?;
    Ok(Brought {
        index,
        is_new: true,
        is_mended: true,
        failure: None,
    })
}

fn mend(
    kernel: &mut Kernel,
    index: u32,
    found: &Device,
    wanted: &Device,
    addresses: &BTreeSet<(Ipv4Addr, u8)>,
) -> Result<Brought, DeviceError> {
    set(NO_IPV6, "1");
    set(SOURCES, "2");
    let is_same = Device {
        addresses: wanted.addresses.clone(),
        ..found.clone()
    } == *wanted;
    if !is_same {
        change(kernel, index, found, wanted)?;
    }
    let is_moved = address(kernel, index, addresses, wanted)?;
    Ok(Brought {
        index,
        is_new: false,
        is_mended: !is_same || is_moved,
        failure: None,
    })
}

fn change(
    kernel: &mut Kernel,
    index: u32,
    found: &Device,
    wanted: &Device,
) -> Result<(), DeviceError> {
    if found.local != wanted.local || found.learns != wanted.learns {
        let mut data = vec![InfoVxlan::Learning(wanted.learns)];
        data.extend(wanted.local.map(InfoVxlan::Local));
        let mut change = by_index(index);
        change.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(data)),
        ]));
        allowed(kernel.one(Verb::Do, Message::NewLink(change))?, "change it")?;
    }
    let change = LinkUnspec::new_with_index(index)
        .address(wanted.mac.to_vec())
        .mtu(wanted.mtu)
        .up();
    allowed(
        kernel.one(Verb::Do, Message::NewLink(change.build()))?,
        "set its hardware address and its MTU, and set it up",
    )
}

/// Sees to its addresses, and tells whether they were others.
fn address(
    kernel: &mut Kernel,
    index: u32,
    found: &BTreeSet<(Ipv4Addr, u8)>,
    wanted: &Device,
) -> Result<bool, DeviceError> {
    let wanted: BTreeSet<_> = wanted.addresses.iter().map(|it| (*it, 32)).collect();
    let message = |(address, prefix): &(Ipv4Addr, u8)| {
        AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(*address, *prefix)
            .build()
    };
    // With its last address an interface would lose all its routes.
    for missing in wanted.difference(found) {
        let missing = Message::NewAddress(message(missing));
        allowed(kernel.one(Verb::Put, missing)?, "give it its address")?;
    }
    for stale in found.difference(&wanted) {
        let stale = Message::DelAddress(message(stale));
        gone_or(kernel.one(Verb::Do, stale)?, "remove an address of it")?;
    }
    Ok(*found != wanted)
}

/// Without the file the kernel has no such thing; the rules hold in any case.
fn set(path: &str, value: &str) {
    let set = fs::read_to_string(path).and_then(|found| match found.trim() == value {
        true => Ok(()),
        false => fs::write(path, value),
    });
    if let Err(error) = set {
        tracing::debug!(%error, path, "cannot set a switch of the interface");
    }
}

fn by_index(index: u32) -> LinkMessage {
    LinkUnspec::new_with_index(index).build()
}

/// What the interface is; `None` when it is none of VXLAN. Without its addresses.
fn read(link: &LinkMessage) -> Option<Device> {
    let mut device = Device {
        vni: 0,
        port: 0,
        learns: false,
        local: None,
        mac: [0; 6],
        mtu: ways::mtu(link).unwrap_or_default(),
        is_up: link.header.flags.contains(LinkFlags::Up),
        addresses: BTreeSet::new(),
    };
    let mut is_vxlan = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(mac) => {
                device.mac = mac.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => is_vxlan = *kind == InfoKind::Vxlan,
                        LinkInfo::Data(InfoData::Vxlan(all)) => {
                            all.iter().for_each(|it| take(&mut device, it));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    is_vxlan.then_some(device)
}

fn take(device: &mut Device, info: &InfoVxlan) {
    match info {
        InfoVxlan::Id(vni) => device.vni = *vni,
        InfoVxlan::Port(port) => device.port = *port,
        InfoVxlan::Learning(learns) => device.learns = *learns,
        InfoVxlan::Local(local) => device.local = Some(*local),
        _ => {}
    }
}

fn kind(link: &LinkMessage) -> String {
    let infos = link.attributes.iter().find_map(|it| match it {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let mut infos = infos.into_iter().flatten();
    let kind = infos.find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(format!(" (its kind is {kind})")),
        _ => None,
    });
    kind.unwrap_or_default()
}

/// As [`allowed`], of what is to go: somebody else may have removed it.
fn gone_or(answer: crate::netlink::Answer, what: &str) -> Result<(), DeviceError> {
    match answer {
        Err(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(()),
        answer => allowed(answer, what),
    }
}

fn allowed(answer: crate::netlink::Answer, what: &str) -> Result<(), DeviceError> {
    let Err(errno) = answer else { return Ok(()) };
    let way_out = match errno {
        Errno::EOPNOTSUPP => {
            ". The kernel has no VXLAN: install its module vxlan, or choose --pod-network direct where all nodes share a link"
        }
        Errno::EADDRINUSE => {
            ". Somebody else has its UDP port (ss -ulpn): stop that, or choose --pod-network direct where all nodes share a link"
        }
        Errno::EEXIST => {
            ". Another VXLAN interface has its number and port (ip -d link show type vxlan): remove that one"
        }
        _ => "",
    };
    let reason = errno.desc();
    Err(DeviceError::Refused(format!(
        "cannot {what}: the interface {DEVICE} (VXLAN {VNI}, UDP port {PORT}), over which pods of nodes that share no link with this one are reached: {reason}{way_out}"
    )))
}
