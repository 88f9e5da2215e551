//! Clients that send nothing, or only a ClientHello: other clients get in beside them, and many clients that do their handshakes at once
//! do not push each other out.

use std::{net::Ipv4Addr, task::Poll, time::Duration};

use barge_client::tls::for_life_signs;
use tokio::{
    net::TcpSocket,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::DropGuard;

use super::*;
use crate::net::lane::Lane;

/// Much less than it takes until as many silent clients as there are have had their time, one room full after the other.
const SOON: Duration = Duration::from_secs(10);
/// In all, and from one address.
const PLACES: (usize, usize) = (32, 16);
const SILENT: usize = 400;
/// Many more than there are places.
const CROWD: usize = 600;
/// For all of the crowd, on a machine with other work.
const LATE: Duration = Duration::from_secs(120);

struct Server {
    address: std::net::SocketAddr,
    credentials: Credentials,
    ca: Authority,
    lane: Lane,
    _stop: DropGuard,
}

async fn server(handshake_timeout: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ca = Authority::create("c", SystemTime::now()).unwrap();
    let credentials = Credentials::new(&identity(&ca, "c", Role::Manager)).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (sender, mut lane) = lane(barge_client::tls::LIFE_ALPN);
    let limits = Limits {
        handshakes: PLACES.0,
        from_one_address: PLACES.1,
        handshake_timeout,
        ..Limits::default()
    };
    lane.limits = limits.clone();
    let lanes = [sender].into();
    let mut others = incoming(
        listener,
        credentials.clone(),
        limits,
        lanes,
        stop.child_token(),
    );
    tokio::spawn(async move { while others.next().await.is_some() {} });
    Server {
        address,
        credentials,
        ca,
        lane,
        _stop: stop.drop_guard(),
    }
}

async fn dial(from: Ipv4Addr, to: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Connects so many times, says this and nothing more, and connects again when it is put out.
async fn keep_silent(after: &[u8], from: Ipv4Addr, to: std::net::SocketAddr, count: usize) {
    for _ in 0..count {
        let mut first = dial(from, to).await;
        first.write_all(after).await.unwrap();
        let after = after.to_vec();
        tokio::spawn(async move {
            let mut tcp = first;
            loop {
                let _ = tcp.read_to_end(&mut Vec::new()).await;
                sleep(SOON).await;
                tcp = dial(from, to).await;
                let _ = tcp.write_all(&after).await;
            }
        });
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from(barge_client::tls::SERVER_NAME).unwrap()
}

/// What a client says first.
fn client_hello(config: Arc<ClientConfig>) -> Vec<u8> {
    let mut hello = Vec::new();
    let mut client = rustls::ClientConnection::new(config, name()).unwrap();
    client.write_tls(&mut hello).unwrap();
    hello
}

async fn life_signs_get_in_beside(silent: &[Ipv4Addr], says: Says) {
    let server = server(Limits::default().handshake_timeout).await;
    let client = client_config(&identity(&server.ca, "c", Role::Agent)).unwrap();
    let connector = TlsConnector::from(for_life_signs(&client));
    let after = match says {
        Says::Nothing => Vec::new(),
        Says::ClientHello => client_hello(client),
        Says::ClientHelloOfTheLane => client_hello(for_life_signs(&client)),
    };
    let mut arrived = server.lane.connections(server.credentials);
    for from in silent {
        keep_silent(&after, *from, server.address, SILENT / silent.len()).await;
    }
    let dialled = async {
        let name = name();
        let tcp = dial(Ipv4Addr::LOCALHOST, server.address).await;
        connector.connect(name, tcp).await
    };
    let both = async { tokio::join!(dialled, arrived.next()) };
    let (dialled, arrived) = timeout(SOON, both).await.expect("it gets in soon");
    dialled.expect("it is not put out");
    arrived.unwrap().unwrap();
}

/// What the silent ones say before they are silent.
enum Says {
    Nothing,
    ClientHello,
    ClientHelloOfTheLane,
}

const OTHERS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 0, 3),
    Ipv4Addr::new(127, 0, 0, 4),
    Ipv4Addr::new(127, 0, 0, 5),
];

#[tokio::test]
async fn silent_clients_at_other_addresses_do_not_delay_life_signs() {
    life_signs_get_in_beside(&OTHERS, Says::Nothing).await;
}

#[tokio::test]
async fn clients_that_stall_after_their_hello_do_not_keep_life_signs_out() {
    life_signs_get_in_beside(&OTHERS, Says::ClientHello).await;
}

#[tokio::test]
async fn clients_that_stall_on_the_lane_do_not_keep_life_signs_out() {
    life_signs_get_in_beside(&OTHERS, Says::ClientHelloOfTheLane).await;
}

#[tokio::test]
async fn silent_clients_at_the_same_address_do_not_keep_life_signs_out() {
    life_signs_get_in_beside(&[Ipv4Addr::LOCALHOST], Says::Nothing).await;
}

#[tokio::test]
async fn a_crowd_at_one_address_gets_in_and_nobody_is_put_out() {
    let server = server(LATE).await;
    let client = client_config(&identity(&server.ca, "c", Role::Agent)).unwrap();
    let connector = TlsConnector::from(for_life_signs(&client));
    // The crowd shares this thread. Elsewhere each client says hello as soon as it is connected.
    let connecting = Arc::new(Semaphore::new(PLACES.1 / 2));
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let (connector, connecting) = (connector.clone(), connecting.clone());
        crowd.spawn(async move {
            let turn = connecting.acquire().await.unwrap();
            let tcp = dial(Ipv4Addr::LOCALHOST, server.address).await;
            let mut shake = Box::pin(connector.connect(name(), tcp));
            let begun = futures::poll!(&mut shake);
            drop(turn);
            match begun {
                Poll::Ready(done) => done,
                Poll::Pending => shake.await,
            }
        });
    }
    let arrived = server.lane.connections(server.credentials).take(CROWD);
    let both = async { tokio::join!(crowd.join_all(), arrived.collect::<Vec<_>>()) };
    let (dialled, arrived) = timeout(LATE, both).await.expect("all get in");
    let put_out: Vec<_> = dialled
        .iter()
        .filter_map(|tls| tls.as_ref().err())
        .collect();
    assert!(put_out.is_empty(), "{}: {put_out:?}", put_out.len());
    assert_eq!(arrived.len(), CROWD);
}
