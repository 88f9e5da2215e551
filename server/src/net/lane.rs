//! A lane: connections that are served by a runtime of their own, on a thread of its own.
//!
//! The listener accepts all connections on one port. It reads the ClientHello of each; one that asks for the lane's protocol (ALPN)
//! is moved to the lane's runtime, where the rest of its handshake and everything after it happens. So nothing that keeps the other
//! runtime's threads busy (a lock, a disk, thousands of requests) holds up what is served there.

use std::{io, net, sync::Arc, time::Duration};

use barge_client::channel::{CONNECTION_WINDOW, STREAM_WINDOW};

use rustls::server::Accepted;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::StartHandshake;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::{
    Credentials, Limits,
    listener::{Connection, Guest, Inside},
};

/// Connections on their way to the lane. Further ones are closed, and their clients dial again.
const ARRIVING: usize = 8192;
/// Connections whose handshake is done, on their way to the server.
const READY: usize = 16;

/// A connection that does not answer a ping for as long is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The listener's ends of all lanes.
pub type Lanes = Arc<[LaneSender]>;

/// The listener's end of a lane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LaneSender {
    protocol: &'static [u8],
    arrivals: mpsc::Sender<Arrival>,
}

/// The lane's end.
#[derive(Debug)]
pub struct Lane {
    protocol: &'static [u8],
    arrivals: mpsc::Receiver<Arrival>,
    pub(super) limits: Limits,
}

/// A connection that belongs to no runtime.
#[derive(Debug)]
struct Arrival {
    accepted: Accepted,
    tcp: net::TcpStream,
    guest: Guest,
}

/// Both ends of a lane for connections that ask for this protocol.
#[must_use]
pub fn lane(protocol: &'static [u8]) -> (LaneSender, Lane) {
    let (sender, arrivals) = mpsc::channel(ARRIVING);
    let sender = LaneSender {
        protocol,
        arrivals: sender,
    };
    let lane = Lane {
        protocol,
        arrivals,
        limits: Limits::default(),
    };
    (sender, lane)
}

/// Streams on one connection of a lane: its clients need a handful.
const MAX_STREAMS: u32 = 64;

/// The server of a lane, without services yet.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

impl LaneSender {
    /// Whether the client asks for the lane's protocol.
    pub(super) fn is_asked_for(&self, hello: &StartHandshake<TcpStream>) -> bool {
        let hello = hello.client_hello();
        hello
            .alpn()
            .is_some_and(|mut protocols| protocols.any(|protocol| protocol == self.protocol))
    }

    /// Moves a connection to the lane; closes it when the lane does not keep up.
    pub(super) fn send(&self, hello: StartHandshake<TcpStream>, guest: Guest) {
        let (accepted, io) = (hello.accepted, hello.io);
        let tcp = match io.into_std() {
            Ok(tcp) => tcp,
            Err(error) => {
                tracing::warn!(%error, "could not move a connection to its lane");
                return;
            }
        };
        let arrival = Arrival {
            accepted,
            tcp,
            guest,
        };
        if self.arrivals.try_send(arrival).is_err() {
            tracing::warn!("too many connections arrive on a lane");
        }
    }
}

impl Lane {
    /// The connections, once their handshakes are done. To be called on the lane's runtime.
    pub fn connections(
        mut self,
        credentials: Credentials,
    ) -> ReceiverStream<io::Result<Connection>> {
        let (ready, connections) = mpsc::channel(READY);
        let inside = Inside::new(&self.limits);
        tokio::spawn(async move {
            while let Some(arrival) = self.arrivals.recv().await {
                let (ready, config) = (ready.clone(), credentials.server_for(self.protocol));
                let inside = inside.clone();
                tokio::spawn(async move {
                    let Arrival {
                        accepted,
                        tcp,
                        guest,
                    } = arrival;
                    let tcp = match TcpStream::from_std(tcp) {
                        Ok(tcp) => tcp,
                        Err(error) => {
                            tracing::warn!(%error, "could not take over a connection");
                            return;
                        }
                    };
                    let hello = StartHandshake::from_parts(accepted, tcp);
                    // Whoever belongs on a lane has a certificate.
                    if let Some(connection) = guest.enter(hello, config, &inside).await
                        && connection.is_certified()
                    {
                        // Fails when the server stops: then the connection just closes.
                        let _ = ready.send(Ok(connection)).await;
                    }
                });
            }
        });
        ReceiverStream::new(connections)
    }
}
