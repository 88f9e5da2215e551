//! Local connections to ports of this machine, by way of a manager.

use std::net::SocketAddr;

use tokio::time::timeout;

use super::*;
use crate::testing::Fake;

/// Ten times what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Forwards a port, with room for so many connections.
async fn forwarded(fake: &Fake, port: u16, room: usize) -> (SocketAddr, JoinSet<Infallible>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let start = PortForwardStart {
        pod: "web".into(),
        port: port.into(),
        ..PortForwardStart::default()
    };
    let mut serving = JoinSet::new();
    let room = Arc::new(Semaphore::new(room));
    serving.spawn(serve(listener, fake.client.clone(), start, room));
    (address, serving)
}

/// A program that reads until the end, and then answers with what it read.
async fn mirror() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    (port, serving)
}

async fn answer(address: SocketAddr, text: &[u8]) -> Vec<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    };
    timeout(DEADLINE, exchange).await.unwrap()
}

#[tokio::test]
async fn a_side_that_has_said_all_still_hears() {
    let fake = Fake::start().await;
    let (port, _program) = mirror().await;
    let (address, _serving) = forwarded(&fake, port, 8).await;
    let text = vec![b'x'; 3 << 20];
    assert!(answer(address, &text).await == text);
    assert!(answer(address, b"").await.is_empty());
}

#[tokio::test]
async fn a_program_that_has_said_all_still_hears() {
    let fake = Fake::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all.len()
    });
    let (address, _serving) = forwarded(&fake, port, 8).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut all = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut all)).await;
    read.unwrap().unwrap();
    assert_eq!(all, b"bye");
    stream.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    stream.shutdown().await.unwrap();
    let heard = timeout(DEADLINE, program).await.unwrap().unwrap();
    assert_eq!(heard, 1 << 20);
}

#[tokio::test]
async fn connections_do_not_wait_for_each_other() {
    let fake = Fake::start().await;
    let (port, _program) = mirror().await;
    let (address, _serving) = forwarded(&fake, port, 64).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut answers = JoinSet::new();
    for number in 0..20_u32 {
        answers.spawn(async move {
            let text = number.to_string().repeat(10_000).into_bytes();
            answer(address, &text).await == text
        });
    }
    while let Some(good) = answers.join_next().await {
        assert!(good.unwrap());
    }
}

#[tokio::test]
async fn beyond_the_room_connections_wait() {
    let fake = Fake::start().await;
    let (port, _program) = mirror().await;
    let (address, _serving) = forwarded(&fake, port, 1).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"1").await.unwrap();
    let second = tokio::spawn(answer(address, b"2"));
    // The first one is served while the second one waits.
    first.shutdown().await.unwrap();
    let mut all = Vec::new();
    first.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"1");
    drop(first);
    assert_eq!(second.await.unwrap(), b"2");
}

#[tokio::test]
async fn a_connection_waits_for_a_place_at_the_node() {
    let fake = Fake::start().await;
    let (port, _program) = mirror().await;
    let (address, _serving) = forwarded(&fake, port, 1).await;
    fake.pod.refuse(2);
    assert_eq!(answer(address, b"1").await, b"1");
    assert_eq!(fake.pod.refuses(), 0);
}

#[tokio::test]
async fn a_connection_that_fails_leaves_the_others() {
    let fake = Fake::start().await;
    let (port, program) = mirror().await;
    let (address, _serving) = forwarded(&fake, port, 8).await;
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(b"1").await.unwrap();
    let (closed, _other) = forwarded(&fake, 1, 8).await;
    assert!(answer(closed, b"").await.is_empty());
    open.shutdown().await.unwrap();
    let mut all = Vec::new();
    timeout(DEADLINE, open.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all, b"1");
    assert_eq!(answer(address, b"2").await, b"2");
    drop(program);
}
