//! Accepting connections: TLS handshakes beside each other, each with a deadline, and no more connections than a
//! manager can serve.
//!
//! Accepting waits for nobody. Clients that connect and say nothing fill the room for handshakes, and then the newest pushes out the
//! oldest, so a client that does its handshake at once gets in however many of the others there are.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
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
};
use crate::pki::Subject;

/// For the ClientHello, which a client sends at once: whoever says nothing must not hold the turns of those who live.
const HELLO: Duration = Duration::from_secs(2);

/// How much strangers and friends may ask of this manager.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time, of each lane and of all others. Default 20,000: ten thousand agents on one manager, and clients.
    /// Further ones are closed.
    pub connections: usize,
    /// Of these, connections without a certificate (joiners, health probes, programs with bearer tokens). Default
    /// 1,024.
    pub anonymous: usize,
    /// Handshakes at a time. Default 1,024; one more closes the oldest.
    pub handshakes: usize,
    /// Of the handshakes, and of the connections without a certificate, those from one address. Default 256; one more closes the
    /// oldest handshake from there, and is closed itself when it is done and shows no certificate.
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

/// Who is at the other end of a connection; an extension of every request.
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
    let all = Arc::new(Semaphore::new(limits.connections));
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
                place: room.enter(address.ip()),
                strangers: strangers.clone(),
            };
            let (ready, lanes, credentials) = (ready.clone(), lanes.clone(), credentials.clone());
            let all = all.clone();
            tasks.spawn(async move {
                let Some((hello, guest)) = guest.greet(tcp).await else {
                    return;
                };
                if let Some(lane) = lanes.iter().find(|lane| lane.is_asked_for(&hello)) {
                    lane.send(hello, guest);
                } else if let Some(connection) = guest.enter(hello, credentials.server(), all).await
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

/// The room for connections without a certificate.
#[derive(Debug, Clone)]
struct Strangers {
    all: Arc<Semaphore>,
    by_address: Addresses,
}

/// Somebody at the door: a connection whose handshake is not done.
#[derive(Debug)]
pub struct Guest {
    address: SocketAddr,
    /// For the whole handshake.
    deadline: Instant,
    limit: Duration,
    place: Place,
    strangers: Strangers,
}

impl Guest {
    /// Reads the ClientHello.
    async fn greet(self, tcp: TcpStream) -> Option<(StartHandshake<TcpStream>, Self)> {
        let hello = async {
            tcp.set_nodelay(true)?;
            let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp);
            let hello = timeout(HELLO, hello).await;
            hello.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        let hello = self.in_time(hello).await?;
        Some((hello, self))
    }

    /// Does the rest of the handshake. `all` are the connections that there is room for.
    pub(super) async fn enter(
        self,
        hello: StartHandshake<TcpStream>,
        config: Arc<ServerConfig>,
        all: Arc<Semaphore>,
    ) -> Option<Connection> {
        let address = self.address;
        let (stream, peer) = self.in_time(handshake(hello, config, address)).await?;
        drop(self.place);
        let Ok(permit) = all.try_acquire_owned() else {
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

    /// What the step gives, unless this guest has to go before.
    async fn in_time<T>(&self, step: impl Future<Output = io::Result<T>>) -> Option<T> {
        let done = timeout_at(self.deadline, self.place.unless_pushed_out(step)).await;
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
