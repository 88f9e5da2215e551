//! Answers of others, for as long as they hold.

use std::{collections::HashMap, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};
use tokio::time::Instant;

use super::Question;

/// Bytes of one of two generations. When the younger one is full, the older one is forgotten.
const GENERATION: usize = 4 << 20;
/// What an entry takes besides its message, about.
const ENTRY: usize = 256;
/// Seconds that an answer is kept at most …
const LONGEST: u32 = 3600;
/// … and that there is none.
const LONGEST_NONE: u32 = 300;

/// Answers, in two generations: what is asked for stays, and what is not goes when there is no room.
#[derive(Default)]
pub struct Cache {
    young: HashMap<Question, Entry>,
    old: HashMap<Question, Entry>,
    bytes: usize,
}

struct Entry {
    message: Box<[u8]>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// What is known, with the time that it still holds.
    pub fn get(&mut self, question: &Question, now: Instant) -> Option<Message> {
        if let Some(entry) = self.old.remove(question) {
            self.put(question.clone(), entry);
        }
        let entry = self.young.get(question)?;
        if entry.until <= now {
            return None;
        }
        let mut message = Message::from_vec(&entry.message).ok()?;
        let age = now.duration_since(entry.since).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let all = message.answers.iter_mut();
        let all = all.chain(&mut message.authorities);
        for record in all.chain(&mut message.additionals) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Keeps an answer, if it may be kept.
    pub fn keep(&mut self, question: Question, message: &Message, now: Instant) {
        let Some(seconds) = holds(message).filter(|seconds| *seconds > 0) else {
            return;
        };
        let Ok(bytes) = message.to_vec() else {
            return;
        };
        let entry = Entry {
            message: bytes.into(),
            since: now,
            until: now + Duration::from_secs(seconds.into()),
        };
        self.old.remove(&question);
        self.put(question, entry);
    }

    fn put(&mut self, question: Question, entry: Entry) {
        let bytes = entry.message.len() + ENTRY;
        if self.bytes + bytes > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        if let Some(before) = self.young.insert(question, entry) {
            self.bytes = self.bytes.saturating_sub(before.message.len() + ENTRY);
        }
    }
}

/// For how many seconds an answer holds: as long as all of its records, and that there is none as long as the start of its zone says.
fn holds(message: &Message) -> Option<u32> {
    let code = message.metadata.response_code;
    if message.metadata.truncation
        || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
    {
        return None;
    }
    let asked = message.queries.first().map(|query| query.query_type());
    let is_there = |kind: RecordType| Some(kind) == asked || asked == Some(RecordType::ANY);
    let has_answer = message.answers.iter().any(|it| is_there(it.record_type()));
    let records = message.answers.iter().map(|record| record.ttl).min();
    let records = records.map(|ttl| ttl.min(LONGEST));
    if code == ResponseCode::NoError && has_answer {
        return records;
    }
    let start = message.authorities.iter().find_map(|it| match &it.data {
        RData::SOA(start) => Some(it.ttl.min(start.minimum)),
        _ => None,
    })?;
    Some(start.min(LONGEST_NONE).min(records.unwrap_or(LONGEST)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use hickory_proto::{
        op::{MessageType, OpCode, Query},
        rr::{
            Name, Record,
            rdata::{A, SOA},
        },
    };

    use super::*;

    fn question(name: &str) -> Question {
        Question::new(&Query::query(
            Name::from_ascii(name).unwrap(),
            RecordType::A,
        ))
    }

    fn message(name: &str, code: ResponseCode) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        let name = Name::from_ascii(name).unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message.metadata.response_code = code;
        message
    }

    fn record(name: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data)
    }

    #[test]
    fn answers_hold_as_long_as_their_records() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut cache = Cache::default();
        let mut there = message("a.example.", ResponseCode::NoError);
        let data = RData::A(A(Ipv4Addr::LOCALHOST));
        there.add_answer(record("a.example.", 30, data));
        cache.keep(question("a.example."), &there, now);
        let known = cache.get(&question("A.Example."), later(10)).unwrap();
        assert_eq!(known.answers[0].ttl, 20);
        assert!(cache.get(&question("a.example."), later(30)).is_none());
        assert!(cache.get(&question("b.example."), now).is_none());

        let mut none = message("b.example.", ResponseCode::NXDomain);
        cache.keep(question("b.example."), &none, now);
        assert!(cache.get(&question("b.example."), now).is_none(), "no end");
        let name = || Name::from_ascii("example.").unwrap();
        let start = SOA::new(name(), name(), 1, 1, 1, 1, 7);
        none.add_authority(record("example.", 60, RData::SOA(start)));
        cache.keep(question("b.example."), &none, now);
        assert!(cache.get(&question("b.example."), later(6)).is_some());
        assert!(cache.get(&question("b.example."), later(7)).is_none());

        let failed = message("c.example.", ResponseCode::ServFail);
        cache.keep(question("c.example."), &failed, now);
        assert!(cache.get(&question("c.example."), now).is_none());
    }

    #[test]
    fn what_is_kept_has_a_bound_and_what_is_asked_for_stays() {
        let now = Instant::now();
        let mut cache = Cache::default();
        for number in 0..100_000 {
            let name = format!("n{number}.example.");
            let mut there = message(&name, ResponseCode::NoError);
            let data = RData::A(A(Ipv4Addr::LOCALHOST));
            there.add_answer(record(&name, 600, data));
            cache.keep(question(&name), &there, now);
            assert!(cache.get(&question("n0.example."), now).is_some());
        }
        let entries = cache.young.len() + cache.old.len();
        assert!(entries * ENTRY <= 2 * GENERATION, "{entries}");
        assert!(cache.get(&question("n1.example."), now).is_none());
    }
}
