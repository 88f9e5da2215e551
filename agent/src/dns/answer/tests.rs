#![allow(clippy::unwrap_used, clippy::panic)]
//! A client on loopback, and servers to ask that the test plays.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::Query,
    rr::{Name, RData, Record, rdata::A},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use super::*;
use crate::dns::{
    forward::upstreams::Upstreams,
    names::{Host, Names},
    server::{Clients, answer_datagrams, answer_streams},
    zone::tests::example,
};

/// The name server under test.
pub struct Server {
    pub at: SocketAddr,
    _zone: watch::Sender<Option<Arc<Zone>>>,
    _upstreams: watch::Sender<Arc<Upstreams>>,
}

impl Server {
    /// Answers from these names, and asks these servers.
    pub async fn start(names: Option<&Names>, upstreams: Upstreams) -> Self {
        let zone = names.map(|names| Arc::new(Zone::new(names, 1)));
        let (zone_sender, zone) = watch::channel(zone);
        let (upstreams_sender, upstreams) = watch::channel(Arc::new(upstreams));
        let forwarder = Forwarder::new(upstreams);
        tokio::spawn(forwarder.clone().prove());
        let answerer = Answerer::new(zone, forwarder);
        // The same port for both.
        let (listener, socket) = loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let at = listener.local_addr().unwrap();
            if let Ok(socket) = UdpSocket::bind(at).await {
                break (listener, socket);
            }
        };
        let at = listener.local_addr().unwrap();
        tokio::spawn(answer_datagrams(Arc::new(socket), answerer.clone()));
        let streams = Arc::new(Semaphore::new(8));
        tokio::spawn(answer_streams(
            listener,
            answerer,
            streams,
            Clients::default(),
        ));
        Self {
            at,
            _zone: zone_sender,
            _upstreams: upstreams_sender,
        }
    }

    pub async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.send(&query(name, kind)).await.unwrap()
    }

    /// What comes back to a message; `None` for nothing.
    pub async fn send(&self, message: &Message) -> Option<Message> {
        let bytes = self.send_bytes(&message.to_vec().unwrap()).await?;
        Some(Message::from_vec(&bytes).unwrap())
    }

    async fn send_bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(bytes, self.at).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer));
        let length = length.await.ok()?.unwrap();
        buffer.truncate(length);
        Some(buffer)
    }

    async fn ask_by_tcp(&self, message: &Message) -> Message {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        let bytes = message.to_vec().unwrap();
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }
}

pub fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

#[tokio::test]
async fn a_client_gets_answers_with_its_number_and_its_question() {
    let server = Server::start(Some(&example()), Upstreams::default()).await;
    let asked = query("Web.shop.svc.cluster.local.", RecordType::A);
    let answer = server.send(&asked).await.unwrap();
    assert_eq!(answer.metadata.id, asked.metadata.id);
    assert_eq!(answer.queries, asked.queries);
    assert_eq!(
        answer.queries[0].name().to_string(),
        "Web.shop.svc.cluster.local."
    );
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(answer.answers.len(), 1);
    assert!(answer.edns.is_none());
    let none = server
        .ask("x.shop.svc.cluster.local.", RecordType::AAAA)
        .await;
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(none.authorities.len(), 1);
}

#[tokio::test]
async fn pods_take_turns() {
    let server = Server::start(Some(&example()), Upstreams::default()).await;
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let answer = server
            .ask("db.shop.svc.cluster.local.", RecordType::A)
            .await;
        assert_eq!(answer.answers.len(), 2);
        first.insert(answer.answers[0].data.to_string());
    }
    assert_eq!(first.len(), 2);
}

#[tokio::test]
async fn what_has_no_room_in_a_datagram_comes_by_tcp() {
    let mut names = example();
    let hosts = (0..1000_u32).map(|number| Host {
        address: 0x0a00_0000 + number,
        name: String::new(),
    });
    names.services[1].groups[0].hosts = hosts.collect();
    let server = Server::start(Some(&names), Upstreams::default()).await;
    let mut asked = query("db.shop.svc.cluster.local.", RecordType::A);
    for room in [None, Some(1232), Some(60_000)] {
        if let Some(room) = room {
            let mut edns = Edns::new();
            edns.set_max_payload(room);
            asked.set_edns(edns);
        }
        let bytes = server.send_bytes(&asked.to_vec().unwrap()).await.unwrap();
        assert!(bytes.len() <= usize::from(room.unwrap_or(512).min(1232)));
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation);
        assert!(answer.answers.len() > 5, "{}", answer.answers.len());
        assert_eq!(answer.edns.is_some(), room.is_some());
    }
    let whole = server.ask_by_tcp(&asked).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 1000);
}

#[tokio::test]
async fn what_is_no_question_gets_an_error_or_nothing() {
    let server = Server::start(None, Upstreams::default()).await;
    let mut refused = query("example.com.", RecordType::AXFR);
    let code = |answer: Option<Message>| answer.unwrap().metadata.response_code;
    assert_eq!(code(server.send(&refused).await), ResponseCode::Refused);
    refused.queries.clear();
    assert_eq!(code(server.send(&refused).await), ResponseCode::FormErr);
    let mut update = query("example.com.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(code(server.send(&update).await), ResponseCode::NotImp);
    // Before control has said anything, nobody knows; that is not the same as no name.
    let early = server
        .ask("web.shop.svc.cluster.local.", RecordType::A)
        .await;
    assert_eq!(early.metadata.response_code, ResponseCode::ServFail);
    let mut garbage = vec![0x12, 0x34, 0x01, 0x00, 0, 9, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let answer = server.send_bytes(&garbage).await.unwrap();
    assert_eq!(answer[..2], [0x12, 0x34]);
    // An answer is not answered: the next message is the first to come back.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    garbage[2] |= 0x80;
    socket.send_to(&garbage, server.at).await.unwrap();
    let asked = query("a.cluster.local.", RecordType::A);
    let mut answer = asked.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.id = !asked.metadata.id;
    socket
        .send_to(&answer.to_vec().unwrap(), server.at)
        .await
        .unwrap();
    socket
        .send_to(&asked.to_vec().unwrap(), server.at)
        .await
        .unwrap();
    let mut buffer = [0; 512];
    let received = timeout(Duration::from_secs(10), socket.recv(&mut buffer));
    let length = received.await.unwrap().unwrap();
    let first = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(first.metadata.id, asked.metadata.id);
}

#[tokio::test]
async fn a_connection_may_ask_again_and_a_client_has_a_share_of_them() {
    let server = Server::start(Some(&example()), Upstreams::default()).await;
    let asked = query("web.shop.svc.cluster.local.", RecordType::A);
    let bytes = asked.to_vec().unwrap();
    let mut stream = TcpStream::connect(server.at).await.unwrap();
    for _ in 0..3 {
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 1);
    }
}

/// What a server that the test plays says to the name of a question.
pub fn address(message: &Message, ttl: u32) -> Message {
    let mut answer = message.clone();
    answer.metadata.message_type = MessageType::Response;
    let name = message.queries[0].name().clone();
    let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 7)));
    answer.add_answer(Record::from_rdata(name, ttl, data));
    answer
}

#[tokio::test]
async fn a_message_with_more_than_a_question_is_refused() {
    let server = Server::start(Some(&example()), Upstreams::default()).await;
    let name = "dns-version.cluster.local.";
    let plain = query(name, RecordType::TXT);
    assert_eq!(
        server.send(&plain).await.unwrap().metadata.response_code,
        ResponseCode::NoError
    );
    let record = || {
        let name = Name::from_ascii("a.").unwrap();
        Record::from_rdata(name, 1, RData::A(A(Ipv4Addr::LOCALHOST)))
    };
    let mut many = plain.clone();
    many.add_additionals((0..3).map(|_| record()));
    let mut answered = plain.clone();
    answered.add_answer(record());
    for message in [many, answered] {
        let answer = server.send(&message).await.unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    }
}

#[tokio::test]
async fn a_name_with_very_many_addresses_is_cut_and_says_so() {
    let mut names = example();
    let pods = (0..20_000_u32).map(|at| Host {
        address: u32::from(Ipv4Addr::new(10, 200, 0, 0)) + at,
        name: String::new(),
    });
    names.services[1].groups[0].hosts = pods.collect();
    let server = Server::start(Some(&names), Upstreams::default()).await;
    let asked = query("db.shop.svc.cluster.local.", RecordType::A);
    let cut = server.send(&asked).await.unwrap();
    assert!(cut.metadata.truncation && cut.answers.len() > 5);
    let more = server.ask_by_tcp(&asked).await;
    assert!(more.metadata.truncation && more.answers.len() > 1000);
}
