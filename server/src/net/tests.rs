#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Handshakes over loopback: whom the TLS end of a manager lets in.

use std::{sync::Arc, time::SystemTime};

use barge_client::{
    identity::Identity,
    tls::{client_config, pinned_config},
    token::ca_digest,
};
use barge_proto::v1::Role;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Credentials, Limits, lane::lane, listener::incoming};
use crate::pki::{Authority, Subject, authority::LEAF_LIFE};

mod silent;

fn identity(ca: &Authority, cluster: &str, role: Role) -> Identity {
    let subject = Subject {
        cluster_id: cluster.to_owned(),
        role,
        uid: "u".to_owned(),
        raft_id: (role == Role::Manager).then_some(1),
    };
    let (key, certificate) = ca
        .issue_with_new_key(&subject, SystemTime::now(), LEAF_LIFE)
        .unwrap();
    Identity {
        cluster_id: cluster.to_owned(),
        role,
        uid: "u".to_owned(),
        key: key.serialize_pem(),
        chain: vec![certificate],
        roots: vec![ca.root().clone()],
        members: Vec::new(),
    }
}

/// What the server sees of a client: its role, or nothing when it shows no certificate; an error when it does not get in.
async fn meet(server: &Identity, client: Arc<ClientConfig>) -> Result<Option<Role>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let _ended = stop.clone().drop_guard();
    let credentials = Credentials::new(server).unwrap();
    let (other, _lane) = lane(b"other");
    let mut connections = incoming(
        listener,
        credentials,
        Limits::default(),
        [other].into(),
        stop,
    );
    let dial = async move {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(barge_client::tls::SERVER_NAME).unwrap();
        let mut tls = TlsConnector::from(client)
            .connect(name, tcp)
            .await
            .map_err(|error| error.to_string())?;
        // In TLS 1.3 the client learns only now whether its certificate was taken.
        tls.read_u8().await.map_err(|error| error.to_string())
    };
    let accept = async {
        let mut connection = connections.next().await.unwrap().unwrap();
        connection.write_u8(1).await.unwrap();
        connection.flush().await.unwrap();
        use tonic::transport::server::Connected;
        connection.connect_info().subject.map(|s| s.role)
    };
    tokio::pin!(dial);
    tokio::select! {
        role = accept => dial.await.map(|_| role),
        refused = &mut dial => Err(refused.unwrap_err()),
    }
}

#[tokio::test]
async fn a_certificate_of_our_ca_is_seen() {
    let ca = Authority::create("c", SystemTime::now()).unwrap();
    let server = identity(&ca, "c", Role::Manager);
    for role in [Role::Manager, Role::Agent, Role::Admin] {
        let client = client_config(&identity(&ca, "c", role)).unwrap();
        assert_eq!(meet(&server, client).await, Ok(Some(role)));
    }
}

#[tokio::test]
async fn a_joiner_needs_no_certificate_but_the_right_digest() {
    let ca = Authority::create("c", SystemTime::now()).unwrap();
    let server = identity(&ca, "c", Role::Manager);
    let right = pinned_config(ca_digest(ca.root())).unwrap();
    assert_eq!(meet(&server, right).await, Ok(None));
    let wrong = pinned_config([7; 32]).unwrap();
    assert!(meet(&server, wrong).await.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_ca_does_not_get_in() {
    let ca = Authority::create("c", SystemTime::now()).unwrap();
    let other = Authority::create("c", SystemTime::now()).unwrap();
    let server = identity(&ca, "c", Role::Manager);
    // It would trust us, so that only our own check stands in its way.
    let mut stranger = identity(&other, "c", Role::Admin);
    stranger.roots = vec![ca.root().clone()];
    let refused = meet(&server, client_config(&stranger).unwrap()).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn an_agent_cannot_pose_as_a_manager() {
    let ca = Authority::create("c", SystemTime::now()).unwrap();
    let server = identity(&ca, "c", Role::Agent);
    let client = client_config(&identity(&ca, "c", Role::Admin)).unwrap();
    assert!(meet(&server, client).await.is_err());
}
