//! The kernel's notices of what happens to the pod network and to the machine's own, by netlink, from the network namespace of the thread that
//! opens them.

use std::io;

use bytes::BytesMut;
use rtnetlink::{
    packet_core::{NetlinkBuffer, NlasIterator},
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::{PROTOCOL, plan::DEVICE};
use crate::runtime::{POD_LINKS, POD_ROUTES};

/// Of `linux/rtnetlink.h`: `RTMGRP_LINK`, `RTMGRP_NEIGH`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV4_RULE`.
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80;
const NEW_LINK: u16 = 16;
const DELETED_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETED_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETED_ROUTE: u16 = 25;
const NEW_NEIGHBOUR: u16 = 28;
const DELETED_NEIGHBOUR: u16 = 29;
const NEW_RULE: u16 = 32;
const DELETED_RULE: u16 = 33;
/// `struct ifinfomsg`: family, type, index, flags, changes. Attributes follow.
const LINK_HEADER: usize = 16;
const LINK_NAME: u16 = 3;
const UP: u32 = 1;
/// Of the index in `struct ifinfomsg`, `struct ifaddrmsg` and `struct ndmsg` alike.
const INDEX_AT: usize = 4;
/// Of `rtm_protocol` in `struct rtmsg`.
const PROTOCOL_AT: usize = 5;
/// The families `AF_INET` and `AF_BRIDGE` of `struct ndmsg`.
const NEIGHBOURS: u8 = 2;
const FORWARDS: u8 = 7;
/// The kernel's notices are at most a few pages long.
const LARGEST: usize = 32 << 10;
/// `ENOBUFS`: notices did not fit into the socket's buffer.
const LOST: i32 = nix::libc::ENOBUFS;

/// What may have happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// An interface of a pod, or a route to one, went.
    pub pods: bool,
    /// Somebody removed or changed what leads to other nodes.
    pub wires: bool,
    /// Interfaces, addresses or routes of the machine are others: so may be the ways to other nodes.
    pub ways: bool,
}

/// Watches interfaces, addresses, neighbours, routes and rules of routing.
pub struct Notices {
    socket: TokioSocket,
    buffer: BytesMut,
    ours: Ours,
}

/// What is the agent's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ours {
    /// The connection that makes it: what comes from there is no news.
    pub port: Option<u32>,
    /// The index of [`DEVICE`].
    pub device: Option<u32>,
}

impl Notices {
    /// Opens them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        Ok(Self {
            socket,
            buffer: BytesMut::new(),
            ours: Ours::default(),
        })
    }

    /// From now on this is the agent's own.
    pub fn know(&mut self, ours: Ours) {
        self.ours = ours;
    }

    /// Returns when something has happened that matters, whoever did it.
    ///
    /// # Errors
    /// What the kernel says. These notices are of no use any more.
    pub async fn next(&mut self) -> io::Result<Heard> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(LARGEST);
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => {
                    let heard = heard(&self.buffer, self.ours);
                    if heard != Heard::default() {
                        return Ok(heard);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(LOST) => {
                    return Ok(Heard {
                        pods: true,
                        wires: true,
                        ways: true,
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn heard(mut datagram: &[u8], ours: Ours) -> Heard {
    let mut heard = Heard::default();
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        if ours.port != Some(message.port_number()) {
            take(&mut heard, message.message_type(), message.payload(), ours);
        }
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    heard
}

fn take(heard: &mut Heard, kind: u16, payload: &[u8], ours: Ours) {
    let is_on_device = || index(payload).is_some_and(|index| ours.device == Some(index));
    match kind {
        NEW_ROUTE | DELETED_ROUTE => match payload.get(PROTOCOL_AT) {
            Some(&POD_ROUTES) => heard.pods |= kind == DELETED_ROUTE,
            Some(&PROTOCOL) => heard.wires = true,
            _ => heard.ways = true,
        },
        NEW_LINK | DELETED_LINK if is_named(payload, |it| it.starts_with(POD_LINKS.as_bytes())) => {
            heard.pods |= kind == DELETED_LINK || !is_up(payload);
        }
        NEW_LINK | DELETED_LINK => match is_named(payload, |it| it == DEVICE.as_bytes()) {
            true => heard.wires = true,
            false => heard.ways = true,
        },
        NEW_ADDRESS | DELETED_ADDRESS if is_on_device() => heard.wires = true,
        NEW_NEIGHBOUR | DELETED_NEIGHBOUR if is_on_device() => match payload.first() {
            // The kernel does not say who added a forwarding entry; mostly the agent did.
            Some(&FORWARDS) if kind == NEW_NEIGHBOUR => heard.ways = true,
            Some(&FORWARDS | &NEIGHBOURS) => heard.wires = true,
            // The kernel's own, of other families, come and go.
            _ => {}
        },
        NEW_ADDRESS | DELETED_ADDRESS | NEW_RULE | DELETED_RULE => heard.ways = true,
        _ => {}
    }
}

fn number(payload: &[u8], at: usize) -> Option<u32> {
    let bytes = payload.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn index(payload: &[u8]) -> Option<u32> {
    number(payload, INDEX_AT)
}

fn is_up(link: &[u8]) -> bool {
    number(link, 8).is_some_and(|flags| flags & UP != 0)
}

fn is_named(link: &[u8], is_it: impl Fn(&[u8]) -> bool) -> bool {
    let attributes = link.get(LINK_HEADER..).unwrap_or_default();
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let name = all.find(|attribute| attribute.kind() == LINK_NAME);
    name.is_some_and(|name| is_it(name.value().strip_suffix(b"\0").unwrap_or_default()))
}
