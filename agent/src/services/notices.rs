//! The kernel's notices of changes to rules, by netlink, from the network namespace of the thread that opens them.

use std::io::{self, ErrorKind};

use bytes::BytesMut;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use rtnetlink::{
    packet_core::{NetlinkBuffer, NlasIterator},
    sys::{
        AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER,
    },
};

use super::{
    generations::{Account, Found, Notice},
    script::NAME,
};

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`, as a bit.
const GROUP: u32 = 1 << (7 - 1);
/// `NFNL_SUBSYS_NFTABLES`, in the upper half of a message's type; the lower one is of `enum nf_tables_msg_types`.
const NFTABLES: u16 = 10;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;
/// `struct nfgenmsg`: family, version, resource. Attributes follow.
const HEADER: usize = 4;
/// `NFPROTO_INET`, the family of our table.
const INET: u8 = 1;
/// In messages about tables, chains, rules, sets, elements, objects and flow tables alike: the table's name.
const TABLE_NAME: u16 = 1;
/// `enum nft_gen_attributes`.
const GENERATION: u16 = 1;
const PROCESS_NAME: u16 = 3;

/// Bytes of notices that the kernel keeps until they are read; it takes the memory only while there are some. A transaction
/// with 60,000 elements makes about 10 MB, as the kernel counts.
const UNREAD: usize = 16 << 20;
/// The kernel's notices are at most a few pages long.
const LARGEST: usize = 32 << 10;
/// Notices taken at a time. More at once are not read one by one: the account is incomplete then, and the table is written again.
const MOST: usize = 4096;
/// `ENOBUFS`: notices did not fit into the socket's buffer.
const LOST: i32 = nix::libc::ENOBUFS;

/// Watches the table of this process's rules.
pub struct Notices {
    notices: TokioSocket,
    /// Answers are apart from notices, which may be many.
    questions: Socket,
    account: Account,
    buffer: BytesMut,
}

impl Notices {
    /// Opens them. Nothing is known of the table until it is written.
    ///
    /// # Errors
    /// What the kernel says: without nftables, or without the right to change rules.
    pub fn open() -> io::Result<Self> {
        Self::open_for(UNREAD)
    }

    /// The same with room for so many bytes of notices that are not read yet.
    pub(super) fn open_for(unread: usize) -> io::Result<Self> {
        let mut notices = TokioSocket::new(NETLINK_NETFILTER)?;
        // The limit of `net.core.rmem_max` is for others than root. It works without, too.
        if let Err(error) = setsockopt(notices.socket_ref(), RcvBufForce, &unread) {
            tracing::warn!(%error, "large changes of others to the kernel's rules will be taken for changes of Services' rules");
        }
        notices.socket_mut().bind(&SocketAddr::new(0, GROUP))?;
        let mut questions = Socket::new(NETLINK_NETFILTER)?;
        questions.bind(&SocketAddr::new(0, 0))?;
        questions.set_non_blocking(true)?;
        Ok(Self {
            notices,
            questions,
            account: Account::default(),
            buffer: BytesMut::new(),
        })
    }

    /// Waits for a notice, and takes it. [`Notices::found`] takes those that follow.
    pub async fn wait(&mut self) {
        self.clear();
        let taken = self.notices.recv(&mut self.buffer).await;
        // An error is met again by the next call.
        let _ = self.take(taken);
    }

    /// What others did to the table since it was written last.
    ///
    /// # Errors
    /// What the kernel says. These notices are of no use any more.
    pub fn found(&mut self) -> io::Result<Option<Found>> {
        let now = self.generation()?;
        self.take_all()?;
        Ok(self.account.found(now))
    }

    /// To be called before the table is written. Answers from where on transactions are counted.
    ///
    /// # Errors
    /// As [`Notices::found`].
    pub fn writing(&mut self) -> io::Result<u32> {
        let now = self.generation()?;
        let before = self.account.last().unwrap_or(now);
        self.account.begin(before);
        Ok(before)
    }

    /// To be called after the table was written with one transaction. Answers what others did meanwhile.
    ///
    /// # Errors
    /// As [`Notices::found`].
    pub fn wrote(&mut self, before: u32) -> io::Result<Option<Found>> {
        let after = self.generation()?;
        self.take_all()?;
        let found = self.account.found_beside_ours(before, after);
        self.account.begin(self.account.last().unwrap_or(after));
        Ok(found)
    }

    fn take_all(&mut self) -> io::Result<()> {
        for _ in 0..MOST {
            self.clear();
            let taken = self.notices.socket_ref().recv(&mut self.buffer, 0);
            match self.take(taken.map(drop)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                taken => taken?,
            }
        }
        self.account.lost();
        Ok(())
    }

    /// Takes what was just received.
    fn take(&mut self, received: io::Result<()>) -> io::Result<()> {
        match received {
            Ok(()) => parse(&self.buffer, |notice| self.account.take(notice)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(LOST) => self.account.lost(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.reserve(LARGEST);
    }

    /// The generation that the kernel is at. The answer is there as soon as the question is sent.
    fn generation(&mut self) -> io::Result<u32> {
        let mut question = [0; 16 + HEADER];
        let mut message = NetlinkBuffer::new(&mut question[..]);
        message.set_length(16 + HEADER as u32);
        message.set_message_type((NFTABLES << 8) | GET_GENERATION);
        message.set_flags(1); // NLM_F_REQUEST
        self.questions.send(&question, 0)?;
        self.clear();
        self.questions.recv(&mut self.buffer, 0)?;
        let mut found = None;
        parse(&self.buffer, |notice| {
            if let Notice::Ended { generation, .. } = notice {
                found = Some(generation);
            }
        });
        found.ok_or_else(|| io::Error::other("the kernel does not say the generation of its rules"))
    }
}

/// Calls `take` for what a datagram says of our table and of generations.
fn parse(mut datagram: &[u8], mut take: impl FnMut(Notice)) {
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        let payload = message.payload();
        let kind = message.message_type();
        if kind >> 8 == NFTABLES
            && let Some((header, attributes)) = payload.split_at_checked(HEADER)
            && let Some(notice) = notice(kind & 0xff, header, attributes)
        {
            take(notice);
        }
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
}

fn notice(kind: u16, header: &[u8], attributes: &[u8]) -> Option<Notice> {
    let attribute = |wanted: u16| {
        let mut all = NlasIterator::new(attributes).map_while(Result::ok);
        let found = all.find(|it| it.kind() == wanted)?;
        Some(found.value().to_vec())
    };
    let text = |wanted| {
        let bytes = attribute(wanted)?;
        let text = String::from_utf8_lossy(&bytes);
        Some(text.trim_end_matches('\0').to_owned())
    };
    if kind == NEW_GENERATION {
        return Some(Notice::Ended {
            generation: u32::from_be_bytes(attribute(GENERATION)?.try_into().ok()?),
            by: text(PROCESS_NAME).unwrap_or_else(|| "a process".to_owned()),
        });
    }
    let is_ours = header.first() == Some(&INET) && text(TABLE_NAME).as_deref() == Some(NAME);
    is_ours.then_some(Notice::Touched)
}
