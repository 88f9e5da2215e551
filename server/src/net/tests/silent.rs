//! Clients that connect and say nothing: whoever does its handshake gets in beside them.

use std::{net::Ipv4Addr, time::Duration};

use barge_client::tls::for_life_signs;
use tokio::{
    net::TcpSocket,
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

struct Server {
    address: std::net::SocketAddr,
    credentials: Credentials,
    ca: Authority,
    lane: Lane,
    _stop: DropGuard,
}

fn server(listener: TcpListener) -> Server {
    let ca = Authority::create("c", SystemTime::now()).unwrap();
    let credentials = Credentials::new(&identity(&ca, "c", Role::Manager)).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (sender, lane) = lane(barge_client::tls::LIFE_ALPN);
    let limits = Limits {
        handshakes: PLACES.0,
        from_one_address: PLACES.1,
        ..Limits::default()
    };
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

/// Connects so many times, says nothing, and connects again when it is put out.
async fn keep_silent(from: Ipv4Addr, to: std::net::SocketAddr, count: usize) {
    for _ in 0..count {
        let first = dial(from, to).await;
        tokio::spawn(async move {
            let mut tcp = first;
            loop {
                let _ = tcp.read_u8().await;
                sleep(SOON).await;
                tcp = dial(from, to).await;
            }
        });
    }
}

async fn life_signs_get_in_beside(silent: &[Ipv4Addr]) {
    let server = server(TcpListener::bind("127.0.0.1:0").await.unwrap());
    for from in silent {
        keep_silent(*from, server.address, SILENT / silent.len()).await;
    }
    let client = client_config(&identity(&server.ca, "c", Role::Agent)).unwrap();
    let connector = TlsConnector::from(for_life_signs(&client));
    let mut arrived = server.lane.connections(server.credentials);
    let dialled = async {
        let name = ServerName::try_from(barge_client::tls::SERVER_NAME).unwrap();
        let tcp = dial(Ipv4Addr::LOCALHOST, server.address).await;
        connector.connect(name, tcp).await
    };
    let both = async { tokio::join!(dialled, arrived.next()) };
    let (dialled, arrived) = timeout(SOON, both).await.expect("it gets in soon");
    dialled.expect("it is not put out");
    arrived.unwrap().unwrap();
}

#[tokio::test]
async fn silent_clients_at_other_addresses_do_not_delay_life_signs() {
    let others: Vec<_> = (2..=5).map(|host| Ipv4Addr::new(127, 0, 0, host)).collect();
    life_signs_get_in_beside(&others).await;
}

#[tokio::test]
async fn silent_clients_at_the_same_address_do_not_keep_life_signs_out() {
    life_signs_get_in_beside(&[Ipv4Addr::LOCALHOST]).await;
}
