//! The process: it listens at the node's addresses, and reads what control and the node's files say.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use barge_client::supervisor::Supervisor;
use nix::sys::{
    resource::{Resource, setrlimit},
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
        sockopt,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    Args, LINK_LOCAL,
    answer::{Answerer, Way},
    forward::Forwarder,
    watches,
};
use crate::{
    carrier::{self, lock},
    runtime::Paths,
};

/// The port of name servers.
pub const PORT: u16 = 53;
/// Between two tries to listen at an address.
const AGAIN: Duration = Duration::from_secs(1);
/// Datagrams that are being answered.
const DATAGRAMS: usize = 2048;
/// Connections …
const STREAMS: usize = 512;
/// … and of them those of one client.
const STREAMS_OF_CLIENT: usize = 64;
/// For a client to ask, or to take its answer.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of memory for data: without a limit from outside, this process has one of its own.
const MEMORY: u64 = 256 << 20;

/// Runs the name server until it is told to go.
///
/// # Errors
/// When the data folder cannot be used.
pub fn run(args: &Args) -> io::Result<()> {
    // Nobody's terminal and nobody's process group takes this process down. Fails when it is so already.
    let _ = nix::unistd::setsid();
    if let Err(error) = setrlimit(Resource::RLIMIT_DATA, MEMORY, MEMORY) {
        tracing::warn!(%error, "cannot limit this process's memory");
    }
    if let Err(error) = carrier::allow_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let paths = Paths::new(&args.data_dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let supervisor = Supervisor::from_environment();
    let serve = async {
        tokio::task::spawn_local(supervisor.clone().keep_alive());
        let file = paths.dns_lock();
        match lock::take(&paths, &file, args.standby, &supervisor).await? {
            Some(_lock) => serve(&paths, &supervisor).await,
            None => {
                tracing::info!("another name server is running");
                Ok(())
            }
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, serve)
}

async fn serve(paths: &Paths, supervisor: &Supervisor) -> io::Result<()> {
    // Whoever waits for this process learns whether somebody else starts it again.
    let note: &[u8] = if supervisor.is_there() {
        SUPERVISED
    } else {
        b""
    };
    fs::write(paths.dns_lock(), note)?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let (zone_sender, zone) = watch::channel(None);
    let (upstreams_sender, upstreams) = watch::channel(Arc::default());
    let forwarder = Forwarder::new(upstreams);
    let answerer = Answerer::new(zone, forwarder.clone());
    let mut parts = JoinSet::new();
    parts.spawn(forwarder.prove());
    let mut listening = Listening::new(answerer);
    listening.at(&[LINK_LOCAL]);
    let (known_sender, known) = watch::channel(None);
    // A disk that hangs holds up the second one alone.
    parts.spawn(watches::servers(known, upstreams_sender));
    let keep = watches::names(paths.dns(), known_sender, zone_sender, |own| {
        listening.at(own);
    });
    supervisor.ready("answers for names");
    tracing::info!(address = %LINK_LOCAL, "the name server runs");
    tokio::select! {
        () = keep => {}
        _ = terminate.recv() => {}
        // None ends by itself: whoever starts this process starts another one.
        Some(Err(error)) = parts.join_next() => return Err(io::Error::other(error)),
    }
    Ok(())
}

/// In the lock's file while a supervisor starts the process again.
pub const SUPERVISED: &[u8] = b"supervised\n";

/// Where this process listens.
struct Listening {
    answerer: Answerer,
    streams: Arc<Semaphore>,
    clients: Clients,
    at: HashMap<Ipv4Addr, Ends>,
}

/// Ends the listeners of an address when it is dropped.
struct Ends([AbortHandle; 2]);

impl Drop for Ends {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Listening {
    fn new(answerer: Answerer) -> Self {
        Self {
            answerer,
            streams: Arc::new(Semaphore::new(STREAMS)),
            clients: Clients::default(),
            at: HashMap::new(),
        }
    }

    /// Listens at these addresses and no others.
    fn at(&mut self, addresses: &[Ipv4Addr]) {
        self.at.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if self.at.contains_key(address) {
                continue;
            }
            let to = SocketAddrV4::new(*address, PORT);
            let (answerer, streams) = (self.answerer.clone(), self.streams.clone());
            let clients = self.clients.clone();
            let datagrams = tokio::spawn(datagrams(to, answerer.clone()));
            let streams = tokio::spawn(listen_at(to, answerer, streams, clients));
            let ends = Ends([datagrams.abort_handle(), streams.abort_handle()]);
            self.at.insert(*address, ends);
        }
    }
}

/// Answers datagrams, for ever.
async fn datagrams(at: SocketAddrV4, answerer: Answerer) {
    let socket = Arc::new(until_bound(at, || udp(at)).await);
    answer_datagrams(socket, answerer).await;
}

pub(super) async fn answer_datagrams(socket: Arc<UdpSocket>, answerer: Answerer) {
    let turns = Arc::new(Semaphore::new(DATAGRAMS));
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // A client that is gone; or the kernel has no memory.
            Err(_) => {
                sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        // Without a turn the question is lost, as datagrams may be.
        let Ok(turn) = turns.clone().try_acquire_owned() else {
            continue;
        };
        let bytes = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, answerer) = (socket.clone(), answerer.clone());
        tokio::spawn(async move {
            let _turn = turn;
            if let Some(answer) = answerer.answer(&bytes, client.ip(), Way::Datagram).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

/// Answers connections, for ever.
async fn listen_at(
    at: SocketAddrV4,
    answerer: Answerer,
    streams: Arc<Semaphore>,
    clients: Clients,
) {
    let listener = until_bound(at, || tcp(at)).await;
    answer_streams(listener, answerer, streams, clients).await;
}

pub(super) async fn answer_streams(
    listener: TcpListener,
    answerer: Answerer,
    streams: Arc<Semaphore>,
    clients: Clients,
) {
    let own = Arc::new(Semaphore::new(STREAMS_OF_CLIENT));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // The node's own programs, control among them, have room that pods do not take.
        let of_node = listener.local_addr().is_ok_and(|at| at.ip() == client.ip());
        let room = if of_node { &own } else { &streams };
        let Ok(turn) = room.clone().try_acquire_owned() else {
            continue;
        };
        let Some(share) = clients.share(client.ip()) else {
            continue;
        };
        let answerer = answerer.clone();
        connections.spawn(async move {
            // Its end is the client's to see.
            let _ = converse(stream, client, &answerer, turn, share).await;
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    answerer: &Answerer,
    _turn: OwnedSemaphorePermit,
    _share: Share,
) -> io::Result<()> {
    loop {
        let question = async {
            let length = stream.read_u16().await?;
            let mut bytes = vec![0; length.into()];
            stream.read_exact(&mut bytes).await?;
            io::Result::Ok(bytes)
        };
        let bytes = timeout(IDLE, question).await??;
        let answer = answerer.answer(&bytes, client.ip(), Way::Stream).await;
        let answer = answer.ok_or(io::ErrorKind::InvalidData)?;
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let message = [&length.to_be_bytes(), answer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&message)).await??;
    }
}

/// How many connections each client has.
#[derive(Debug, Clone, Default)]
pub(super) struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct Share(Clients, IpAddr);

impl Clients {
    fn share(&self, client: IpAddr) -> Option<Share> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(client).or_default();
        (*count < STREAMS_OF_CLIENT).then(|| {
            *count += 1;
            Share(self.clone(), client)
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

/// Tries until it listens. Something else may have the address's port; it is told once.
async fn until_bound<T>(at: SocketAddrV4, bound: impl Fn() -> io::Result<T>) -> T {
    let mut is_told = false;
    loop {
        match bound() {
            Ok(socket) => return socket,
            Err(error) if !is_told => {
                tracing::error!(%at, %error, "cannot listen; trying again each second");
                is_told = true;
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

fn udp(at: SocketAddrV4) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(at, SockType::Datagram)?.into())
}

fn tcp(at: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = bound(at, SockType::Stream)?;
    listen(&socket, Backlog::MAXCONN)?;
    TcpListener::from_std(socket.into())
}

/// A socket at an address that this machine may not have yet: control adds it to the loopback interface.
fn bound(at: SocketAddrV4, kind: SockType) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, kind, flags, None)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    if kind == SockType::Stream {
        // Connections of the process before may linger.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrIn::from(at))?;
    Ok(socket)
}
