//! Names that are not the cluster's: the node's own name servers are asked, and what they say is remembered for as long as it holds.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

mod cache;
mod exchange;
pub mod upstreams;

use cache::Cache;
use upstreams::Upstreams;

/// Questions under way to other servers …
const MOST: usize = 1024;
/// … and of them those of one client.
const MOST_OF_CLIENT: usize = 256;
/// For an answer, from the question on. Programs give up, or ask again, after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// A server that is silent for so long is not waited for alone: the next one is asked, too, or the same one again.
const STAGGER: Duration = Duration::from_millis(500);
/// One that was silent while another answered is asked last for so long.
const ASIDE: Duration = Duration::from_secs(10);
/// A domain that answers nothing but failures is taken for none for so long.
const BROKEN: Duration = Duration::from_secs(30);
/// How long a server has to prove that it does not ask this process.
const PROOF: Duration = Duration::from_secs(3);

/// What is asked for, without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    name: Name,
    kind: RecordType,
    /// The client wants signatures, or does not want them checked.
    pub flags: (bool, bool),
}

impl Question {
    /// Of a query, without flags.
    pub fn new(query: &Query) -> Self {
        Self {
            name: query.name().to_lowercase(),
            kind: query.query_type(),
            flags: (false, false),
        }
    }

    fn query(&self) -> Query {
        let mut query = Query::query(self.name.clone(), self.kind);
        query.set_query_class(DNSClass::IN);
        query
    }
}

/// Asks other servers. Cheap to clone.
#[derive(Clone)]
pub struct Forwarder {
    upstreams: watch::Receiver<Arc<Upstreams>>,
    shared: Arc<Shared>,
}

struct Shared {
    cache: Mutex<Cache>,
    turns: Semaphore,
    clients: Mutex<HashMap<IpAddr, usize>>,
    /// Servers that were silent, and until when they are asked last.
    aside: Mutex<HashMap<SocketAddr, Instant>>,
    /// Domains that fail, and until when that is taken for so.
    broken: Mutex<HashMap<Name, (bool, Instant)>>,
    /// Labels of names that are asked for to see whether they come back here.
    proofs: Mutex<HashSet<Vec<u8>>>,
    /// Servers that ask this process.
    loops: Mutex<HashSet<SocketAddr>>,
}

/// A client's share of the questions under way.
struct Share<'a> {
    shared: &'a Shared,
    client: IpAddr,
}

impl Forwarder {
    /// Asks these.
    pub fn new(upstreams: watch::Receiver<Arc<Upstreams>>) -> Self {
        Self {
            upstreams,
            shared: Arc::new(Shared {
                cache: Mutex::default(),
                turns: Semaphore::new(MOST),
                clients: Mutex::default(),
                aside: Mutex::default(),
                broken: Mutex::default(),
                proofs: Mutex::default(),
                loops: Mutex::default(),
            }),
        }
    }

    /// The answer for a client: what is known, or what a server says.
    ///
    /// # Errors
    /// The code of a failure: no server answers, or there is too much under way.
    pub async fn ask(&self, question: &Question, client: IpAddr) -> Result<Message, ResponseCode> {
        if self.is_proof(&question.name) {
            return Err(ResponseCode::Refused);
        }
        if let Some(known) = locked(&self.shared.cache).get(question, Instant::now()) {
            return Ok(known);
        }
        let _share = self.share(client).ok_or(ResponseCode::ServFail)?;
        let turn = self.shared.turns.try_acquire();
        let _turn = turn.map_err(|_| ResponseCode::ServFail)?;
        match self.ask_servers(question).await {
            Ok(answer) => Ok(answer),
            // Waiting for servers that say nothing has taken its time.
            Err(None) => Err(ResponseCode::ServFail),
            Err(Some(_)) if self.is_in_broken_domain(&question.name).await => {
                Err(ResponseCode::NXDomain)
            }
            Err(Some(code)) => Err(code),
        }
    }

    /// The first good answer of a server; or the failure that the last one told, if one told any.
    async fn ask_servers(&self, question: &Question) -> Result<Message, Option<ResponseCode>> {
        let deadline = Instant::now() + PATIENCE;
        let servers = self.in_order();
        // A datagram may be lost, so each has two turns.
        let mut turns = servers.iter().chain(&servers).copied();
        let mut asked =
            FuturesUnordered::<BoxFuture<'_, (SocketAddr, std::io::Result<Message>)>>::new();
        let mut silent = HashSet::new();
        let mut failure = None;
        let mut next_at = Instant::now();
        loop {
            if next_at <= Instant::now() || asked.is_empty() {
                match turns.next() {
                    Some(to) => {
                        silent.insert(to);
                        let query = question.clone();
                        asked.push(
                            async move { (to, exchange::with(to, &query, deadline).await) }.boxed(),
                        );
                    }
                    None if asked.is_empty() => return Err(failure),
                    None => {}
                }
                next_at = Instant::now() + STAGGER;
            }
            let answered = tokio::select! {
                answered = asked.next() => answered,
                () = sleep_until(next_at.min(deadline)) => None,
            };
            match answered {
                Some((from, Ok(message))) => {
                    silent.remove(&from);
                    let code = message.metadata.response_code;
                    if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
                        self.note(from, &silent);
                        let mut cache = locked(&self.shared.cache);
                        cache.keep(question.clone(), &message, Instant::now());
                        return Ok(message);
                    }
                    // Another one may know better, and is asked at once.
                    failure = Some(code);
                    next_at = Instant::now();
                }
                Some((_, Err(_))) => next_at = Instant::now(),
                None if Instant::now() >= deadline => return Err(failure),
                None => {}
            }
        }
    }

    /// Those that answered last come first, and those that ask this process not at all.
    fn in_order(&self) -> Vec<SocketAddr> {
        let upstreams = self.upstreams.borrow().clone();
        let mut aside = locked(&self.shared.aside);
        let now = Instant::now();
        aside.retain(|_, until| *until > now);
        let loops = locked(&self.shared.loops);
        let servers = upstreams.servers.iter().copied();
        let mut servers: Vec<_> = servers.filter(|it| !loops.contains(it)).collect();
        servers.sort_by_key(|server| aside.contains_key(server));
        servers
    }

    /// Notes who answered while others were silent.
    fn note(&self, answered: SocketAddr, silent: &HashSet<SocketAddr>) {
        let mut aside = locked(&self.shared.aside);
        aside.remove(&answered);
        let until = Instant::now() + ASIDE;
        aside.extend(silent.iter().map(|server| (*server, until)));
    }

    /// Whether a name is below a domain of the node's search list that answers nothing but failures. Programs would give up at such an answer; told that there is no
    /// such name, they search on.
    async fn is_in_broken_domain(&self, name: &Name) -> bool {
        let upstreams = self.upstreams.borrow().clone();
        let mut domains = upstreams.searches.iter();
        let Some(domain) = domains.find(|domain| domain.zone_of(name) && *domain != name) else {
            return false;
        };
        let now = Instant::now();
        let known = locked(&self.shared.broken).get(domain).copied();
        if let Some((is_broken, _)) = known.filter(|(_, until)| *until > now) {
            return is_broken;
        }
        let question = Question::new(&Query::query(domain.clone(), RecordType::SOA));
        let answer = self.ask_servers(&question).await;
        let is_broken = matches!(answer, Err(Some(_))) && self.has_answers().await;
        let mut broken = locked(&self.shared.broken);
        // Domains of search lists that there were.
        broken.retain(|_, (_, until)| *until > now);
        broken.insert(domain.clone(), (is_broken, now + BROKEN));
        is_broken
    }

    /// Whether the servers answer at all.
    async fn has_answers(&self) -> bool {
        let question = Question::new(&Query::query(Name::root(), RecordType::NS));
        self.ask_servers(&question).await.is_ok()
    }

    fn share(&self, client: IpAddr) -> Option<Share<'_>> {
        let mut clients = locked(&self.shared.clients);
        let under_way = clients.entry(client).or_default();
        if *under_way >= MOST_OF_CLIENT {
            return None;
        }
        *under_way += 1;
        Some(Share {
            shared: &self.shared,
            client,
        })
    }

    /// Finds out which servers ask this process, each time when there are others: such a question would go round and round.
    pub async fn prove(self) {
        let mut upstreams = self.upstreams.clone();
        loop {
            let servers = upstreams.borrow_and_update().servers.clone();
            for server in servers {
                let is_loop = self.leads_here(server).await;
                let mut loops = locked(&self.shared.loops);
                match is_loop {
                    true if loops.insert(server) => {
                        tracing::warn!(%server, "this name server asks the node's own, and is left out");
                    }
                    true => {}
                    false => {
                        loops.remove(&server);
                    }
                }
            }
            let again = sleep(BROKEN * 10);
            tokio::select! {
                changed = upstreams.changed() => if changed.is_err() {
                    return;
                },
                () = again => {}
            }
        }
    }

    async fn leads_here(&self, server: SocketAddr) -> bool {
        let label = format!("{:016x}", rand::random::<u64>());
        let Ok(name) = Name::from_ascii(format!("{label}.loop.invalid.")) else {
            return false;
        };
        locked(&self.shared.proofs).insert(label.clone().into());
        let question = Question::new(&Query::query(name, RecordType::A));
        let deadline = Instant::now() + PROOF;
        let answer = exchange::with(server, &question, deadline);
        let _ = timeout_at(deadline, answer).await;
        // What came back took it away.
        !locked(&self.shared.proofs).remove(label.as_bytes())
    }

    fn is_proof(&self, name: &Name) -> bool {
        let mut proofs = locked(&self.shared.proofs);
        if proofs.is_empty() {
            return false;
        }
        let label = name.iter().next();
        label.is_some_and(|label| proofs.remove(label))
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut clients = locked(&self.shared.clients);
        if let Some(under_way) = clients.get_mut(&self.client) {
            *under_way -= 1;
            if *under_way == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// What is behind it is whole at any moment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A query for a server, with an id that nobody can guess.
fn query_for(question: &Question) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Query;
    message.metadata.id = rand::random();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = question.flags.1;
    message.add_query(question.query());
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_max_payload(super::LARGEST_DATAGRAM);
    edns.set_dnssec_ok(question.flags.0);
    message.set_edns(edns);
    message
}

#[cfg(test)]
mod tests;
