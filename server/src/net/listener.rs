//! Accepting connections: TLS handshakes beside each other, each with a deadline, and no more connections than a
//! manager can serve.
//!
//! Accepting never waits for a client. Silent clients fill a room, and when it is full, the newest pushes out the oldest (`room`). A client
//! whose ClientHello has come waits in line for a turn and then does its handshake (`turns`). One that stalls in its turn loses the turn
//! and goes back to the room.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::Connected;

use super::{
    Credentials,
    lane::Lanes,
    room::{Place, Room},
    slow::{Address, Addresses, Beginning},
    turns::Turns,
};
use crate::pki::Subject;

/// For the ClientHello, which a client sends at once: a silent client must not hold a turn.
const HELLO: Duration = Duration::from_secs(2);
/// For a client to answer the ServerHello in its turn. After it the client goes on without a turn, until others need its place.
const TURN: Duration = Duration::from_secs(1);

/// How much strangers and friends may ask of this manager.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time, of each lane and of all others. Default 20,000: ten thousand agents on one manager, and clients.
    /// Further ones are closed.
    pub connections: usize,
    /// Of these, connections without a certificate (joiners, health probes, programs with bearer tokens). Default
    /// 1,024.
    pub anonymous: usize,
    /// Handshakes at a time, of each lane and of all others; further ones wait. As many clients may keep this manager waiting in a
    /// handshake; one more closes the oldest of these. Default 1,024.
    pub handshakes: usize,
    /// Of the handshakes, of the clients that keep this manager waiting, and of the connections without a certificate, those from one
    /// address. Default 256; a further connection without a certificate is closed.
    pub from_one_address: usize,
    /// For one handshake, and for what HTTP/2 begins with after it. Default 10 s.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            anonymous: 1024,
            handshakes: 1024,
            from_one_address: 256,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// The peer of a connection; an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it dialled from.
    pub address: SocketAddr,
    /// The holder of its certificate; absent when it showed none.
    pub subject: Option<Arc<Subject>>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    beginning: Beginning,
    _permits: (
        OwnedSemaphorePermit,
        Option<(OwnedSemaphorePermit, Address)>,
    ),
}

/// Accepts until `stop`, and yields the connections that passed their handshake, but those whose ClientHello asks for the protocol
/// of a lane: these go there. Dropping the stream ends it too.
pub fn incoming(
    listener: TcpListener,
    credentials: Credentials,
    limits: Limits,
    lanes: Lanes,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(16);
    tokio::spawn(accept(listener, credentials, limits, lanes, stop, ready));
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    credentials: Credentials,
    limits: Limits,
    lanes: Lanes,
    stop: CancellationToken,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    let inside = Inside::new(&limits);
    let room = Room::new(limits.handshakes, limits.from_one_address);
    let strangers = Strangers {
        all: Arc::new(Semaphore::new(limits.anonymous)),
        by_address: Addresses::new(limits.from_one_address),
    };
    let tasks = TaskTracker::new();
    let work = async {
        loop {
            let (tcp, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    // Out of file descriptors, most likely: the pending connection stays pending, and without a
                    // pause this would spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let guest = Guest {
                address,
                deadline: Instant::now() + limits.handshake_timeout,
                limit: limits.handshake_timeout,
                room: room.clone(),
                strangers: strangers.clone(),
            };
            let place = room.enter(address.ip());
            let (ready, lanes, credentials) = (ready.clone(), lanes.clone(), credentials.clone());
            let inside = inside.clone();
            tasks.spawn(async move {
                let Some(hello) = guest.greet(tcp, place).await else {
                    return;
                };
                if let Some(lane) = lanes.iter().find(|lane| lane.is_asked_for(&hello)) {
                    lane.send(hello, guest);
                } else if let Some(connection) =
                    guest.enter(hello, credentials.server(), &inside).await
                {
                    // Fails when the server stops: then the connection just closes.
                    let _ = ready.send(Ok(connection)).await;
                }
            });
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
        () = ready.closed() => {}
    }
}

/// What the listener, or a lane, has of its own: turns to do a handshake, and connections.
#[derive(Debug, Clone)]
pub(super) struct Inside {
    turns: Turns,
    connections: Arc<Semaphore>,
}

impl Inside {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            turns: Turns::new(limits),
            connections: Arc::new(Semaphore::new(limits.connections)),
        }
    }
}

/// The room for connections without a certificate.
#[derive(Debug, Clone)]
struct Strangers {
    all: Arc<Semaphore>,
    by_address: Addresses,
}

/// A connection whose handshake is not done.
#[derive(Debug)]
pub struct Guest {
    address: SocketAddr,
    /// For the whole handshake.
    deadline: Instant,
    limit: Duration,
    room: Room,
    strangers: Strangers,
}

impl Guest {
    /// Reads the ClientHello, and leaves the room.
    async fn greet(&self, tcp: TcpStream, place: Place) -> Option<StartHandshake<TcpStream>> {
        let hello = async {
            tcp.set_nodelay(true)?;
            let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp);
            let hello = timeout(HELLO, hello).await;
            hello.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        self.in_time(place.unless_pushed_out(hello)).await
    }

    /// Does the rest of the handshake.
    pub(super) async fn enter(
        self,
        hello: StartHandshake<TcpStream>,
        config: Arc<ServerConfig>,
        inside: &Inside,
    ) -> Option<Connection> {
        let address = self.address;
        let (stream, peer) = self
            .in_time(self.in_turn(hello, config, &inside.turns))
            .await?;
        let Ok(permit) = inside.connections.clone().try_acquire_owned() else {
            tracing::warn!(%address, "too many connections");
            return None;
        };
        let unknown = match peer.subject {
            Some(_) => None,
            None => {
                let all = self.strangers.all.try_acquire_owned();
                match (all, self.strangers.by_address.enter(address.ip())) {
                    (Ok(permit), Some(place)) => Some((permit, place)),
                    _ => {
                        tracing::warn!(%address, "too many connections without a certificate");
                        return None;
                    }
                }
            }
        };
        Some(Connection {
            stream,
            peer,
            beginning: Beginning::new(self.limit),
            _permits: (permit, unknown),
        })
    }

    /// Waits for a turn and does the handshake in it. A handshake that takes longer than its turn goes on in the room: it hinders
    /// nobody there, and is pushed out like a client that says nothing.
    async fn in_turn(
        &self,
        hello: StartHandshake<TcpStream>,
        config: Arc<ServerConfig>,
        turns: &Turns,
    ) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let turn = turns.wait(self.address.ip(), &hello.io).await?;
        let mut shake = pin!(handshake(hello, config, self.address));
        // `timeout` polls the handshake before it looks at the time. So an answer that has arrived is read, however busy the manager was.
        if let Ok(done) = timeout(TURN, &mut shake).await {
            return done;
        }
        drop(turn);
        let place = self.room.enter(self.address.ip());
        place.unless_pushed_out(shake).await
    }

    /// What the step gives, unless it takes longer than this guest may.
    async fn in_time<T>(&self, step: impl Future<Output = io::Result<T>>) -> Option<T> {
        let done = timeout_at(self.deadline, step).await;
        match done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(done) => Some(done),
            Err(error) => {
                tracing::debug!(address = %self.address, %error, "handshake failed");
                None
            }
        }
    }
}

async fn handshake(
    hello: StartHandshake<TcpStream>,
    config: Arc<ServerConfig>,
    address: SocketAddr,
) -> io::Result<(TlsStream<TcpStream>, Peer)> {
    let stream = hello.into_stream(config).await?;
    let (_, session) = stream.get_ref();
    let subject = match session.peer_certificates().and_then(<[_]>::first) {
        Some(certificate) => Some(Arc::new(
            Subject::from_certificate(certificate).map_err(io::Error::other)?,
        )),
        None => None,
    };
    Ok((stream, Peer { address, subject }))
}

impl Connection {
    /// Whether the other end showed a certificate.
    pub(super) fn is_certified(&self) -> bool {
        self.peer.subject.is_some()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        match self.beginning.poll(cx, buf.filled().len() - before) {
            true => read,
            false => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
