//! The kernel's notices that something of the pod network went, by netlink, from the network namespace of the thread that opens them.

use std::io;

use bytes::BytesMut;
use rtnetlink::{
    packet_core::{NetlinkBuffer, NlasIterator},
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::PROTOCOL;
use crate::runtime::{POD_LINKS, POD_ROUTES};

/// `RTMGRP_LINK` and `RTMGRP_IPV4_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x40;
const NEW_LINK: u16 = 16;
const DELETED_LINK: u16 = 17;
const DELETED_ROUTE: u16 = 25;
/// `struct ifinfomsg`: family, type, index, flags, changes. Attributes follow.
const LINK_HEADER: usize = 16;
const LINK_NAME: u16 = 3;
const UP: u32 = 1;
/// Of `rtm_protocol` in `struct rtmsg`.
const PROTOCOL_AT: usize = 5;
/// The kernel's notices are at most a few pages long.
const LARGEST: usize = 32 << 10;
/// `ENOBUFS`: notices did not fit into the socket's buffer.
const LOST: i32 = nix::libc::ENOBUFS;

/// Watches interfaces and routes.
pub struct Notices {
    socket: TokioSocket,
    buffer: BytesMut,
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
        })
    }

    /// Returns when an interface of a pod or a route of the agent may have gone, whoever removed it.
    ///
    /// # Errors
    /// What the kernel says. These notices are of no use any more.
    pub async fn removed(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(LARGEST);
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) if !tells_of_removal(&self.buffer) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() != Some(LOST) => return Err(error),
                _ => return Ok(()),
            }
        }
    }
}

fn tells_of_removal(mut datagram: &[u8]) -> bool {
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        if is_removal(message.message_type(), message.payload()) {
            return true;
        }
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    false
}

fn is_removal(kind: u16, payload: &[u8]) -> bool {
    match kind {
        DELETED_ROUTE => {
            let protocol = payload.get(PROTOCOL_AT);
            protocol.is_some_and(|protocol| [PROTOCOL, POD_ROUTES].contains(protocol))
        }
        DELETED_LINK => is_pods(payload),
        NEW_LINK => is_pods(payload) && !is_up(payload),
        _ => false,
    }
}

fn is_up(link: &[u8]) -> bool {
    let flags = link.get(8..12).and_then(|flags| flags.try_into().ok());
    flags.is_some_and(|flags| u32::from_ne_bytes(flags) & UP != 0)
}

/// Whether an interface leads to a pod.
fn is_pods(link: &[u8]) -> bool {
    let attributes = link.get(LINK_HEADER..).unwrap_or_default();
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let name = all.find(|attribute| attribute.kind() == LINK_NAME);
    name.is_some_and(|name| name.value().starts_with(POD_LINKS.as_bytes()))
}
