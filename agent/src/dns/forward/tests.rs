#![allow(clippy::unwrap_used, clippy::panic)]
use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

use hickory_proto::{
    op::MessageType,
    rr::{RData, Record, rdata::SOA},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::*;
use crate::dns::answer::tests::{Server, address};

/// A server that others ask; `answer` says what to a question by UDP, or nothing.
struct Fake {
    at: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Fake {
    async fn start(answer: impl Fn(&Message) -> Option<Message> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                let message = Message::from_vec(&buffer[..length]).unwrap();
                // Its proof that it does not lead back is not counted.
                if !message.queries[0]
                    .name()
                    .to_string()
                    .ends_with(".loop.invalid.")
                {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                if let Some(answer) = answer(&message) {
                    socket
                        .send_to(&answer.to_vec().unwrap(), client)
                        .await
                        .unwrap();
                }
            }
        });
        Self { at, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn of(servers: &[SocketAddr], search: &[&str]) -> Upstreams {
    Upstreams {
        servers: servers.to_vec(),
        searches: search
            .iter()
            .map(|it| Name::from_ascii(it).unwrap())
            .collect(),
    }
}

fn failure(message: &Message, code: ResponseCode) -> Message {
    let mut answer = message.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.response_code = code;
    answer
}

#[tokio::test]
async fn what_is_known_is_not_asked_again_until_it_is_old() {
    let fake = Fake::start(|message| Some(address(message, 600))).await;
    let server = Server::start(None, of(&[fake.at], &[])).await;
    for name in ["www.example.com.", "WWW.example.com."] {
        let answer = server.ask(name, RecordType::A).await;
        assert_eq!(answer.answers[0].data.to_string(), "192.0.2.7");
        assert_eq!(answer.queries[0].name().to_string(), name);
        assert!(!answer.metadata.authoritative);
    }
    assert_eq!(fake.asked(), 1);
    server.ask("www.example.com.", RecordType::AAAA).await;
    assert_eq!(fake.asked(), 2);
}

#[tokio::test]
async fn that_there_is_no_name_is_known_for_as_long_as_its_zone_says() {
    let fake = Fake::start(|message| {
        let mut none = failure(message, ResponseCode::NXDomain);
        let name = || Name::from_ascii("example.com.").unwrap();
        let start = RData::SOA(SOA::new(name(), name(), 1, 1, 1, 1, 60));
        none.add_authority(Record::from_rdata(name(), 60, start));
        Some(none)
    })
    .await;
    let server = Server::start(None, of(&[fake.at], &[])).await;
    for _ in 0..3 {
        let answer = server.ask("x.example.com.", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }
    assert_eq!(fake.asked(), 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_asked_last() {
    let silent = Fake::start(|_| None).await;
    let refuses = Fake::start(|message| Some(failure(message, ResponseCode::Refused))).await;
    let good = Fake::start(|message| Some(address(message, 0))).await;
    let server = Server::start(None, of(&[silent.at, refuses.at, good.at], &[])).await;
    let begin = Instant::now();
    let answer = server.ask("www.example.com.", RecordType::A).await;
    assert_eq!(answer.answers.len(), 1);
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    let before = silent.asked();
    for _ in 0..5 {
        let answer = server.ask("www.example.com.", RecordType::A).await;
        assert_eq!(answer.answers.len(), 1);
    }
    assert_eq!(silent.asked(), before);
}

#[tokio::test]
async fn without_any_server_that_answers_the_failure_comes_in_time() {
    let silent = Fake::start(|_| None).await;
    let server = Server::start(None, of(&[silent.at], &[])).await;
    let begin = Instant::now();
    let answer = server.ask("www.example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    // Programs wait for five seconds.
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(silent.asked(), 2);
    let none = Server::start(None, Upstreams::default()).await;
    let answer = none.ask("www.example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn what_has_no_room_in_a_datagram_is_asked_for_by_tcp() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(at).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let message = Message::from_vec(&buffer[..length]).unwrap();
            let mut cut = failure(&message, ResponseCode::NoError);
            cut.metadata.truncation = true;
            socket
                .send_to(&cut.to_vec().unwrap(), client)
                .await
                .unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut bytes).await.unwrap();
            let answer = address(&Message::from_vec(&bytes).unwrap(), 600);
            let bytes = answer.to_vec().unwrap();
            stream.write_u16(bytes.len() as u16).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    });
    let server = Server::start(None, of(&[at], &[])).await;
    let answer = server.ask("www.example.com.", RecordType::A).await;
    assert_eq!(answer.answers.len(), 1);
    assert!(!answer.metadata.truncation);
}

#[tokio::test]
async fn an_answer_to_another_question_is_none() {
    let liar = Fake::start(|message| {
        let mut answer = address(message, 600);
        answer.queries = vec![Query::query(Name::root(), RecordType::A)];
        Some(answer)
    })
    .await;
    let server = Server::start(None, of(&[liar.at], &[])).await;
    let answer = server.ask("www.example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_domain_that_only_fails_does_not_end_a_search() {
    let fake = Fake::start(|message| {
        let name = message.queries[0].name().to_string();
        let fails = name.ends_with("broken.example.") || name.starts_with("once.");
        Some(match fails {
            true => failure(message, ResponseCode::ServFail),
            false => address(message, 600),
        })
    })
    .await;
    let server = Server::start(None, of(&[fake.at], &["broken.example.", "good.example."])).await;
    let code = async |name: &str| server.ask(name, RecordType::A).await.metadata.response_code;
    let searched = "www.example.com.broken.example.";
    assert_eq!(code(searched).await, ResponseCode::NXDomain);
    assert_eq!(code(searched).await, ResponseCode::NXDomain);
    // The domain itself, one that answers, and one that nobody searches: what it says is handed on.
    assert_eq!(code("broken.example.").await, ResponseCode::ServFail);
    assert_eq!(code("once.good.example.").await, ResponseCode::ServFail);
    assert_eq!(code("once.example.com.").await, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_server_that_asks_this_one_is_left_out() {
    // It hands on whatever it is asked to the server under test.
    let (tell, told) = watch::channel(None::<SocketAddr>);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let to = told
                .clone()
                .wait_for(Option::is_some)
                .await
                .unwrap()
                .unwrap();
            let onward = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            onward.send_to(&buffer[..length], to).await.unwrap();
            let mut answer = [0; 2048];
            if let Ok(length) = timeout_at(Instant::now() + STAGGER, onward.recv(&mut answer)).await
            {
                socket
                    .send_to(&answer[..length.unwrap()], client)
                    .await
                    .unwrap();
            }
        }
    });
    let good = Fake::start(|message| Some(address(message, 0))).await;
    let server = Server::start(None, of(&[at, good.at], &[])).await;
    tell.send_replace(Some(server.at));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let before = good.asked();
        let begin = Instant::now();
        let answer = server.ask("www.example.com.", RecordType::A).await;
        // Asked at once, and nobody else.
        if answer.answers.len() == 1 && good.asked() == before + 1 && begin.elapsed() < STAGGER / 2
        {
            break;
        }
        assert!(Instant::now() < deadline, "it goes round and round");
    }
}

#[tokio::test]
async fn a_server_from_before_edns_is_asked_without() {
    let fake = Fake::start(|message| {
        Some(match message.edns {
            Some(_) => failure(message, ResponseCode::FormErr),
            None => address(message, 60),
        })
    })
    .await;
    let server = Server::start(None, of(&[fake.at], &[])).await;
    let answer = server.ask("old.example.com.", RecordType::A).await;
    assert_eq!(answer.answers[0].data.to_string(), "192.0.2.7");
}
