//! From a message to its answer.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, RecordType},
    serialize::binary::{BinEncodable, BinEncoder},
};
use tokio::sync::watch;

use super::{
    LARGEST_DATAGRAM,
    forward::{Forwarder, Question},
    zone::{Part, Zone},
};

/// What a datagram has room for when the client says nothing.
const DATAGRAM: u16 = 512;
/// Bytes that a record takes at least: a name that points back, type, class, TTL, length, an IPv4 address.
const SMALLEST_RECORD: usize = 16;
/// A question takes no more, in bytes.
const LARGEST_QUESTION: usize = 4096;
/// Where a message says that there is more (its third byte).
const TRUNCATED: u8 = 0x02;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Datagram,
    Stream,
}

/// Whether a message has no more than a question has: a question, and beside it what says how it is asked. Tens of thousands of small records would take a
/// hundred times their size as long as their question is under way.
fn is_small(bytes: &[u8]) -> bool {
    // Questions, answers, authorities, additional records (RFC 1035, section 4.1.1).
    let Some(&[0, 0..=1, 0, 0, 0, 0, 0, 0..=2]) = bytes.get(4..12) else {
        return false;
    };
    bytes.len() <= LARGEST_QUESTION
}

/// Answers messages. Cheap to clone.
#[derive(Clone)]
pub struct Answerer {
    zone: watch::Receiver<Option<Arc<Zone>>>,
    forwarder: Forwarder,
    /// Whose turn it is among the addresses of a name.
    turn: Arc<AtomicUsize>,
}

impl Answerer {
    /// From the zone as it is, and from others.
    pub fn new(zone: watch::Receiver<Option<Arc<Zone>>>, forwarder: Forwarder) -> Self {
        Self {
            zone,
            forwarder,
            turn: Arc::default(),
        }
    }

    /// The answer to a message; `None` to what gets none.
    pub async fn answer(&self, bytes: &[u8], client: IpAddr, way: Way) -> Option<Vec<u8>> {
        let parsed = match is_small(bytes) {
            true => Message::from_vec(bytes).ok(),
            false => None,
        };
        let query = match parsed {
            // An answer to an answer would go to and fro.
            Some(query) if query.metadata.message_type != MessageType::Query => return None,
            Some(query) => query,
            None => {
                let (id, flags) = (bytes.get(..2)?, bytes.get(2)?);
                let id = u16::from_be_bytes(id.try_into().ok()?);
                let is_query = flags & 0x80 == 0 && bytes.len() >= 12;
                let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
                return is_query.then(|| error.to_vec().ok()).flatten();
            }
        };
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.checking_disabled = query.metadata.checking_disabled;
        answer.add_queries(query.queries.iter().cloned());
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LARGEST_DATAGRAM);
            answer.set_edns(edns);
        }
        let room = match (way, &query.edns) {
            (Way::Stream, _) => u16::MAX,
            (Way::Datagram, None) => DATAGRAM,
            (Way::Datagram, Some(edns)) => edns.max_payload().clamp(DATAGRAM, LARGEST_DATAGRAM),
        };
        // One more than there is room for: an answer that lacks some says so.
        let part = Part {
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
            most: usize::from(room) / SMALLEST_RECORD + 1,
        };
        self.fill(&mut answer, &query, client, part).await;
        fit(answer, room)
    }

    async fn fill(&self, answer: &mut Message, query: &Message, client: IpAddr, part: Part) {
        let edns = query.edns.as_ref();
        let code = |code| move |answer: &mut Message| answer.metadata.response_code = code;
        let [asked] = &query.queries[..] else {
            return code(ResponseCode::FormErr)(answer);
        };
        if query.metadata.op_code != OpCode::Query {
            return code(ResponseCode::NotImp)(answer);
        }
        if edns.is_some_and(|edns| edns.version() > 0) {
            return code(ResponseCode::BADVERS)(answer);
        }
        let kind = asked.query_type();
        let is_transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR);
        if asked.query_class() != DNSClass::IN || is_transfer {
            return code(ResponseCode::Refused)(answer);
        }
        let zone = self.zone.borrow().clone();
        let zone = zone.as_ref();
        let found = zone.and_then(|zone| zone.look(asked.name(), kind, part));
        if let Some(found) = found {
            answer.metadata.authoritative = true;
            answer.metadata.response_code = found.code;
            answer.answers = found.answers;
            answer.authorities = found.authorities;
            answer.additionals = found.additionals;
            return;
        }
        // Nobody else knows the cluster's names.
        if Zone::holds(asked.name()) {
            return code(ResponseCode::ServFail)(answer);
        }
        if !query.metadata.recursion_desired {
            return code(ResponseCode::Refused)(answer);
        }
        let mut question = Question::new(asked);
        let wants_signatures = edns.is_some_and(|edns| edns.flags().dnssec_ok);
        question.flags = (wants_signatures, query.metadata.checking_disabled);
        match self.forwarder.ask(&question, client).await {
            Ok(known) => {
                answer.metadata.response_code = known.metadata.response_code;
                answer.metadata.authentic_data = known.metadata.authentic_data;
                answer.answers = known.answers;
                answer.authorities = known.authorities;
                answer.additionals = known.additionals;
            }
            Err(failure) => code(failure)(answer),
        }
    }
}

/// The bytes of a message. In one without room there are fewer answers, and it says so: the client then asks by TCP, or makes do with these. What is beside
/// the answers goes first, without a word.
fn fit(mut message: Message, room: u16) -> Option<Vec<u8>> {
    let mut is_cut = false;
    loop {
        let mut bytes = Vec::with_capacity(usize::from(DATAGRAM));
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(room);
        message.emit(&mut encoder).ok()?;
        let flags = bytes.get_mut(2)?;
        if *flags & TRUNCATED == 0 {
            if is_cut {
                *flags |= TRUNCATED;
            }
            return Some(bytes);
        }
        if !message.additionals.is_empty() {
            message.additionals.clear();
        } else if !message.authorities.is_empty() {
            message.authorities.clear();
        } else if !message.answers.is_empty() {
            is_cut = true;
            message.answers.truncate(message.answers.len() / 2);
        } else {
            return None;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
