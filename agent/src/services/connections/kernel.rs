//! What the kernel remembers of connections, by netlink, in the network namespace of the calling thread. All of it blocks.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use bytes::BytesMut;
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::{TimeVal, TimeValLike},
};
use rtnetlink::{
    packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator},
    sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER},
};

use super::Connection;

/// `NFNL_SUBSYS_CTNETLINK` of `linux/netfilter/nfnetlink.h`, in the upper half of a message's type; the lower one is of `enum cntl_msg_types`.
const CONNECTIONS: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `struct nfgenmsg`: family, version, resource. Attributes follow.
const HEADER: usize = 4;
const AF_INET: u8 = 2;
/// Flags of a message: a request, one that is acknowledged, one for all there are.
const REQUEST: u16 = 1;
const ACKNOWLEDGED: u16 = 4;
const DUMP: u16 = 0x300;
/// Types of messages that end an answer.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `enum ctattr_type`, `ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto` of `linux/netfilter/nfnetlink_conntrack.h`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const IP: u16 = 1;
const PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// An attribute that holds others.
const NESTED: u16 = 0x8000;

/// The kernel's answers come in pieces of this size at most.
const LARGEST: usize = 32 << 10;
/// For the next piece.
const PATIENCE: i64 = 5;
/// Connections dropped at a time.
pub const MOST: usize = 16 << 10;

/// Drops the UDP connections over IPv4 of which `is_stale` says so, [`MOST`] at most; answers how many.
///
/// # Errors
/// What the kernel says.
pub fn forget(mut is_stale: impl FnMut(Connection) -> bool) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    let mut stale = Vec::new();
    ask(&socket, GET, REQUEST | DUMP, &[], |attributes| {
        if let Some((connection, original)) = parse(attributes)
            && stale.len() < MOST
            && is_stale(connection)
        {
            stale.push(original);
        }
    })?;
    for original in &stale {
        let length = u16::try_from(original.len() + 4).unwrap_or(u16::MAX);
        let mut attribute = length.to_ne_bytes().to_vec();
        attribute.extend((ORIGINAL | NESTED).to_ne_bytes());
        attribute.extend(original);
        match ask(&socket, DELETE, REQUEST | ACKNOWLEDGED, &attribute, |_| {}) {
            // It has gone meanwhile.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
            dropped => dropped?,
        }
    }
    Ok(stale.len())
}

/// Asks, and hands each message of the answer to `take`.
fn ask(
    socket: &Socket,
    kind: u16,
    flags: u16,
    attributes: &[u8],
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut question = vec![0; 16 + HEADER];
    question[16] = AF_INET;
    question.extend(attributes);
    let length = u32::try_from(question.len()).unwrap_or(u32::MAX);
    let mut message = NetlinkBuffer::new(&mut question[..]);
    message.set_length(length);
    message.set_message_type(CONNECTIONS | kind);
    message.set_flags(flags);
    socket.send(&question, 0)?;
    let mut buffer = BytesMut::new();
    loop {
        buffer.clear();
        buffer.reserve(LARGEST);
        socket.recv(&mut buffer, 0)?;
        let mut rest = &buffer[..];
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            let payload = message.payload();
            match message.message_type() {
                DONE => return Ok(()),
                ERROR => {
                    let code = payload
                        .first_chunk()
                        .map_or(0, |it| i32::from_ne_bytes(*it));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                    };
                }
                _ => take(payload.get(HEADER..).unwrap_or_default()),
            }
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// A connection of UDP, and the attribute that names it.
fn parse(attributes: &[u8]) -> Option<(Connection, Vec<u8>)> {
    let original = attribute(attributes, ORIGINAL)?;
    let (to, _) = ends(original)?;
    let (_, by) = ends(attribute(attributes, REPLY)?)?;
    Some((Connection { to, by }, original.to_vec()))
}

/// Destination and source of packets of UDP.
fn ends(tuple: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (ip, protocol) = (attribute(tuple, IP)?, attribute(tuple, PROTOCOL)?);
    if attribute(protocol, NUMBER)? != [UDP] {
        return None;
    }
    let end = |address, port| {
        let address: [u8; 4] = attribute(ip, address)?.try_into().ok()?;
        let port: [u8; 2] = attribute(protocol, port)?.try_into().ok()?;
        Some(SocketAddrV4::new(
            Ipv4Addr::from(address),
            u16::from_be_bytes(port),
        ))
    };
    Some((
        end(IP_DESTINATION, DESTINATION_PORT)?,
        end(IP_SOURCE, SOURCE_PORT)?,
    ))
}

fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let found: NlaBuffer<&[u8]> = all.find(|it| it.kind() == kind)?;
    let end = 4 + found.value_length();
    found.into_inner().get(4..end)
}
