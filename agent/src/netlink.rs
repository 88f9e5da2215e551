//! Questions and orders to the kernel about interfaces, addresses, neighbours and routes, by netlink: many in one system call, each with its
//! answer. Everything here blocks.

use std::io;

use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::TimeVal,
    },
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE,
        NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage as Message,
    sys::{Socket, protocols::NETLINK_ROUTE},
};

/// Orders in one system call. Their answers fit into the socket's buffer as the kernel makes it.
const AT_A_TIME: usize = 64;
/// The kernel answers at once, unless its lock for networks is held for long.
const PATIENCE: TimeVal = TimeVal::new(30, 0);
/// Times that a list is asked for which changes while it is read.
const TRIES: usize = 10;

/// What is to be done with a message, as flags of netlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Answer it, or do what its type says.
    Do,
    /// Add what must not be there yet.
    Add,
    /// Add it, in the place of what is there.
    Put,
}

/// A connection to the kernel, for the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
    port: u32,
    sequence: u32,
}

/// What became of an order: what the kernel says, or why it refused.
pub type Answer = Result<Option<Message>, Errno>;

impl Kernel {
    /// Opens it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let port = socket.bind_auto()?.port_number();
        setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
        // An older kernel lists more than it is asked for, and repeats more of what it refuses.
        let _ = socket.set_netlink_get_strict_chk(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            socket,
            port,
            sequence: 0,
        })
    }

    /// What notices of changes made over this connection name as their origin.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Lists what a message describes.
    ///
    /// # Errors
    /// What the kernel says, or that the list changed whenever it was read: what is missing in it may be there. The connection is of no use any
    /// more.
    pub fn list(&mut self, message: &Message) -> io::Result<Vec<Message>> {
        for _ in 0..TRIES {
            let mut found = Vec::new();
            let mut bytes = Vec::new();
            let number = self.write(&mut bytes, message.clone(), NLM_F_REQUEST | NLM_F_DUMP);
            self.socket.send(&bytes, 0)?;
            let (mut is_done, mut is_torn) = (false, false);
            while !is_done {
                self.receive(|header, payload| {
                    if header.sequence_number != number {
                        return Ok(());
                    }
                    is_torn |= header.flags & NLM_F_DUMP_INTR != 0;
                    match payload {
                        NetlinkPayload::Done(done) if done.code < 0 => {
                            return Err(Errno::from_raw(-done.code).into());
                        }
                        NetlinkPayload::Done(_) => is_done = true,
                        NetlinkPayload::Error(error) => return Err(error.to_io()),
                        NetlinkPayload::InnerMessage(message) => found.push(message),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            if !is_torn {
                return Ok(found);
            }
        }
        Err(io::Error::other(
            "its list changed each time that it was read",
        ))
    }

    /// Has the kernel do these, in their order, whatever becomes of those before.
    ///
    /// # Errors
    /// What the kernel says of the connection, which is of no use any more.
    pub fn order(&mut self, orders: Vec<(Verb, Message)>) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(orders.len());
        let mut orders = orders.into_iter().peekable();
        while orders.peek().is_some() {
            let mut bytes = Vec::new();
            let mut open = Vec::new();
            for (verb, message) in orders.by_ref().take(AT_A_TIME) {
                let flags = match verb {
                    Verb::Do => 0,
                    Verb::Add => NLM_F_CREATE | NLM_F_EXCL,
                    Verb::Put => NLM_F_CREATE | NLM_F_REPLACE,
                };
                open.push(self.write(&mut bytes, message, NLM_F_REQUEST | NLM_F_ACK | flags));
            }
            self.socket.send(&bytes, 0)?;
            let first = open.first().copied().unwrap_or_default();
            let mut said = vec![None; open.len()];
            let mut ended: Vec<Option<Answer>> = vec![None; open.len()];
            while ended.iter().any(Option::is_none) {
                self.receive(|header, payload| {
                    let place = header.sequence_number.wrapping_sub(first) as usize;
                    let (Some(said), Some(ended)) = (said.get_mut(place), ended.get_mut(place))
                    else {
                        return Ok(());
                    };
                    match payload {
                        NetlinkPayload::InnerMessage(message) => *said = Some(message),
                        NetlinkPayload::Error(error) => {
                            *ended = Some(match error.raw_code() {
                                0 => Ok(said.take()),
                                code => Err(Errno::from_raw(-code)),
                            });
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            answers.extend(ended.into_iter().flatten());
        }
        Ok(answers)
    }

    /// One order.
    ///
    /// # Errors
    /// What the kernel says of the connection, which is of no use any more.
    pub fn one(&mut self, verb: Verb, message: Message) -> io::Result<Answer> {
        let answers = self.order(vec![(verb, message)])?;
        Ok(answers.into_iter().next().unwrap_or(Ok(None)))
    }

    /// Appends a message, and answers its number.
    fn write(&mut self, bytes: &mut Vec<u8>, message: Message, flags: u16) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let begin = bytes.len();
        bytes.resize(begin + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[begin..]);
        self.sequence
    }

    /// Takes the messages of the next datagram. What this program cannot read is left out.
    fn receive(
        &self,
        mut take: impl FnMut(&NetlinkHeader, NetlinkPayload<Message>) -> io::Result<()>,
    ) -> io::Result<()> {
        let datagram = loop {
            match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?.0,
            }
        };
        let mut rest = &datagram[..];
        while let Ok(frame) = NetlinkBuffer::new_checked(rest) {
            let length = frame.length() as usize;
            match NetlinkMessage::deserialize(&rest[..length.min(rest.len())]) {
                Ok(message) => {
                    let (header, payload) = message.into_parts();
                    take(&header, payload)?;
                }
                Err(error) => {
                    tracing::debug!(%error, "the kernel says what this program cannot read")
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}
